"""The figures of a page for papers and slides: PNG and SVG, drawn by matplotlib.

draw_figures(data, Path("report_figures"))    # the paths of what was drawn
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from oocr_influence.reports.curves import Curve, Group, Point, check_drawing, draw_curves, save
from oocr_influence.reports.page.data import PageData

_SUFFIXES = (".png", ".svg")
_RANKS = "rank_tie_averaged", "rank"
_BLUE, _ORANGE, _INK = "#0072B2", "#D55E00", "#222222"


def draw_figures(data: PageData, folder: Path) -> list[Path]:
    """Draw each group's ranks over epochs, by kind and by relation, its sets and its losses.

    Raises ModuleNotFoundError with the remedy where matplotlib is not installed.
    """
    check_drawing()
    drawn = []
    for group, heat in zip(data.head["groups"], data.detail["heat"], strict=True):
        name = _file_name(group["name"])
        panels = dict.fromkeys(
            (line["split"], line["panel"])
            for line in group["lines"]
            if line["split"] in ("asked", "relation")
        )
        for split, panel in panels:
            curves = rank_curves_of(group, split, panel)
            if not curves:
                continue
            title = group["name"] + (f": {panel.replace('_', ' ')}" if panel else "")
            spread = f"Dots: the {group['n_runs']} runs." if group["n_runs"] > 1 else "One run."
            stem = f"{name}_ranks" + (f"_{_file_name(panel)}" if panel else "")
            for path in (folder / f"{stem}{suffix}" for suffix in _SUFFIXES):
                draw_curves(curves, path, title=title, subtitle=spread)
                drawn.append(path)
        for stem, draw in ((f"{name}_sets", _draw_heat), (f"{name}_loss", _draw_loss)):
            for path in (folder / f"{stem}{suffix}" for suffix in _SUFFIXES):
                if draw(group, heat, data.head["sets"], path):
                    drawn.append(path)
    return drawn


def rank_curves_of(group: Mapping[str, Any], split: str, panel: str) -> list[Curve]:
    """The lines of one panel of a page as curves; dots are the runs, or their range."""
    epochs = [one["epoch"] for one in group["evaluations"]]
    curves = []
    for line in group["lines"]:
        series = next((line["series"][key] for key in _RANKS if key in line["series"]), None)
        if (line["split"], line["panel"]) != (split, panel) or series is None:
            continue
        accuracy = line["series"].get("accuracy", {}).get("mean") or [math.nan] * len(epochs)
        points = [
            Point(epoch, rank, math.nan if accuracy[e] is None else accuracy[e], _dots(series, e))
            for e, (epoch, rank) in enumerate(zip(epochs, series["mean"], strict=True))
            if rank is not None
        ]
        label = line["asked"].replace("trained: ", "").replace("_", "-")
        kind = line["asked"].partition(":")[0]
        curves.append(Curve(Group(label, kind), line["n_questions"], line["chance"], tuple(points)))
    return curves


def _dots(series: Mapping[str, Any], place: int) -> tuple[float, ...]:
    runs = series.get("runs") or [series["low"], series["high"]]
    values = tuple(run[place] for run in runs if run[place] is not None)
    return values if len(set(values)) > 1 else ()


def _draw_heat(
    group: Mapping[str, Any],
    heat: Mapping[str, Any],
    sets: Sequence[Mapping[str, Any]],
    path: Path,
) -> bool:
    """A row a set, a column an evaluation; blue is better than chance, orange worse."""
    values = next((heat["values"][key] for key in _RANKS if key in heat["values"]), None)
    if values is None or not group["chance"]:
        return False
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    own = [sets[place] for place in heat["sets"]]
    shares = [
        [_share(rank, group["chance"].get(one["name"])) for rank in row]
        for one, row in zip(own, values, strict=True)
    ]
    figure = Figure(figsize=(7, max(2.5, 0.065 * len(own) + 1)), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    colours = LinearSegmentedColormap.from_list("chance", [_ORANGE, "#FFFFFF", _BLUE])
    drawn = axes.imshow(shares, cmap=colours, vmin=-1, vmax=1, aspect="auto", interpolation="none")
    epochs = [one["epoch"] for one in group["evaluations"]]
    axes.set_xticks(range(len(epochs)), [f"{epoch:g}" for epoch in epochs], fontsize=7)
    names = [f"{one['relation']}, {one['asked']}".replace("_", " ") for one in own]
    starts = [i for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
    axes.set_yticks([s - 0.5 for s in starts], [names[s] for s in starts], fontsize=7, va="top")
    axes.set_xlabel("epochs of training")
    axes.set_title(f"{group['name']}: every set", loc="left", fontsize=11, color=_INK)
    bar = figure.colorbar(drawn, ax=axes, ticks=[-1, 0, 1], shrink=0.5)
    bar.ax.set_yticklabels(["far worse", "chance", "rank 1"])
    save(figure, path)
    return True


def _share(rank: float | None, chance: float | None) -> float:
    """1 for rank 1, 0 for chance and for what is unknown, below 0 for worse than chance."""
    if rank is None or chance is None or chance <= 1:
        return float("nan")
    return max(-1.0, (chance - rank) / (chance - 1))


def _draw_loss(
    group: Mapping[str, Any],
    heat: Mapping[str, Any],
    sets: Sequence[Mapping[str, Any]],
    path: Path,
) -> bool:
    """The loss of every update: mean over runs, and from the lowest to the highest."""
    series = group["training"]["series"].get("loss")
    if series is None:
        return False
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.fill_between(series["steps"], series["low"], series["high"], color=_BLUE, alpha=0.2, lw=0)
    axes.plot(series["steps"], series["mean"], color=_BLUE, lw=1.8)
    axes.set_xlabel("updates")
    axes.set_ylabel("loss of the batch (nats a token)")
    axes.set_title(f"{group['name']}: loss of training", loc="left", fontsize=11, color=_INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    save(figure, path)
    return True


def _file_name(name: str) -> str:
    return re.sub(r"[^0-9A-Za-z.-]+", "_", name).strip("_") or "group"


__all__ = ["draw_figures", "rank_curves_of"]
