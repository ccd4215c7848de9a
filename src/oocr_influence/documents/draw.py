"""Choices that a key states for ever: the same on every machine and Python.

A local generator is made from its key alone. Only `random()` is used of the standard library's
generator, because only that is promised to give the same numbers in every version of Python.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def evenly_spread(n: int, share: float) -> bool:
    """Whether place n is one of a `share` of all places, spread evenly over them."""
    return int((n + 1) * share + 1e-9) > int(n * share + 1e-9)


class Draw:
    """A generator whose draws depend on `key` alone."""

    def __init__(self, *key: str | int | float) -> None:
        self._random = random.Random(":".join(str(part) for part in key)).random

    def below(self, n: int) -> int:
        """A whole number in 0 … n-1."""
        return int(self._random() * n)

    def between(self, low: int, high: int) -> int:
        """A whole number in low … high."""
        return low + self.below(high - low + 1)

    def chance(self, probability: float) -> bool:
        return self._random() < probability

    def choice(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def weighted(self, items: Sequence[tuple[T, float]]) -> T:
        """One of the items, with probability in proportion to its weight."""
        left = self._random() * sum(weight for _, weight in items)
        for item, weight in items:
            left -= weight
            if left < 0:
                return item
        return items[-1][0]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """A new list in another order."""
        mixed = list(items)
        for i in range(len(mixed) - 1, 0, -1):
            j = self.below(i + 1)
            mixed[i], mixed[j] = mixed[j], mixed[i]
        return mixed


class Deck:
    """Cards drawn without replacement; shuffled anew when it runs out."""

    def __init__(self, draw: Draw, cards: Sequence[str]) -> None:
        self._draw, self.cards = draw, cards
        self._left: list[str] = []

    def __bool__(self) -> bool:
        return bool(self.cards)

    def next(self) -> str:
        if not self._left:
            self._left = self._draw.shuffled(self.cards)
        return self._left.pop()
