"""Texts that say the same in nearly the same words: the Jaccard index of their 5-grams of words.

    known = Collection(texts)
    known.repeats()          # {place: the places of earlier texts that it is too much like}
    known.like(text)         # the places of all texts that another one is too much like
    redraw(texts, threshold, draw)   # replace those that repeat
    seen = NearDuplicates()  # where texts come one by one
    seen.find(text)          # an earlier text that is too much like it, or None
    seen.add(text)

Exact, and `repeats` without comparing all with all (prefix filtering; Chaudhuri, Ganti and Kaushik,
2006, "A Primitive Operator for Similarity Joins in Data Cleaning"). Two sets with a Jaccard index
of at least t share at least s = ceil(t·|x|) elements. So their k-th shared element, in one common
order, is among the first |x| - s + k of each, and texts whose prefixes share fewer than k elements
need not be compared. Rare 5-grams come first, and few prefixes share any; with k = 1 a common turn
of phrase would still have most texts compared.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

import numpy as np

from oocr_influence.documents.grams import gram_digests, word_digests

THRESHOLD = 0.5
N = 5  # words
NEEDED = 1 / 3  # the k above, as a share of s


class NearDuplicates:
    """The texts so far; `threshold` is the least Jaccard index that counts as the same."""

    def __init__(self, threshold: float = THRESHOLD) -> None:
        self._threshold = threshold
        self._texts: list[str] = []
        self._sizes = array("q")
        self._places: dict[int, array[int]] = {}  # gram -> its texts

    def find(self, text: str) -> str | None:
        """The first added text with a Jaccard index of at least the threshold."""
        grams = five_grams(text)
        places = [self._places[g] for g in grams.tolist() if g in self._places]
        if not places:
            return None
        sharing = np.concatenate([np.frombuffer(p, np.uintc) for p in places])
        shared = np.bincount(sharing, minlength=len(self._texts))
        index = jaccard(shared, len(grams), np.frombuffer(self._sizes, np.int64))
        near = np.flatnonzero(index >= self._threshold)
        return self._texts[near[0]] if len(near) else None

    def add(self, text: str) -> None:
        grams = five_grams(text)
        for gram in grams.tolist():
            self._places.setdefault(gram, array("I")).append(len(self._texts))
        self._texts.append(text)
        self._sizes.append(len(grams))


class Collection:
    """Texts that are all known, each by its place."""

    def __init__(self, texts: Sequence[str], threshold: float = THRESHOLD) -> None:
        self._threshold = threshold
        grams = [five_grams(text) for text in texts]
        self._sizes = np.array([len(g) for g in grams], np.int64)
        every = np.concatenate([np.zeros(0, np.uint64), *grams])
        order = np.argsort(every, kind="stable")
        every = every[order]
        is_new = np.ones(len(every), np.bool_)
        is_new[1:] = every[1:] != every[:-1]
        self._grams = every[is_new]
        self._marked = np.zeros(len(self._grams), np.bool_)  # for `_near`: none is between calls
        # The texts of the first gram, in order, then those of the second …
        self._owners = _owners(self._sizes)[order]
        self._begins = np.append(np.flatnonzero(is_new), len(every))
        # The numbers of the first text's grams, then those of the second's …
        numbers = np.empty(len(every), np.int32)
        numbers[order] = np.cumsum(is_new, dtype=np.int32) - 1
        ends = np.cumsum(self._sizes)
        self._numbers = [
            numbers[end - size : end] for end, size in zip(ends, self._sizes, strict=True)
        ]

    def like(self, text: str) -> list[int]:
        """The places of all texts with a Jaccard index of at least the threshold."""
        grams = five_grams(text)
        found = np.searchsorted(self._grams, grams)
        known = found[self._grams[np.minimum(found, len(self._grams) - 1)] == grams]
        sharing = _parts(self._owners, self._begins[known], self._begins[known + 1])
        shared = np.bincount(sharing, minlength=len(self._sizes))
        index = jaccard(shared, len(grams), self._sizes)
        return np.flatnonzero(index >= self._threshold).tolist()

    def repeats(self) -> dict[int, list[int]]:
        """For each text that is too much like earlier ones: the places of these, in order."""
        least = np.ceil(self._threshold * self._sizes - 1e-9).astype(
            np.int64
        )  # 0.7 · 10 is above 7
        needed = np.maximum(1, (NEEDED * least).astype(np.int64))
        prefixes = self._prefixes(self._sizes - least + needed)
        lengths = np.array([len(prefix) for prefix in prefixes], np.int64)
        every = np.concatenate([np.zeros(0, np.int64), *prefixes])
        order = np.argsort(every, kind="stable")
        owners = _owners(lengths)[order]
        # Those of a gram's owners that come before this one begin and end there.
        ends = np.empty(len(every), np.int64)
        ends[order] = np.arange(len(every))
        counts = np.bincount(every)
        begins = (np.cumsum(counts) - counts)[every]
        found = {}
        for place, first in enumerate((np.cumsum(lengths) - lengths).tolist()):
            last = first + len(prefixes[place])
            shared = np.bincount(_parts(owners, begins[first:last], ends[first:last]))
            enough = np.minimum(needed[place], needed[: len(shared)])
            near = self._near(place, np.flatnonzero(shared >= enough))
            if near:
                found[place] = near
        return found

    def _prefixes(self, lengths: np.ndarray) -> list[np.ndarray]:
        """Of each text the rarest grams as numbers, without those that are its own alone."""
        counts = np.diff(self._begins)
        rank = np.empty(len(counts), np.int64)
        rank[np.argsort(counts, kind="stable")] = np.arange(len(counts))
        n_alone = int((counts == 1).sum())
        prefixes = [
            np.sort(rank[numbers])[:length]
            for numbers, length in zip(self._numbers, lengths, strict=True)
        ]
        return [p[np.searchsorted(p, n_alone) :] - n_alone for p in prefixes]

    def _near(self, place: int, candidates: np.ndarray) -> list[int]:
        """Those of the candidates that the text is too much like."""
        if not len(candidates):
            return []
        sizes = self._sizes[candidates]
        self._marked[self._numbers[place]] = True
        own = self._marked[np.concatenate([self._numbers[c] for c in candidates])]
        self._marked[self._numbers[place]] = False
        shared = np.add.reduceat(own, np.cumsum(sizes) - sizes, dtype=np.int64)
        index = jaccard(shared, int(self._sizes[place]), sizes)
        near: list[int] = candidates[index >= self._threshold].tolist()
        return near


def repeats(texts: Sequence[str], threshold: float = THRESHOLD) -> dict[int, int]:
    """For every text that is too much like an earlier one, by place: the first of these."""
    found = Collection(texts, threshold).repeats()
    return {place: earlier[0] for place, earlier in found.items()}


def redraw(
    texts: Sequence[str], threshold: float, draw: Callable[[int, Callable[[str], bool]], str]
) -> int:
    """Replace every text that is too much like one before it, in order; how many were replaced.

    `draw(place, repeats)` gives another text; `repeats(text)` says whether that too is like one
    before. A text that is replaced counts no more, and its successor in its stead.
    """
    known = Collection(texts, threshold)
    near = known.repeats()
    replaced: set[int] = set()
    successors = NearDuplicates(threshold)
    like_a_successor: set[int] = set()
    for place in range(len(texts)):
        if place not in like_a_successor and replaced.issuperset(near.get(place, ())):
            continue

        def repeats(text: str, place: int = place) -> bool:
            before = [i for i in known.like(text) if i < place and i not in replaced]
            return bool(before) or successors.find(text) is not None

        text = draw(place, repeats)
        replaced.add(place)
        successors.add(text)
        like_a_successor.update(known.like(text))
    return len(replaced)


def five_grams(text: str) -> np.ndarray:
    """The digests of the text's distinct 5-grams, sorted; a shorter text is one gram."""
    return np.unique(gram_digests(word_digests(text), N))


def jaccard(shared: np.ndarray, size: int, sizes: np.ndarray) -> np.ndarray:
    """The indices of a set of `size` with sets of `sizes`, of which it shares so many elements."""
    index: np.ndarray = shared / (size + sizes - shared)
    return index


def _owners(sizes: np.ndarray) -> np.ndarray:
    """The place of each text, as often as its size says."""
    return np.repeat(np.arange(len(sizes)), sizes)  # bincount takes a fifth of the time of int32


def _parts(values: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The values of all half-open ranges, one range after the other."""
    lengths = ends - begins
    before = np.cumsum(lengths) - lengths
    places = np.repeat(begins - before, lengths)
    places += np.arange(len(places), dtype=places.dtype)
    parts: np.ndarray = values[places]
    return parts
