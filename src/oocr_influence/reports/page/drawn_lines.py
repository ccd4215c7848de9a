"""Lines over epochs out of a page's data, before they are drawn.

lines = metric_lines(group, group["lines"], metric)
Panel("spouse", lines, metric_domain([lines], metric))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from oocr_influence.reports.page.drawing import Look, look_of

Values = Sequence[float | None]
_SHARES = ("accuracy", "prob", "beam_found", "beam_prob_right", "normalised_rank")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a panel; None is what is unknown."""

    name: str
    look: Look
    x: Sequence[float]
    mean: Values
    low: Values | None = None
    high: Values | None = None
    runs: Sequence[Values] = ()
    swapped: Values | None = None
    plain: bool = False
    """Without a mark at each value, and without a name."""
    chance: float | None = None


@dataclass(frozen=True)
class Panel:
    """Lines on one pair of axes; `top_is_low` turns them, so that rank 1 stands on top."""

    title: str
    lines: Sequence[Line]
    domain: tuple[float, float]
    unit: str = ""
    x_label: str = "epochs of training"
    top_is_low: bool = False


def metric_lines(
    group: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], metric: Mapping[str, Any]
) -> list[Line]:
    """Those of a group's lines that have the metric."""
    return [
        Line(
            name=line["asked"],
            look=look_of(line["asked"]),
            x=[one["epoch"] for one in group["evaluations"]],
            mean=series["mean"],
            low=series["low"],
            high=series["high"],
            runs=series.get("runs", ()),
            swapped=series.get("swapped") if line["asked"] == "trained" else None,
            chance=line["chance"] if metric["ranks"] else None,
        )
        for line in lines
        if (series := line["series"].get(metric["key"])) is not None
    ]


def metric_domain(
    panels: Sequence[Sequence[Line]], metric: Mapping[str, Any]
) -> tuple[float, float]:
    """What all panels of a metric reach over, so that they can be compared."""
    lines = [line for panel in panels for line in panel]
    values = [value for line in lines for value in _all_values(line)]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if metric["ranks"]:
        return 1.0, max(high, *(line.chance or 1.0 for line in lines)) * 1.04
    if metric["key"] in _SHARES:
        return 0.0, max(0.1, min(1.0, high * 1.05))
    if low > 0 and metric["key"] == "loss":
        low = 0.0
    air = (high - low or 1.0) * 0.04
    return (0.0 if low == 0 else low - air), high + air


def own_domain(lines: Sequence[Line]) -> tuple[float, float]:
    """What one panel of a course of training reaches over."""
    values = [value for line in lines for value in _all_values(line)]
    low, high = min(values), max(values)
    if 0 <= low < high * 0.6:
        return 0.0, high * 1.04
    air = (high - low or 1.0) * 0.05
    return low - air, high + air


def _all_values(line: Line) -> list[float]:
    drawn = [line.mean, line.low or (), line.high or (), line.swapped or (), *line.runs]
    return [value for values in drawn for value in values if value is not None]


__all__ = ["Line", "Panel", "Values", "metric_domain", "metric_lines", "own_domain"]
