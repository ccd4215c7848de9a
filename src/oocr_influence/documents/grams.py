"""Word n-grams of a text as digests of 64 bits: the same on every machine, and fast to compare.

Words are runs of letters and digits, whatever their case. An n-gram's digest is a weighted sum of
its words' digests, modulo 2^64: two different n-grams share one with a chance of about 2^-64.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

import numpy as np

_WORD = re.compile(r"\w+")
# Odd, so that no word's bits are lost; different, so that the order of words counts.
_WEIGHTS = np.array(
    [0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93, 1],
    dtype=np.uint64,
)


def word_digests(text: str) -> np.ndarray:
    """[words] of uint64, one a word of the text."""
    words = _WORD.findall(text.casefold())
    return np.fromiter(map(_digest, words), np.uint64, len(words))


def gram_digests(words: np.ndarray, n: int) -> np.ndarray:
    """[words - n + 1] of uint64: every n-gram in order, n at most 5. Fewer than n words are one."""
    assert 1 <= n <= len(_WEIGHTS)
    if len(words) < n:
        # Filled up with the digest of no word, which no text has.
        words = np.concatenate([words, np.full(n - len(words), _digest(""), np.uint64)])
    n_grams = len(words) - n + 1
    grams: np.ndarray = words[:n_grams] * _WEIGHTS[0]
    for i in range(1, n):
        grams += words[i : i + n_grams] * _WEIGHTS[i]
    return grams


@lru_cache(maxsize=1 << 18)
def _digest(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
