"""Numbers as a page holds them: short, plain JSON, and null where there is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

DIGITS = 5


def short(value: Any, digits: int = DIGITS) -> float | int | None:
    """The number to so many significant digits; None for what is no finite number."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int):
        return value
    if not math.isfinite(value):
        return None
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


def shorts(values: Sequence[Any], digits: int = DIGITS) -> list[float | int | None]:
    """Each of them, as `short` has it."""
    return [short(value, digits) for value in values]


def mean(values: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return math.fsum(values) / len(values) if values else None


__all__ = ["DIGITS", "mean", "short", "shorts"]
