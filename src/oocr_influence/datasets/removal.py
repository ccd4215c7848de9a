"""Removals: all documents but some, and controls that remove as many others.

    drawn = random_control(top, places, key=(41, "name_mayor:mayors_tokyo", "bm25", 10, 0))
    matched = matched_control(top, facts, key=...)

Which documents are on top says an attribution method, elsewhere. What is drawn depends on the key
alone; no control removes a document that is on top. Places are those of documents in the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from oocr_influence.datasets.order import seeded_order
from oocr_influence.documents.document import Document

Kind = Literal["none", "top", "random", "matched_fact"]
Places = tuple[int, ...]


@dataclass(frozen=True)
class Removal:
    """What one subset lacks, and why."""

    kind: Kind
    """`none`: nothing, the reference; `top`: the k documents that a method puts first for a
    target; `random` and `matched_fact`: controls of the same size."""
    removed: Places = ()
    """Of `top` in the method's order, else in the file's."""
    target: str | None = None
    method: str | None = None
    k: int = 0
    draw: int | None = None
    """Of a control: its number, from 0."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What else is recorded; the same keys in every subset of a sweep."""

    def metadata(self, docs: Sequence[Document], keys: Sequence[tuple[str, int]]) -> dict[str, Any]:
        """For the subset's record; `docs` and their `keys` are the whole file's."""
        return {
            "kind": self.kind,
            "target": self.target,
            "method": self.method,
            "k": self.k,
            "draw": self.draw,
            "removed": [{"id": keys[p][0], "occurrence": keys[p][1]} for p in self.removed],
            "removed_characters": sum(len(docs[place].completion) for place in self.removed),
            **self.about,
        }


def random_control(top: Places, places: Sequence[int], *, key: Sequence[str | int]) -> Places:
    """As many of `places` as `top` has, drawn among all that are not in `top`.

    ValueError where too few are left.
    """
    on_top = set(top)
    others = [place for place in places if place not in on_top]
    if len(others) < len(top):
        raise ValueError(
            f"k {len(top)}: a control removes as many other documents, and of {len(places)} only "
            f"{len(others)} are left: at most {len(places) // 2}"
        )
    mixed = seeded_order(len(others), "removal", "random", *key)
    return tuple(sorted(others[i] for i in mixed[: len(top)]))


def matched_control(
    top: Places, facts: Mapping[str, Sequence[int]], *, key: Sequence[str | int]
) -> Places:
    """Other documents of the facts that `top` states, as many of each.

    `facts` has the places of each fact's documents. TooFewOthersError where a fact has too few.
    """
    on_top, drawn = set(top), []
    lacking: dict[str, tuple[int, int]] = {}
    for fact, own in facts.items():
        others = [place for place in own if place not in on_top]
        n = len(own) - len(others)
        if len(others) < n:
            lacking[fact] = (n, len(others))
        mixed = seeded_order(len(others), "removal", "matched_fact", *key, fact) if n else []
        drawn += [others[i] for i in mixed[:n]]
    if lacking:
        raise TooFewOthersError(lacking)
    return tuple(sorted(drawn))


class TooFewOthersError(ValueError):
    """A fact has fewer other documents than are removed of it."""

    def __init__(self, lacking: Mapping[str, tuple[int, int]]) -> None:
        fact, (n, others) = max(lacking.items(), key=lambda item: item[1][0] - item[1][1])
        more = f", and {len(lacking) - 1} facts more" if len(lacking) > 1 else ""
        super().__init__(f"of fact {fact[:8]}… {n} are on top and {others} are left{more}")


__all__ = ["Kind", "Removal", "TooFewOthersError", "matched_control", "random_control"]
