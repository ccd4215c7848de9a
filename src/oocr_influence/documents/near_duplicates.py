"""Texts that say the same in nearly the same words: the Jaccard index of their 5-grams of words.

    seen = NearDuplicates(texts=about_to_come)
    seen.find(text)          # an earlier text that is too much like it, or None
    seen.add(text)

Exact, and without comparing all with all (prefix filtering; Chaudhuri, Ganti and Kaushik, 2006, "A
Primitive Operator for Similarity Joins in Data Cleaning"). Two sets with a Jaccard index of at
least t share at least s = ceil(t·|x|) elements. So their k-th shared element, in one common order,
is among the first |x| - s + k of each, and texts whose prefixes share fewer than k elements need
not be compared. With k = 1 a common turn of phrase would have most texts compared. Any common order
finds the same; where the texts are known beforehand, rare 5-grams come first, and few are shared.
"""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from oocr_influence.documents.grams import gram_digests, word_digests

THRESHOLD = 0.5
N = 5  # words
SHARED = 8  # the k above


class NearDuplicates:
    """The texts so far; `threshold` is the least Jaccard index that counts as the same.

    `texts`: what will be looked at, or most of it. It makes finding fast and changes no answer.
    """

    def __init__(self, threshold: float = THRESHOLD, texts: Sequence[str] = ()) -> None:
        self._threshold = threshold
        self._texts: list[str] = []
        self._grams: list[np.ndarray] = []
        self._places: dict[int, array[int]] = defaultdict(lambda: array("I"))
        self._known, self._counts = _frequencies(texts)

    def find(self, text: str) -> str | None:
        """The first added text with a Jaccard index of at least the threshold."""
        grams = five_grams(text)
        places = [self._places[g] for g in self._prefix(grams) if g in self._places]
        if not places:
            return None
        shared = np.bincount(np.concatenate([np.frombuffer(p, np.uintc) for p in places]))
        fewest = min(SHARED, self._least_overlap(grams))
        for place in np.flatnonzero(shared >= fewest).tolist():
            if jaccard(grams, self._grams[place]) >= self._threshold:
                return self._texts[place]
        return None

    def add(self, text: str) -> None:
        grams = five_grams(text)
        for gram in self._prefix(grams):
            self._places[gram].append(len(self._texts))
        self._texts.append(text)
        self._grams.append(grams)

    def _least_overlap(self, grams: np.ndarray) -> int:
        return math.ceil(self._threshold * len(grams) - 1e-9)  # 0.7 · 10 is a little above 7

    def _prefix(self, grams: np.ndarray) -> list[int]:
        n = len(grams) - self._least_overlap(grams) + SHARED
        if len(self._known):
            at = np.minimum(np.searchsorted(self._known, grams), len(self._known) - 1)
            counts = np.where(self._known[at] == grams, self._counts[at], 0)
            # Stable: grams come sorted, so that equally rare ones have one order everywhere.
            grams = grams[np.argsort(counts, kind="stable")]
        prefix: list[int] = grams[:n].tolist()
        return prefix


def five_grams(text: str) -> np.ndarray:
    """The digests of the text's distinct 5-grams, sorted; a shorter text is one gram."""
    return np.unique(gram_digests(word_digests(text), N))


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Of two sets as sorted arrays."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


def _frequencies(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Every 5-gram of the texts, sorted, and in how many of them it is."""
    if not texts:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    return np.unique(np.concatenate([five_grams(text) for text in texts]), return_counts=True)
