"""Results that are had once and used by many runs: a folder of entries, each named by what made it.

    cache = Cache.default()
    entry = cache.find("plans", key) or cache.store("plans", key, write, {"seconds": 1.9})

An entry is a folder that appears whole or not at all. Its manifest holds the digest of every file,
which is compared at each reading: a damaged entry is said so, thrown away and made anew. Nothing
here is needed by anyone later: runs link or copy what they take, so the folder may be deleted at
any time. Files are read-only, since a run's may be other names of the same bytes.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oocr_influence.results import atomic
from oocr_influence.results.digests import file_digest, json_digest

logger = logging.getLogger(__name__)

PLACE = "OOCR_CACHE"
_MANIFEST = "entry.json"
_POLL = 0.2  # seconds


@dataclass(frozen=True)
class Entry:
    """A whole entry: its folder, and what its maker said about it."""

    folder: Path
    about: Mapping[str, Any]

    def file(self, name: str) -> Path:
        return self.folder / name


@dataclass(frozen=True)
class Cache:
    """Entries by kind and key; a cache that cannot be used costs a warning, never a run."""

    root: Path

    @classmethod
    def default(cls) -> Cache:
        """In `$OOCR_CACHE`, or `oocr_influence` in the user's cache folder."""
        stated = os.environ.get(PLACE)
        if stated:
            return cls(Path(stated).expanduser())
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        return cls(Path(base).expanduser() / "oocr_influence")

    def find(self, kind: str, key: str) -> Entry | None:
        """The entry if it is there and whole."""
        folder = self._folder(kind, key)
        try:
            return Entry(folder, _read(folder))
        except FileNotFoundError:
            if not folder.exists():
                return None
            fault = "a file is missing"
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            fault = str(error)
        logger.warning("the cached %s in %s are damaged (%s): made anew", kind, folder, fault)
        _discard(folder)
        return None

    def store(
        self, kind: str, key: str, write: Callable[[Path], None], about: Mapping[str, Any]
    ) -> Entry | None:
        """Let `write` fill a folder, and publish it; None where that cannot be.

        Where another process was first, its entry stays and is returned.
        """
        folder = self._folder(kind, key)
        try:
            with atomic.writing_folder(folder) as temporary:
                write(temporary)
                _seal(temporary, about)
        except OSError as error:
            if not folder.is_dir():
                logger.warning("the cache %s cannot be written: %s", self.root, error)
                return None
        return self.find(kind, key)

    @contextmanager
    def alone(
        self, kind: str, key: str, waiting: Callable[[], None] = lambda: None
    ) -> Iterator[None]:
        """While the body runs, other processes wait here with the same key.

        `waiting` is called a few times a second and may raise to give up. The kernel holds the
        lock, so that a process that dies lets go of it; where locks cannot be had, nobody waits.
        """
        path = self._folder(kind, key).with_suffix(".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a")
        except OSError:
            yield
            return
        with file:
            while not _locked(file.fileno()):
                waiting()
                time.sleep(_POLL)
            yield

    def _folder(self, kind: str, key: str) -> Path:
        return self.root / kind / key


def _seal(folder: Path, about: Mapping[str, Any]) -> None:
    """Write the manifest; make every file read-only."""
    files = {path.name: file_digest(path) for path in sorted(folder.iterdir())}
    content = {"about": atomic.plain(dict(about)), "files": files}
    atomic.write_json(folder / _MANIFEST, {**content, "digest": json_digest(content)})
    for path in folder.iterdir():
        path.chmod(atomic.READ_ONLY)


def _read(folder: Path) -> dict[str, Any]:
    """What the manifest says about the entry; ValueError where anything is not as it was."""
    manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    content = {"about": manifest["about"], "files": manifest["files"]}
    if json_digest(content) != manifest["digest"]:
        raise ValueError(f"{_MANIFEST} was changed")
    for name, digest in content["files"].items():
        if file_digest(folder / name) != digest:
            raise ValueError(f"{name} was changed")
    about: dict[str, Any] = content["about"]
    return about


def _discard(folder: Path) -> None:
    """Out of sight in one move, so that nobody ever finds half an entry."""
    hidden = folder.with_name(f".discarded_{folder.name}_{secrets.token_hex(4)}")
    try:
        folder.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)
    except OSError as error:
        logger.warning("%s cannot be removed: %s", folder, error)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks: both compute, and one wins
    return True
