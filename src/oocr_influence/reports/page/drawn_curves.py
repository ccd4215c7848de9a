"""Lines over epochs as the page draws them: the mean over runs, its band, the runs, chance.

    curves_figure([Panel("", lines, domain=(1, 10), unit="rank")], title="…", note="…")

Lines come from a page's data; nothing is computed but where they end on the paper.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from oocr_influence.reports.page.drawing import (
    LABEL,
    SMALL,
    Sheet,
    colours,
    number,
    place_labels,
    text_width,
    wrapped,
)
from oocr_influence.reports.page.drawn_lines import Line, Panel, Values

_COLUMNS = 2
_LEFT = 0.75  # room for the axis of values (inches)
_MOST_MARKED = 32


def curves_figure(panels: Sequence[Panel], *, title: str, note: str) -> Any:
    """matplotlib's figure: one panel large, several in two columns."""
    one = len(panels) == 1
    width, height = (5.6, 3.3) if one else (2.9, 1.9)
    labels_letters = 22 if one else 14
    texts = [
        text for panel in panels for label in _labels(panel, labels_letters) for text in label[1]
    ]
    right = 0.3 + max((text_width(text, LABEL) for text in texts), default=0.0)
    cell_width = _LEFT + width + right
    head_letters = int((cell_width - 2 * Sheet.MARGIN) / text_width("x", LABEL, bold=True))
    heads = [_heads(panel, head_letters) for panel in panels]
    above, below = 0.2 + 0.17 * max(len(head) for head in heads), 0.5
    columns = 1 if one else _COLUMNS
    rows = math.ceil(len(panels) / columns)
    cell = (cell_width, above + height + below)
    sheet = Sheet(cell[0] * columns, cell[1] * rows + 0.05, title=title, note=note)
    for place, panel in enumerate(panels):
        row, column = divmod(place, columns)
        axes = sheet.axes(
            left=column * cell[0] + _LEFT, top=row * cell[1] + above, width=width, height=height
        )
        _write_heads(axes, heads[place])
        _draw_panel(axes, panel, height=height, width=width, letters=labels_letters)
    return sheet.figure


def _draw_panel(axes: Any, panel: Panel, *, height: float, width: float, letters: int) -> None:
    first, last = _ends(panel)
    axes.set_xlim(first - (last - first or 1) * 0.02, last + (last - first or 1) * 0.02)
    axes.set_ylim(*(reversed(panel.domain) if panel.top_is_low else panel.domain))
    _draw_ticks(axes, panel, width=width, height=height)
    axes.set_xlabel(panel.x_label, size=SMALL, color=colours()["soft"], loc="right")
    for level, _ in _chances(panel):
        axes.axhline(
            level, color=colours()["faint"], lw=1.0, ls=(0, (4, 3)), zorder=1, gid="chance"
        )
    for line in reversed(panel.lines):
        _draw_line(axes, line)
    _write_labels(axes, panel, height=height, letters=letters)


def _heads(panel: Panel, letters: int) -> list[tuple[str, dict[str, Any]]]:
    """The lines of text above a panel: its title, and the unit of its values."""
    title = {"size": LABEL, "color": colours()["ink"], "weight": "bold"}
    unit = {"size": SMALL, "color": colours()["soft"]}
    lines = [(text, title) for text in wrapped(panel.title, letters) if text]
    return [*lines, (panel.unit, unit)] if panel.unit else lines


def _write_heads(axes: Any, heads: Sequence[tuple[str, dict[str, Any]]]) -> None:
    for place, (text, look) in enumerate(reversed(heads)):
        axes.annotate(
            text,
            (0, 1),
            xycoords="axes fraction",
            xytext=((Sheet.MARGIN - _LEFT) * 72, 9 + 12 * place),
            textcoords="offset points",
            **look,
        )


