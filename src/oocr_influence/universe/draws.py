"""Draws that a key states for ever: sha256 of the key and a counter, nothing of any library.

draws = Draws("entities", seed, 3, "name_mayor")
draws.choice(["a", "b"])
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draws:
    """Whole numbers that depend on `key` alone, the same on every machine and Python."""

    def __init__(self, *key: str | int) -> None:
        self._key = ":".join(str(part) for part in key)
        self._count = 0

    def below(self, n: int) -> int:
        """A whole number in 0 … n-1."""
        digest = hashlib.sha256(f"{self._key}:{self._count}".encode()).digest()
        self._count += 1
        # Of 2^64 numbers, no n in use here makes one visibly likelier than another.
        return int.from_bytes(digest[:8], "big") % n

    def between(self, low: int, high: int) -> int:
        """A whole number in low … high."""
        return low + self.below(high - low + 1)

    def choice(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]
