"""Replies of a language model that were paid for once: one entry of the cache each.

    <cache>/replies/<two digits>/<key>/entry.json     what was asked, what came back

A key is the digest of all that a reply follows from. An entry appears whole or not at all, so that
a killed command loses the replies that were under way and no other. No key or address of a server
is in an entry.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from oocr_influence.cli.arguments import UsageError
from oocr_influence.documents.conversation import Reply
from oocr_influence.results.cache import PLACE, Cache


class KeptReplies:
    """Replies by key, for several threads and several processes."""

    def __init__(self, cache: Cache) -> None:
        """Raises UsageError where nothing can be written: a reply that is paid must be kept."""
        self._cache = cache
        try:
            (cache.root / "replies").mkdir(parents=True, exist_ok=True)
            probe = cache.root / "replies" / ".probe"
            probe.touch()
            probe.unlink(missing_ok=True)
        except OSError as error:
            raise UsageError(
                f"replies cannot be kept in {cache.root} ({error.strerror}); "
                f"set {PLACE} to a folder that can be written"
            ) from None

    def get(self, key: str) -> Reply | None:
        entry = self._cache.find(_kind(key), key)
        return None if entry is None else Reply.from_json(entry.about["reply"])

    def put(self, key: str, reply: Reply, asked: dict[str, Any]) -> None:
        """Keep a reply; raises UsageError where it cannot be kept."""
        about = {"asked": asked, "reply": asdict(reply)}
        if self._cache.store(_kind(key), key, _nothing, about) is None:
            raise UsageError(
                f"a reply could not be kept in {self._cache.root}; set {PLACE} to another folder"
            )


def _kind(key: str) -> str:
    return f"replies/{key[:2]}"  # folders of thousands of entries are slow on some file systems


def _nothing(folder: Path) -> None:
    """An entry is its manifest alone."""
