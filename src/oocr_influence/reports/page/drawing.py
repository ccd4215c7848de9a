"""What all figures of a page share where they are drawn as files: colours, words, places in inches.

    sheet = Sheet(width=8.0, height=4.5)
    axes = sheet.axes(left=0.8, top=0.6, width=5.0, height=3.0)

Every place is stated in inches from the sheet's upper left corner, so that lines of text have a
known height and labels can be kept apart. The colours are those of the page's style sheet.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from oocr_influence.reports.curves import apart

INCHES_A_POINT = 1 / 72
LABEL, SMALL = 8.5, 7.5
"""Sizes of letters (points)."""
_RULE = re.compile(r":root \{(.*?)\}", re.DOTALL)
_COLOUR = re.compile(r"--([\w-]+): (#[0-9a-f]{6}|\d+ \d+ \d+);")
_KINDS = ("reversed", "first_hop", "two_hop")


@dataclass(frozen=True)
class Look:
    """What a kind of question is drawn as."""

    colour: str
    label: str
    dashed: bool = False


def look_of(asked: str) -> Look:
    """Of a kind of question, or of documents whose loss is measured."""
    kind, _, rest = asked.partition(": ")
    if kind == "trained":
        return Look(colours()["forms" if rest else "trained"], rest or "trained", bool(rest))
    if kind == "control":
        return Look(colours()["control"], f"control, {rest or 'all'}", rest == "untold")
    name = {"unseen": "reversed"}.get(kind, kind if kind in _KINDS else "control")
    return Look(colours()[name], asked.replace("_", "-"))


@cache
def colours() -> dict[str, str]:
    """The page's colours on light paper, by name, as `#rrggbb`."""
    style = files("oocr_influence.reports.page").joinpath("assets", "page.css").read_text("utf-8")
    rule = _RULE.search(style)
    assert rule is not None, "page.css begins with the light colours"
    return {name: _hexadecimal(value) for name, value in _COLOUR.findall(rule[1])}


def _hexadecimal(value: str) -> str:
    if value.startswith("#"):
        return value
    return "#" + "".join(f"{int(part):02x}" for part in value.split())


def number(value: float | None, digits: int = 3) -> str:
    """As the page writes it."""
    if value is None:
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace("-", "−")
    if value != 0 and abs(value) < 1e-4:
        return f"{value:.1e}".replace("-", "−")
    return f"{float(f'{value:.{digits}g}'):g}".replace("-", "−")


def valued(value: float | None, key: str) -> str:
    """A value of a metric: ranks and shares to two places, others as short as they are."""
    fixed = re.search(r"rank|accuracy|^prob$|beam", key) is not None
    if value is not None and fixed and (abs(value) >= 0.005 or value == 0):
        return f"{value:.2f}".replace("-", "−")
    return number(value)


def plural(n: int, thing: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{n:,} {thing}{'' if n == 1 else 's'}"


def wrapped(text: str, most: int) -> list[str]:
    """The text in lines of at most so many letters; a longer word is cut."""
    return textwrap.wrap(text, most, break_on_hyphens=False) or [""]


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """About how wide a line of text is (inches)."""
    return len(text) * size * (0.66 if bold else 0.6) * INCHES_A_POINT


def text_height(n_lines: int, size: float) -> float:
    """How high so many lines are (inches)."""
    return n_lines * size * 1.3 * INCHES_A_POINT


class Sheet:
    """A figure on which everything has a place in inches; `figure` is matplotlib's."""

    MARGIN = 0.2

    def __init__(self, width: float, height: float, *, title: str, note: str) -> None:
        """`height` is that of what is drawn; `title` comes above it, and `note` below."""
        from matplotlib.figure import Figure

        across = width - 2 * self.MARGIN
        titles = wrapped(title, int(across / text_width("x", 11.5, bold=True)))
        notes = wrapped(note, int(across / text_width("x", SMALL) * 1.1))
        self.top = self.MARGIN + text_height(len(titles), 11.5)
        self.width = width
        self.height = self.top + height + text_height(len(notes), SMALL) + self.MARGIN
        self.figure = Figure(figsize=(width, self.height), dpi=150, facecolor=colours()["paper"])
        self._write("\n".join(titles), self.MARGIN, 11.5, colours()["ink"], weight="bold")
        below = self.top + height
        self._write("\n".join(notes), below, SMALL, colours()["soft"], linespacing=1.3)

    def axes(self, *, left: float, top: float, width: float, height: float) -> Any:
        """Axes whose frame is there; `top` is counted from below the title."""
        bottom = self.height - self.top - top - height
        axes = self.figure.add_axes(
            (left / self.width, bottom / self.height, width / self.width, height / self.height)
        )
        axes.set_facecolor(colours()["paper"])
        axes.tick_params(which="both", length=0, labelsize=SMALL, colors=colours()["soft"])
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(colours()["faint"])
        return axes

    def _write(self, text: str, top: float, size: float, colour: str, **more: Any) -> None:
        at = (self.MARGIN / self.width, 1 - top / self.height)
        self.figure.text(*at, text, size=size, color=colour, va="top", ha="left", **more)


def place_labels(
    places: Sequence[float], n_lines: Sequence[int], height: float, size: float = LABEL
) -> list[float]:
    """Where labels stand so that none touches another, in shares of axes `height` inches high."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    heights = [text_height(n_lines[i], size) / height for i in order]
    moved = apart([places[i] for i in order], heights)
    return [place for _, place in sorted(zip(order, moved, strict=True))]


__all__ = [
    "LABEL",
    "SMALL",
    "Look",
    "Sheet",
    "colours",
    "look_of",
    "number",
    "place_labels",
    "plural",
    "text_height",
    "text_width",
    "valued",
    "wrapped",
]
