"""What a run answers at each of its evaluations, by kind of question: numbers, table, figure.

    curves = rank_curves(run, [Group("sentences", "trained", "gen"), Group("control", "control")])
    print(render_curves(curves))
    draw_curves(curves, Path("ranks.png"), title="…")

The rank is the tie-averaged one, so a model without any opinion stands at chance. Drawing needs
matplotlib (`pip install "oocr-influence[figures]"`), which is imported there alone.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from oocr_influence.results.run_folder import RunFolder

REMEDY = "a figure needs matplotlib, which is not installed: pip install matplotlib"

# Okabe and Ito's colours, told apart with any colour vision; the markers serve print in grey.
_CONTROL_LOOK = ("#6E6E6E", "D")
_LOOKS = [("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "v"), ("#56B4E9", "P")]
_INK, _PALE = "#222222", "#8A8A8A"


@dataclass(frozen=True)
class Group:
    """Questions of one kind, and of one style where it is stated; `label` may have two lines."""

    label: str
    kind: str
    style: str | None = None


_Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Point:
    """One group of questions at one evaluation; `part_ranks` are those of its parts, drawn as pale
    dots: of its sets, or of its runs."""

    epoch: float
    rank: float
    accuracy: float
    part_ranks: tuple[float, ...]


@dataclass(frozen=True)
class Curve:
    """One group of questions over evaluations; `chance` is the rank of a guess, None if unknown."""

    group: Group
    n_questions: int
    chance: float | None
    points: tuple[Point, ...]


def check_drawing() -> None:
    """Raise ModuleNotFoundError with the remedy where figures cannot be drawn."""
    if find_spec("matplotlib") is None:
        raise ModuleNotFoundError(REMEDY)


def rank_curves(run: RunFolder, groups: Sequence[Group]) -> list[Curve]:
    """One curve for each group, in their order.

    Raises ValueError where the run has no evaluation, or no ranked question of a group.
    """
    columns = ["set", "kind", "style", "rank_tie_averaged", "n_candidates", "accuracy"]
    evaluations = [
        (run.read_evaluation(name).epoch_num, run.read_records(name, columns).to_pylist())
        for name in run.evaluations()
    ]
    if not evaluations:
        raise ValueError(f"{run.path} has no evaluation")
    return [_curve(run, group, evaluations) for group in groups]


def render_curves(curves: Sequence[Curve]) -> str:
    """The curves as a table for a terminal: mean rank, and accuracy in brackets, by epoch."""
    epochs = [point.epoch for point in curves[0].points]
    header = ["mean rank (accuracy)", "questions", *(f"epoch {epoch:g}" for epoch in epochs)]
    rows = [
        [
            " ".join(curve.group.label.split()),
            str(curve.n_questions),
            *(f"{point.rank:.2f} ({point.accuracy:.2f})" for point in curve.points),
        ]
        for curve in curves
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]
    levels = {curve.chance for curve in curves if curve.chance is not None}
    chance = ", ".join(f"{value:g}" for value in sorted(levels)) or "unknown"
    return "\n".join([*lines, f"rank 1 is right; by chance {chance}; tied answers share a rank"])


def draw_curves(curves: Sequence[Curve], path: Path, *, title: str, subtitle: str = "") -> None:
    """Draw mean rank over epochs to `path` (.png or .svg); the same curves give the same bytes.

    Raises ModuleNotFoundError with the remedy where matplotlib is not installed.
    """
    check_drawing()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"font.size": 11, "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(8.4, 4.4), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        _draw_axes(axes, curves, title, subtitle)
        coloured = []
        for curve, (colour, marker) in zip(curves, _looks(curves), strict=True):
            _draw_curve(axes, curve, colour, marker)
            coloured.append((curve, colour))
        _label_ends(axes, coloured)
        save(figure, path)


def save(figure: Any, path: Path) -> None:
    """Write a figure to `path` (.png or .svg); the same figure gives the same bytes."""
    import matplotlib

    without_date = {"Date": None} if path.suffix == ".svg" else {"Software": None}
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "oocr-influence"}):
        figure.savefig(path, metadata=without_date)


def _curve(run: RunFolder, group: Group, evaluations: Sequence[tuple[float, _Rows]]) -> Curve:
    points, asked = [], []
    for epoch, rows in evaluations:
        asked = [row for row in rows if row["rank_tie_averaged"] is not None and _is_in(row, group)]
        if not asked:
            raise ValueError(f"{run.path}: no ranked question of {group} at epoch {epoch:g}")
        points.append(_point(epoch, asked))
    chance = _mean([(row["n_candidates"] + 1) / 2 for row in asked])
    return Curve(group, len(asked), chance, tuple(points))


def _is_in(row: Mapping[str, Any], group: Group) -> bool:
    return row["kind"] == group.kind and group.style in (None, row["style"])


def _point(epoch: float, asked: _Rows) -> Point:
    by_set: dict[str, list[float]] = defaultdict(list)
    for row in asked:
        by_set[row["set"]].append(row["rank_tie_averaged"])
    return Point(
        epoch=epoch,
        rank=_mean([row["rank_tie_averaged"] for row in asked]),
        accuracy=_mean([row["accuracy"] for row in asked]),
        part_ranks=tuple(_mean(ranks) for ranks in by_set.values()),
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _draw_axes(axes: Any, curves: Sequence[Curve], title: str, subtitle: str) -> None:
    epochs = sorted({point.epoch for curve in curves for point in curve.points})
    chances = sorted({c.chance for c in curves if c.chance is not None})
    points = [point for curve in curves for point in curve.points]
    lowest = max(rank for point in points for rank in (*point.part_ranks, point.rank, *chances))
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=_INK, pad=30)
    axes.annotate(
        subtitle,
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 12),
        textcoords="offset points",
        color=_INK,
        fontsize=9.5,
    )
    axes.set_ylim(lowest + 0.3, 0.8)  # rank 1, the right answer, on top
    axes.set_xlim(epochs[0] - 0.15, epochs[-1] + 0.05)
    whole = [epoch for epoch in epochs if float(epoch).is_integer()]
    axes.set_xticks(whole, [f"{epoch:g}" if epoch else "0\nuntouched" for epoch in whole])
    ranks = range(1, math.floor(lowest) + 1)
    axes.set_yticks(ranks, ["1 = right", *map(str, ranks[1:])])
    axes.set_xlabel("epochs of training", color=_INK, labelpad=-6)
    axes.set_ylabel(
        "mean rank of the right answer"
        + (f", of {2 * chances[0] - 1:g}" if len(chances) == 1 else ""),
        color=_INK,
    )
    axes.set_yticks(chances, [f"guess: {chance:g}" for chance in chances], minor=True)
    for chance in chances:
        axes.axhline(chance, color=_PALE, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.8, zorder=0)
    axes.tick_params(which="both", length=0, colors=_INK)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_PALE)


def _draw_curve(axes: Any, curve: Curve, colour: str, marker: str) -> None:
    """The mean as a line; each set, which is one wording of the question, as a pale dot."""
    for point in curve.points:
        places = [point.epoch] * len(point.part_ranks)
        axes.scatter(places, point.part_ranks, color=colour, alpha=0.3, s=12, linewidth=0, zorder=2)
    epochs = [point.epoch for point in curve.points]
    ranks = [point.rank for point in curve.points]
    axes.plot(epochs, ranks, color=colour, marker=marker, markersize=6, linewidth=2.2, zorder=3)


def _label_ends(axes: Any, coloured: Sequence[tuple[Curve, str]]) -> None:
    """Write each label beside the end of its curve, moved apart where two would touch."""
    line = 0.055 * abs(axes.get_ylim()[0] - axes.get_ylim()[1])  # height of a line of text in ranks
    ends = sorted(coloured, key=lambda one: one[0].points[-1].rank)
    heights = [line * (curve.group.label.count("\n") + 1) for curve, _ in ends]
    places = apart([curve.points[-1].rank for curve, _ in ends], heights)
    for (curve, colour), place in zip(ends, places, strict=True):
        axes.annotate(
            curve.group.label,
            (curve.points[-1].epoch, place),
            xytext=(12, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=10.5,
            linespacing=1.1,
            fontweight="bold",
            annotation_clip=False,
        )


def apart(places: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Ascending places of labels, moved as little as it takes for none to touch another.

    Labels that would touch become one block around the mean of where they belong.
    """
    blocks: list[list[int]] = []
    centres: list[float] = []

    def top_and_bottom(block: list[int], centre: float) -> tuple[float, float]:
        half = sum(heights[i] for i in block) / 2
        return centre - half, centre + half

    for index, place in enumerate(places):
        block, centre = [index], place
        while (
            blocks and top_and_bottom(block, centre)[0] < top_and_bottom(blocks[-1], centres[-1])[1]
        ):
            block = blocks.pop() + block
            centres.pop()
            centre = _mean([places[i] for i in block])
        blocks.append(block)
        centres.append(centre)
    moved = []
    for block, centre in zip(blocks, centres, strict=True):
        place = top_and_bottom(block, centre)[0]
        for index in block:
            moved.append(place + heights[index] / 2)
            place += heights[index]
    return moved


def _looks(curves: Sequence[Curve]) -> list[tuple[str, str]]:
    """Colour and marker of each curve; a control is grey."""
    others = iter(_LOOKS * len(curves))
    return [_CONTROL_LOOK if c.group.kind == "control" else next(others) for c in curves]
