"""Near-duplicates among texts of any length: MinHash, and the Jaccard index itself where it points.

    seen = NearTexts(threshold=0.5)
    seen.add(words)      # False, and not added, where an earlier text is too much like it

Broder, 1997, "On the Resemblance and Containment of Documents"; banding as in Leskovec, Rajaraman
and Ullman, "Mining of Massive Datasets", chapter 3. Sets are 5-grams of words without case and
punctuation; a text of fewer words is one gram. Two texts with Jaccard index J are compared with
probability 1 - (1 - J^4)^32: 87 % at 0.5, 98.8 % at 0.6, 99.98 % at 0.7; the index of those that
are compared is exact. (`near_duplicates.py` finds all, and needs much memory for long texts.)
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

THRESHOLD = 0.5
N = 5  # words
BANDS, ROWS = 32, 4
Hashes = npt.NDArray[np.uint64]

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def _constants(name: str) -> Hashes:
    """Fixed odd numbers of 64 bits, one a hash function."""
    digests = [
        hashlib.blake2b(f"{name}:{i}".encode(), digest_size=8).digest() for i in range(BANDS * ROWS)
    ]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64) | np.uint64(1)


_A, _B = _constants("minhash a"), _constants("minhash b")


class NearTexts:
    """Texts so far, as hashes of their 5-grams; `threshold` is the least index that is too much."""

    def __init__(self, threshold: float = THRESHOLD) -> None:
        self._threshold = threshold
        self._word_hashes: dict[str, int] = {}
        self._grams: list[Hashes] = []
        self._places: dict[bytes, list[int]] = defaultdict(list)  # band of a signature -> texts

    def copy(self) -> NearTexts:
        """An index that grows apart from this one."""
        other = NearTexts(self._threshold)
        other._word_hashes, other._grams = self._word_hashes, list(self._grams)
        other._places.update({band: list(places) for band, places in self._places.items()})
        return other

    def add(self, words: Sequence[str]) -> bool:
        """Add a text's words, unless an earlier text is too much like it."""
        grams = self._grams_of(words)
        bands = _bands(grams)
        near = {place for band in bands for place in self._places.get(band, ())}
        if any(jaccard(grams, self._grams[place]) >= self._threshold for place in near):
            return False
        for band in bands:
            self._places[band].append(len(self._grams))
        self._grams.append(grams)
        return True

    def _grams_of(self, words: Sequence[str]) -> Hashes:
        known = self._word_hashes
        for word in words:
            if word not in known:
                digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
                known[word] = int.from_bytes(digest, "little")
        hashes = np.array([known[word] for word in words], dtype=np.uint64)
        n = max(1, len(hashes) - N + 1)
        grams = np.zeros(n, dtype=np.uint64)
        for i in range(min(N, len(hashes))):
            grams = _mixed(grams * _MULTIPLIER + hashes[i : i + n])
        return np.unique(grams)


def jaccard(a: Hashes, b: Hashes) -> float:
    """Shared elements over all elements of two sorted sets."""
    if min(len(a), len(b)) == 0:
        return float(len(a) == len(b))
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


def _bands(grams: Hashes) -> list[bytes]:
    """The least value of each hash function, ROWS of them together, each with its place."""
    signature = np.empty(BANDS * ROWS, dtype=np.uint64)
    for i in range(0, len(signature), 16):  # a part at a time stays in the processor's cache
        hashed = _mixed(grams[None, :] * _A[i : i + 16, None] + _B[i : i + 16, None])
        signature[i : i + 16] = hashed.min(axis=1)
    rows = signature.reshape(BANDS, ROWS)
    return [
        hashlib.blake2b(bytes([i]) + row.tobytes(), digest_size=8).digest()
        for i, row in enumerate(rows)
    ]


def _mixed(values: Hashes) -> Hashes:
    """Upper bits into lower ones: a product's low bits depend on low bits alone."""
    return (values ^ (values >> np.uint64(31))) * _MULTIPLIER
