"""Means with their intervals, a row each, as the page draws them: trained against reversed against
two hops against controls.

    rows_figure(ending_rows(head, "rank"), x_label="…", least=1, title="…", note="…")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from oocr_influence.reports.page.curves import order
from oocr_influence.reports.page.drawing import (
    LABEL,
    SMALL,
    Look,
    Sheet,
    colours,
    look_of,
    number,
    text_height,
    text_width,
    valued,
    wrapped,
)

_HEADING = 0.3  # height of a row's heading (inches)
_LETTERS = 30


@dataclass(frozen=True, kw_only=True)
class Row:
    """A mean, what it reaches over and what it is compared with; None is what is unknown."""

    name: str
    label: str
    look: Look
    mean: float
    low: float | None
    high: float | None
    told: str
    """The numbers as text."""
    heading: str = ""
    """What stands above the rows that share it."""
    chance: float | None = None
    start: float | None = None
    parts: Sequence[float] = ()
    """Small dots: the entities' means."""


def ending_rows(groups: Sequence[Mapping[str, Any]], measured: str) -> list[Row]:
    """Of each kind of question each group's last evaluation; `measured` is rank or accuracy."""
    shown = [group for group in groups if group["ending"]]
    kinds = {kind["asked"] for group in shown for kind in group["ending"]["kinds"]}
    return [
        _ending_row(group, kind, measured, heading=len(shown) > 1)
        for asked in sorted(kinds, key=order)
        for group in shown
        for kind in group["ending"]["kinds"]
        if kind["asked"] == asked and kind[measured] is not None
    ]


def once_rows(lines: Sequence[Mapping[str, Any]], metric: Mapping[str, Any]) -> list[Row]:
    """Of a group that was asked once: each line's mean and range over runs."""
    rows = []
    for line in (line for line in lines if metric["key"] in line["series"]):
        series = line["series"][metric["key"]]
        mean, low, high = (series[key][0] for key in ("mean", "low", "high"))
        told = valued(mean, metric["key"])
        if low != high:
            told += f" ({valued(low, metric['key'])} to {valued(high, metric['key'])})"
        look = look_of(line["asked"])
        rows.append(
            Row(
                name=line["asked"],
                label=look.label,
                look=look,
                mean=mean,
                low=low,
                high=high,
                told=told,
                heading=line["panel"].replace("_", " "),
                chance=line["chance"] if metric["ranks"] else None,
            )
        )
    return rows


def rows_figure(
    rows: Sequence[Row], *, x_label: str, told_label: str, least: float, title: str, note: str
) -> Any:
    """matplotlib's figure; values begin at `least`, or lower where one is lower."""
    sections = [(text, list(own)) for text, own in groupby(rows, key=lambda row: row.heading)]
    labels = {row.name: wrapped(row.label, _LETTERS) for row in rows}
    texts = [text for label in labels.values() for text in label]
    most = max(len(label) for label in labels.values())
    step = max(0.4 if any(row.parts for row in rows) else 0.27, text_height(most, LABEL) + 0.06)
    left = Sheet.MARGIN + max(text_width(text, LABEL, bold=True) for text in texts) + 0.1
    headed = [text for text, _ in sections if text]
    height = len(rows) * step + len(headed) * _HEADING + 0.1
    right = 0.25 + max(text_width(text, SMALL) for text in (told_label, *(r.told for r in rows)))
    width = 4.6
    sheet = Sheet(left + width + right, height + 1.0, title=title, note=note)
    axes = sheet.axes(left=left, top=0.5, width=width, height=height)
    values = [v for row in rows for v in _values(row)]
    low, high = min(least, *values), max(values)
    axes.set_xlim(low - (high - low or 1) * 0.02, high + (high - low or 1) * 0.03)
    axes.set_ylim(height, 0)  # inches from the top
    top = 0.05
    for heading, own in sections:
        if heading:
            axes.annotate(
                heading,
                (Sheet.MARGIN / sheet.width, top + _HEADING * 0.6),
                xycoords=("figure fraction", "data"),
                va="center",
                size=LABEL,
                weight="bold",
                color=colours()["ink"],
            )
            top += _HEADING
        for row in own:
            _draw_row(axes, row, top + step / 2, step, wrapped(row.label, _LETTERS))
            top += step
    _dress(axes, least=least, x_label=x_label, told_label=told_label)
    return sheet.figure


