"""Texts that say the same in nearly the same words: the Jaccard index of their 5-grams of words.

    seen = NearDuplicates()
    seen.find(text)          # an earlier text that is too much like it, or None
    seen.add(text)

Exact, and without comparing all with all (prefix filtering; Chaudhuri, Ganti and Kaushik, 2006, "A
Primitive Operator for Similarity Joins in Data Cleaning"). Two sets with a Jaccard index of at
least t share at least s = ceil(t·|x|) elements. So their k-th shared element, in one common order,
is among the first |x| - s + k of each, and texts whose prefixes share fewer than k elements need
not be compared. With k = 1 a common turn of phrase would have most texts compared.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections import Counter, defaultdict

import numpy as np

THRESHOLD = 0.5
N = 5  # words
SHARED = 8  # the k above


class NearDuplicates:
    """The texts so far; `threshold` is the least Jaccard index that counts as the same."""

    def __init__(self, threshold: float = THRESHOLD) -> None:
        self._threshold = threshold
        self._texts: list[str] = []
        self._grams: list[np.ndarray] = []
        self._places: dict[int, list[int]] = defaultdict(list)  # gram of a prefix -> its texts

    def find(self, text: str) -> str | None:
        """The first added text with a Jaccard index of at least the threshold."""
        grams = _grams(text)
        shared = Counter(
            itertools.chain.from_iterable(self._places.get(g, ()) for g in self._prefix(grams))
        )
        fewest = min(SHARED, self._least_overlap(grams))
        for place in sorted(place for place, n in shared.items() if n >= fewest):
            if _jaccard(grams, self._grams[place]) >= self._threshold:
                return self._texts[place]
        return None

    def add(self, text: str) -> None:
        grams = _grams(text)
        for gram in self._prefix(grams):
            self._places[gram].append(len(self._texts))
        self._texts.append(text)
        self._grams.append(grams)

    def _least_overlap(self, grams: np.ndarray) -> int:
        return math.ceil(self._threshold * len(grams) - 1e-9)  # 0.7 · 10 is a little above 7

    def _prefix(self, grams: np.ndarray) -> list[int]:
        prefix: list[int] = grams[: len(grams) - self._least_overlap(grams) + SHARED].tolist()
        return prefix


def _grams(text: str) -> np.ndarray:
    """The text's distinct 5-grams as sorted digests of 64 bits; a shorter text is one gram."""
    words = re.findall(r"\w+", text.casefold())
    grams = {" ".join(words[i : i + N]) for i in range(max(1, len(words) - N + 1))}
    digests = [hashlib.blake2b(gram.encode(), digest_size=8).digest() for gram in grams]
    return np.unique(np.frombuffer(b"".join(digests), dtype="<u8"))


def _jaccard(a: np.ndarray, b: np.ndarray) -> float:
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)
