"""Documents that repeat others: exactly, or nearly by the Jaccard index of their 5-grams.

Candidates come from MinHash signatures in bands (Broder 1997; Indyk and Motwani 1998), in time
linear in the number of documents; each pair is then measured on the 5-grams themselves. With 60
bands of 3 rows a pair at the threshold of 0.5 is missed with probability 0.0003, one at 0.6 with
0.0000005. Words are compared without case or punctuation. In a bucket each document is compared
with the first 32 alone: enough to find that it repeats one, not to list a large family's pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from oocr_influence.datasets.audit.words import Corpus, Ints

THRESHOLD = Fraction(1, 2)
SHINGLE = 5  # words
BANDS, ROWS = 60, 3
COMPARED = 32
_CHUNK = 100_000  # words hashed at a time, few enough for a processor's cache
# A pair whose signatures agree on less is at 0.5 with probability below 0.001.
_WORTH_MEASURING = 0.35

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Pair:
    """Two texts by place, the earlier first, and how much of their 5-grams they share (0 to 1)."""

    first: int
    second: int
    jaccard: float


def exact_copies(texts: Sequence[str]) -> dict[int, int]:
    """The places of texts that occurred before, and where they first did."""
    first: dict[str, int] = {}
    copies = {}
    for place, text in enumerate(texts):
        earlier = first.setdefault(text, place)
        if earlier != place:
            copies[place] = earlier
    return copies


def near_duplicates(corpus: Corpus, leave_out: set[int]) -> list[Pair]:
    """Pairs at or above the threshold among the corpus's texts but `leave_out`, by second place."""
    signatures = _signatures(corpus)
    usable = np.ones(len(signatures), np.bool_)
    usable[list(leave_out)] = False
    usable &= corpus.lengths > 0  # without words nothing can be said
    pairs = _candidates(signatures, np.flatnonzero(usable))
    agreement = np.concatenate(
        [np.zeros(0)]
        + [
            (signatures[part[:, 0]] == signatures[part[:, 1]]).mean(axis=1)
            for part in np.array_split(pairs, len(pairs) // 10_000 + 1)
        ]
    )
    found = []
    for first, second in pairs[agreement >= _WORTH_MEASURING].tolist():
        shared = jaccard(corpus, first, second)
        if shared >= THRESHOLD:
            found.append(Pair(first, second, float(shared)))
    return sorted(found, key=lambda pair: (pair.second, pair.first))


def jaccard(corpus: Corpus, first: int, second: int) -> Fraction:
    """The exact Jaccard index of the two texts' sets of 5-grams (0 to 1)."""
    one, other = (
        shingles(corpus.folded(place, place + 1)[:-1].tolist()) for place in (first, second)
    )
    return Fraction(len(one & other), len(one | other))


def shingles(words: Sequence[int]) -> set[tuple[int, ...]]:
    """The 5-grams of a text; a shorter text is one of its own length."""
    if len(words) < SHINGLE:
        return {tuple(words)}
    return set(zip(*(words[i:] for i in range(SHINGLE)), strict=False))


def _signatures(corpus: Corpus) -> Hashes:
    """MinHash signatures, (texts, BANDS * ROWS)."""
    draw = np.random.Generator(np.random.PCG64(20_261_127))
    odd = draw.integers(0, 2**63, BANDS * ROWS, np.uint64) * np.uint64(2) + np.uint64(1)
    salt = draw.integers(0, 2**63, BANDS * ROWS, np.uint64)
    signatures = np.zeros((len(corpus.starts) - 1, BANDS * ROWS), np.uint64)
    for begin, end in _chunks(corpus):
        hashes, starts = _shingle_hashes(corpus, begin, end)
        mixed, upper = np.empty_like(hashes), np.empty_like(hashes)
        for column, (factor, offset) in enumerate(zip(odd, salt, strict=True)):
            # Of a multiplication's bits the upper ones are mixed best: compare by them.
            np.bitwise_xor(hashes, offset, out=mixed)
            mixed *= factor
            np.right_shift(mixed, np.uint64(32), out=upper)
            mixed ^= upper
            mixed *= factor
            signatures[begin:end, column] = np.minimum.reduceat(mixed, starts)
    return signatures


def _chunks(corpus: Corpus) -> Iterator[tuple[int, int]]:
    """(begin, end) of runs of texts of about _CHUNK words."""
    begin, texts = 0, len(corpus.starts) - 1
    while begin < texts:
        limit = corpus.starts[begin] + _CHUNK
        end = max(begin + 1, int(np.searchsorted(corpus.starts, limit, side="right")) - 1)
        yield begin, min(end, texts)
        begin = min(end, texts)


def _shingle_hashes(corpus: Corpus, begin: int, end: int) -> tuple[Hashes, Ints]:
    """Hashes of all 5-grams of the texts, and where each text's begin."""
    # Behind the last text too there must be words to read: borders, which are cut off again.
    words = np.append(corpus.folded(begin, end), [0] * SHINGLE).astype(np.uint64)
    hashes = np.zeros(len(words) - SHINGLE, np.uint64)
    for place in range(SHINGLE):
        hashes = (hashes + words[place : place + len(hashes)] + np.uint64(1)) * np.uint64(
            0x9E3779B97F4A7C15
        )
        hashes ^= hashes >> np.uint64(29)
    starts = corpus.starts[begin : end + 1] - corpus.starts[begin]
    # A text of n words has n - 4 grams; the first stands for a shorter text.
    counts = np.maximum(np.diff(starts) - 1 - SHINGLE + 1, 1)
    ends = starts[:-1] + counts
    inside = np.zeros(len(hashes) + 1, np.int64)
    inside[starts[:-1]] += 1
    np.subtract.at(inside, ends, 1)
    kept = np.cumsum(inside[:-1]) > 0
    return hashes[kept], np.cumsum(counts) - counts


def _candidates(signatures: Hashes, usable: Ints) -> Ints:
    """Distinct pairs (first, second) that share a band, (pairs, 2)."""
    codes: list[Ints] = [np.zeros(0, np.int64)]
    texts = len(signatures)
    for band in range(BANDS):
        rows = signatures[usable, band * ROWS : (band + 1) * ROWS]
        key = np.zeros(len(rows), np.uint64)
        for column in rows.T:
            key = (key ^ column) * np.uint64(0x9E3779B97F4A7C15)
            key ^= key >> np.uint64(31)
        order = np.argsort(key, kind="stable")
        codes.append(_pairs_of_equal(key[order], usable[order], texts))
    found = np.unique(np.concatenate(codes))
    return np.stack([found // texts, found % texts], axis=1)


def _pairs_of_equal(keys: Hashes, places: Ints, texts: int) -> Ints:
    """`first * texts + second` of each text with the first COMPARED of the same key."""
    new = np.ones(len(keys), np.bool_)
    new[1:] = keys[1:] != keys[:-1]
    begins = np.maximum.accumulate(np.where(new, np.arange(len(keys)), 0))
    within = np.arange(len(keys)) - begins
    codes: list[Ints] = [np.zeros(0, np.int64)]
    for rank in range(min(COMPARED, int(within.max(initial=0)))):
        later = np.flatnonzero(within > rank)
        codes.append(places[begins[later] + rank] * texts + places[later])
    return np.unique(np.concatenate(codes))