def _ending_row(
    group: Mapping[str, Any], kind: Mapping[str, Any], measured: str, *, heading: bool
) -> Row:
    found, ending, look = kind[measured], group["ending"], look_of(kind["asked"])
    key = ending["metric"] if measured == "rank" else measured
    told = valued(found["mean"], key)
    if found["low"] is not None:
        told += f" [{valued(found['low'], key)}, {valued(found['high'], key)}]"
    ranked = measured == "rank"
    return Row(
        name=f"{group['name']} {kind['asked']}",
        label=group["name"] if heading else look.label,
        look=look,
        mean=found["mean"],
        low=found["low"],
        high=found["high"],
        told=told,
        heading=look.label if heading else "",
        chance=kind["chance"] if ranked else None,
        start=_start(group, kind["asked"], key),
        parts=[rank for _, rank in kind["entities"] if rank is not None] if ranked else (),
    )


def _start(group: Mapping[str, Any], asked: str, key: str) -> float | None:
    """The same mean at the first of several evaluations."""
    for line in group["lines"]:
        if (line["split"], line["asked"]) == ("asked", asked) and key in line["series"]:
            means = line["series"][key]["mean"]
            return means[0] if len(means) > 1 else None
    return None


def _draw_row(axes: Any, row: Row, middle: float, step: float, label: Sequence[str]) -> None:
    colour, paper = row.look.colour, colours()["paper"]
    if row.chance is not None:
        ends = [middle - step * 0.5, middle + step * 0.5]
        axes.plot(
            [row.chance] * 2, ends, color=colours()["faint"], lw=1, ls=(0, (4, 3)), gid="chance"
        )
    spread = [middle + ((i * 7) % 5 - 2) * step * 0.065 for i in range(len(row.parts))]
    if row.parts:
        dots = {"s": 11, "alpha": 0.42, "lw": 0, "zorder": 2}
        axes.scatter(row.parts, spread, color=colour, gid=f"parts {row.name}", **dots)
    if row.start is not None:
        axes.plot(
            [row.start],
            [middle],
            "o",
            ms=7,
            mfc=paper,
            mec=colour,
            zorder=3,
            gid=f"start {row.name}",
        )
    if row.low is not None and row.high is not None:
        axes.plot(
            [row.low, row.high],
            [middle] * 2,
            color=colour,
            lw=2.4,
            alpha=0.75,
            solid_capstyle="butt",
            zorder=4,
            gid=f"interval {row.name}",
        )
    axes.plot(
        [row.mean], [middle], "o", ms=8, mfc=colour, mec=paper, zorder=5, gid=f"mean {row.name}"
    )
    for text, at, side, look in (
        ("\n".join(label), (0, -7), "right", {"color": colour, "weight": "bold", "size": LABEL}),
        (row.told, (1, 8), "left", {"color": colours()["ink"], "size": SMALL}),
    ):
        axes.annotate(
            text,
            (at[0], middle),
            xycoords=("axes fraction", "data"),
            xytext=(at[1], 0),
            textcoords="offset points",
            ha=side,
            va="center",
            **look,
        )


def _dress(axes: Any, *, least: float, x_label: str, told_label: str) -> None:
    low, high = axes.get_xlim()
    ticks = [float(tick) for tick in axes.get_xticks() if low <= tick <= high]
    names = [number(tick) for tick in ticks]
    if least == 1 and low < 1:
        ticks = [1.0, *(tick for tick in ticks if tick > 1.4)]
        names = ["1 = right", *(number(tick) for tick in ticks[1:])]
    axes.set_xticks(ticks, names)
    axes.set_yticks([])
    axes.xaxis.tick_top()
    axes.spines["bottom"].set_visible(False)
    axes.grid(axis="x", color=colours()["grid"], lw=0.8, zorder=0)
    axes.set_axisbelow(True)
    axes.set_xlabel(x_label, size=SMALL, color=colours()["soft"], loc="right")
    axes.annotate(
        told_label,
        (1, 1),
        xycoords="axes fraction",
        xytext=(8, 5),
        textcoords="offset points",
        size=SMALL,
        color=colours()["soft"],
    )


def _values(row: Row) -> list[float]:
    drawn = [row.mean, row.low, row.high, row.chance, row.start, *row.parts]
    return [value for value in drawn if value is not None]


__all__ = ["Row", "ending_rows", "once_rows", "rows_figure"]
