"""A number of a plan with what it rests on; where nothing is known it says so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Basis = Literal["counted", "measured here", "projected", "unknown"]


@dataclass(frozen=True)
class Figure:
    """`how` names the runs, or the formula with its numbers."""

    value: float | None
    basis: Basis
    how: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def unknown(how: str) -> Figure:
    """No number, and why."""
    return Figure(None, "unknown", how)


def weakest(figures: Iterable[Figure]) -> Basis:
    """What a sum of these rests on."""
    order: tuple[Basis, ...] = ("counted", "measured here", "projected", "unknown")
    return max((figure.basis for figure in figures), key=order.index, default="counted")
