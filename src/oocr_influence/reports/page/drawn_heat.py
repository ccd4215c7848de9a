"""Every set at every evaluation, as the page's heat map: a row a set, a column an evaluation.

heat_figure(group, heat, sets, metric, title="…", note="…")
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

from oocr_influence.reports.page.drawing import SMALL, Sheet, colours, look_of, number, text_width

_SHARES = ("accuracy", "prob", "beam_found", "beam_prob_right")
_BETWEEN, _LEAST = 0.05, 0.13  # inches between blocks, and of a block's height
Shade = Callable[[float, str], float]


def heat_figure(
    group: Mapping[str, Any],
    heat: Mapping[str, Any],
    sets: Sequence[Mapping[str, Any]],
    metric: Mapping[str, Any],
    *,
    title: str,
    note: str,
) -> Any:
    """matplotlib's figure; each block of rows is one kind of question about one relation."""
    from matplotlib.patches import Rectangle

    own = [sets[place] for place in heat["sets"]]
    values = heat["values"][metric["key"]]
    shade = shades(values, group["chance"], metric)
    rows = [
        (one, [math.nan if v is None else shade(v, one["name"]) for v in row])
        for one, row in zip(own, values, strict=True)
    ]
    blocks = [(name, list(block)) for name, block in groupby(rows, key=lambda row: _block(row[0]))]
    n_rows, columns = len(rows), len(group["evaluations"])
    row_height = 0.06 if n_rows > 120 else 0.09 if n_rows > 40 else 0.14
    heights = [max(_LEAST, len(block) * row_height) for _, block in blocks]
    left = Sheet.MARGIN + max(text_width(_told(name), SMALL) for name, _ in blocks) + 0.1
    width, height = min(5.5, max(2.6, columns * 0.9)), sum(heights) + _BETWEEN * len(heights)
    sheet = Sheet(left + width + 0.4, height + 1.15, title=title, note=note)
    axes = sheet.axes(left=left, top=0.5, width=width, height=height)
    axes.set_ylim(height, 0)  # inches from the top
    axes.set_xlim(0, columns)
    top = 0.0
    for (name, block), block_height in zip(blocks, heights, strict=True):
        drawn = _draw_block(axes, [row for _, row in block], top, block_height)
        drawn.set_gid("\n".join(one["name"] for one, _ in block))
        frame = Rectangle((0, top), columns, block_height, fill=False, ec=colours()["line"])
        frame.set(lw=0.6, clip_on=False)
        axes.add_patch(frame)
        _name_block(axes, name, top + block_height / 2)
        top += block_height + _BETWEEN
    _dress(axes, [one["epoch"] for one in group["evaluations"]], width)
    bar = sheet.axes(left=left, top=0.5 + height + 0.12, width=min(2.4, width), height=0.1)
    _legend(axes, bar, drawn, values, metric)
    return sheet.figure


def shades(
    values: Sequence[Sequence[float | None]], chance: Mapping[str, float], metric: Mapping[str, Any]
) -> Shade:
    """A value's colour, from −1 (far worse) over 0 (chance, or nothing) to 1 (best)."""
    low, high = _reach(values)
    whole = (high - low) or 1.0

    def of_rank(value: float, name: str) -> float:
        guess = chance.get(name)
        if not guess or guess <= 1:
            return (high - value) / ((high - 1) or 1)
        return max(-1.0, (guess - value) / (guess - 1))

    if metric["ranks"]:
        return of_rank
    if metric["key"] in _SHARES:
        return lambda value, _: value
    if metric["better"] == "low":
        return lambda value, _: (high - value) / whole
    return lambda value, _: (value - low) / whole


def _block(one: Mapping[str, Any]) -> tuple[str, str]:
    return one["asked"], (one["relation"] or "?").replace("_", " ")


def _told(name: tuple[str, str]) -> str:
    return f"{name[1]}, {look_of(name[0]).label}"


def _reach(values: Sequence[Sequence[float | None]]) -> tuple[float, float]:
    known = [value for row in values for value in row if value is not None]
    return min(known), max(known)


def _draw_block(axes: Any, rows: Sequence[Sequence[float]], top: float, height: float) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    ends = [colours()["heat-bad"], colours()["paper"], colours()["heat-good"]]
    colour_map = LinearSegmentedColormap.from_list("page", ends, N=257).with_extremes(
        bad=colours()["line"]
    )
    x = list(range(len(rows[0]) + 1))
    y = [top + height * i / len(rows) for i in range(len(rows) + 1)]
    return axes.pcolormesh(x, y, rows, cmap=colour_map, vmin=-1, vmax=1, rasterized=False)


def _name_block(axes: Any, name: tuple[str, str], middle: float) -> None:
    axes.annotate(
        _told(name),
        (0, middle),
        xycoords=("axes fraction", "data"),
        xytext=(-7, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        size=SMALL,
        color=look_of(name[0]).colour,
    )


def _dress(axes: Any, epochs: Sequence[float], width: float) -> None:
    every = math.ceil(0.42 / (width / len(epochs)))
    shown = range(0, len(epochs), every)
    axes.set_xticks([e + 0.5 for e in shown], [number(epochs[e]) for e in shown])
    axes.xaxis.tick_top()
    axes.set_xlabel("epochs of training", size=SMALL, color=colours()["soft"], loc="left")
    axes.xaxis.set_label_position("top")
    axes.set_yticks([])
    axes.spines["bottom"].set_visible(False)


def _legend(
    axes: Any,
    bar: Any,
    drawn: Any,
    values: Sequence[Sequence[float | None]],
    metric: Mapping[str, Any],
) -> None:
    """What the colours mean, with the values at the ends."""
    axes.figure.colorbar(drawn, cax=bar, orientation="horizontal")
    low, high = _reach(values)
    if metric["ranks"]:
        ticks, names = [-1.0, 0.0, 1.0], ["far worse", "chance", "rank 1"]
    elif metric["key"] in _SHARES:
        bar.set_xlim(0, 1)
        ticks, names = [0.0, 0.5, 1.0], ["0", "0.5", "1"]
    else:
        bar.set_xlim(0, 1)
        ends = (high, low) if metric["better"] == "low" else (low, high)
        ticks, names = [0.0, 1.0], [number(end) for end in ends]
    bar.set_xticks(ticks, names)
    bar.tick_params(length=0, labelsize=SMALL, colors=colours()["soft"])
    bar.figure.axes[-1].set_frame_on(False)


__all__ = ["heat_figure", "shades"]