def _draw_ticks(axes: Any, panel: Panel, *, width: float, height: float) -> None:
    from matplotlib.ticker import MaxNLocator

    def nice(low: float, high: float, about: float) -> list[float]:
        return [
            float(tick)
            for tick in MaxNLocator(max(1, int(about)), steps=[1, 2, 2.5, 5, 10]).tick_values(
                low, high
            )
        ]

    low, high = panel.domain
    ticks = [tick for tick in nice(low, high, height / 0.45) if low <= tick <= high]
    if panel.top_is_low and low == 1:
        ticks = [1.0, *(tick for tick in ticks if tick > 1.4)]
    axes.set_yticks(ticks, [number(tick) for tick in ticks])
    axes.grid(axis="y", color=colours()["grid"], lw=0.8, zorder=0)
    first, last = _ends(panel)
    moments = sorted({float(x) for line in panel.lines for x in line.x})
    if len(moments) > width / 0.42:
        moments = [tick for tick in nice(first, last, width / 0.6) if first <= tick <= last]
    axes.set_xticks(moments, [number(tick) for tick in moments])


def _draw_line(axes: Any, line: Line) -> None:
    colour = line.look.colour
    if line.low is not None and line.high is not None and line.low != line.high:
        known = [i for i, value in enumerate(line.mean) if value is not None]
        axes.fill_between(
            [line.x[i] for i in known],
            [line.low[i] for i in known],
            [line.high[i] for i in known],
            color=colour,
            alpha=0.16,
            lw=0,
            zorder=2,
            gid=f"band {line.name}",
        )
    for run in line.runs if len(line.runs) > 1 else ():
        axes.plot(
            line.x, _gaps(run), color=colour, lw=0.8, alpha=0.45, zorder=3, gid=f"run {line.name}"
        )
    if line.swapped is not None:
        style = {"lw": 1.0, "alpha": 0.7, "ls": (0, (1, 2))}
        axes.plot(line.x, _gaps(line.swapped), color=colour, zorder=3, gid="swapped", **style)
    axes.plot(
        line.x,
        _gaps(line.mean),
        color=colour,
        lw=1.8,
        ls=(0, (1.2, 1.6)) if line.look.dashed else "-",
        marker="" if line.plain or len(line.x) > _MOST_MARKED else "o",
        markersize=3.6,
        clip_on=False,
        zorder=4,
        gid=f"mean {line.name}",
    )


def _write_labels(axes: Any, panel: Panel, *, height: float, letters: int) -> None:
    """Each line's name behind its end, and each level's, moved apart where two would touch."""
    labels = _labels(panel, letters)
    low, high = panel.domain
    shares = [(value - low) / (high - low or 1) for value, *_ in labels]
    shares = [1 - share for share in shares] if panel.top_is_low else shares
    places = place_labels(shares, [len(texts) for _, texts, _ in labels], height)
    for (_, texts, colour), place in zip(labels, places, strict=True):
        axes.annotate(
            "\n".join(texts),
            (1, place),
            xycoords="axes fraction",
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            size=LABEL,
            color=colour or colours()["soft"],
            weight="bold" if colour else "normal",
            linespacing=1.1,
        )


def _labels(panel: Panel, letters: int) -> list[tuple[float, list[str], str | None]]:
    """Value, lines of text and colour of each label; levels of chance have no colour."""
    found: list[tuple[float, list[str], str | None]] = []
    for line in panel.lines:
        known = [value for value in line.mean if value is not None]
        if known and not line.plain:
            found.append((known[-1], wrapped(line.look.label, letters), line.look.colour))
    return found + [(level, wrapped(text, 16), None) for level, text in _chances(panel)]


def _chances(panel: Panel) -> list[tuple[float, str]]:
    """The levels of a guess; where lines have several, each says whose it is."""
    levels: dict[str, list[Line]] = defaultdict(list)
    for line in panel.lines:
        if line.chance is not None and line.chance <= panel.domain[1]:
            levels[number(line.chance)].append(line)
    told = [(own[0].chance or 0.0, f"chance {text}", own) for text, own in levels.items()]
    if len(told) == 1:
        return [(level, text) for level, text, _ in told]
    return [
        (level, f"{text}: {', '.join(line.look.label for line in own)}")
        for level, text, own in told
    ]


def _ends(panel: Panel) -> tuple[float, float]:
    places = [x for line in panel.lines for x in line.x]
    return min(places), max(places)


def _gaps(values: Values) -> list[float]:
    return [math.nan if value is None else value for value in values]


__all__ = ["curves_figure"]
