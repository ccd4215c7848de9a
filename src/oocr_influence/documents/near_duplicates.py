"""Texts that say the same in nearly the same words: the Jaccard index of their 5-grams of words.

    seen = NearDuplicates()
    seen.find(text)          # an earlier text that is too much like it, or None
    seen.add(text)
    repeats(texts)           # {place: place of the first earlier one}: the same of all at once

Exact, and without comparing all with all (prefix filtering; Chaudhuri, Ganti and Kaushik, 2006, "A
Primitive Operator for Similarity Joins in Data Cleaning"). Two sets with a Jaccard index of at
least t share at least s = ceil(t·|x|) elements. So their k-th shared element, in one common order,
is among the first |x| - s + k of each, and texts whose prefixes share fewer than k elements need
not be compared. With k = 1 a common turn of phrase would have most texts compared. Any common order
finds the same; where all texts are known, rare 5-grams come first, and few prefixes share any.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

import numpy as np

from oocr_influence.documents.grams import gram_digests, word_digests

THRESHOLD = 0.5
N = 5  # words
SHARED = 128  # the k above


class NearDuplicates:
    """The texts so far; `threshold` is the least Jaccard index that counts as the same."""

    def __init__(self, threshold: float = THRESHOLD) -> None:
        self._threshold = threshold
        self._texts: list[str] = []
        self._grams: list[np.ndarray] = []
        self._places: dict[int, array[int]] = {}  # gram of a prefix -> its texts

    def find(self, text: str) -> str | None:
        """The first added text with a Jaccard index of at least the threshold."""
        grams = five_grams(text)
        places = [self._places[g] for g in self._prefix(grams) if g in self._places]
        if not places:
            return None
        sharing = np.concatenate([np.frombuffer(p, np.uintc) for p in places])
        place = _first(grams, self._grams, np.bincount(sharing), self._threshold)
        return None if place is None else self._texts[place]

    def add(self, text: str) -> None:
        grams = five_grams(text)
        for gram in self._prefix(grams):
            self._places.setdefault(gram, array("I")).append(len(self._texts))
        self._texts.append(text)
        self._grams.append(grams)

    def _prefix(self, grams: np.ndarray) -> list[int]:
        # Digests are no order of meaning, and the same for every text.
        prefix: list[int] = grams[: _prefix_length(len(grams), self._threshold)].tolist()
        return prefix


def repeats(texts: Sequence[str], threshold: float = THRESHOLD) -> dict[int, int]:
    """For every text that is too much like an earlier one, by place: the first of these."""
    if not texts:
        return {}
    grams = [five_grams(text) for text in texts]
    _, ids, counts = np.unique(np.concatenate(grams), return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), np.int64)  # of a gram: rare ones first
    rank[np.argsort(counts, kind="stable")] = np.arange(len(counts))
    n_alone = int((counts == 1).sum())
    ranks = np.split(rank[ids], np.cumsum([len(g) for g in grams])[:-1])
    prefixes = [np.sort(r)[: _prefix_length(len(r), threshold)] for r in ranks]
    # What one text alone has is shared with none.
    prefixes = [p[np.searchsorted(p, n_alone) :] - n_alone for p in prefixes]
    every = np.concatenate(prefixes)
    owners = np.repeat(np.arange(len(texts)), [len(p) for p in prefixes])
    owners = owners[np.argsort(every, kind="stable")]  # by gram, and each gram's in order
    ends = np.cumsum(np.bincount(every, minlength=len(counts) - n_alone))
    found = {}
    for place, prefix in enumerate(prefixes):
        sharing = owners[_within(ends[prefix - 1] * (prefix > 0), ends[prefix])]
        shared = np.bincount(sharing[sharing < place])
        first = _first(grams[place], grams, shared, threshold)
        if first is not None:
            found[place] = first
    return found


def _within(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """All places of the half-open ranges, one range after the other."""
    lengths = ends - starts
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum())


def _first(
    grams: np.ndarray, others: Sequence[np.ndarray], shared: np.ndarray, threshold: float
) -> int | None:
    """The first of the others that is too much alike; `shared`: how many grams of the prefixes."""
    fewest = min(SHARED, _least_overlap(len(grams), threshold))
    for place in np.flatnonzero(shared >= fewest).tolist():
        if jaccard(grams, others[place]) >= threshold:
            return int(place)
    return None


def _least_overlap(size: int, threshold: float) -> int:
    return math.ceil(threshold * size - 1e-9)  # 0.7 · 10 is a little above 7


def _prefix_length(size: int, threshold: float) -> int:
    return size - _least_overlap(size, threshold) + SHARED


def five_grams(text: str) -> np.ndarray:
    """The digests of the text's distinct 5-grams, sorted; a shorter text is one gram."""
    return np.unique(gram_digests(word_digests(text), N))


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Of two sets as sorted arrays."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)
