"""Several values of flags in one sweep: every combination is run with every data order.

    --epochs 1,5 --learning_rate 1e-4,3e-5         four points

    --grid FILE.toml                               the same, or any points
        epochs = [1, 5]
        learning_rate = [1e-4, 3e-5]
        [[points]]                                 each of these with each combination of the above
        packing = "concat"
        chunk_size = 1024

A point is a mapping of flags to values; a grid is a list of points, which stands in `args.grid` of
the experiment's log. Beside it, a flag that all points name has its first value in `args`.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from oocr_influence.cli.options import TrainingOptions
from oocr_influence.results.naming import escaped, readable_number

Point = dict[str, Any]

# What has one value in a sweep: names and places, what changes no result, lists.
_ONE_VALUE = {
    "experiment_name",
    "output_dir",
    "force_local_model_cache",
    "eval_cache",
    "metric_files",
    "lora_targets",
    "eval_sets",
    "eval_metrics",
    "logging_type",
    "wandb_project",
    "compat",
    "profile",
}
# In the order in which names tell them, whatever order they are stated in.
AXES = [name for name in [*TrainingOptions.model_fields, "burnin_epochs"] if name not in _ONE_VALUE]
# A comma may be part of their value, or a path: several of them are given in a file.
_NOT_BY_COMMA = {"model", "revision", "keep_checkpoints"}
# Axes along which a window takes as much memory.
SAME_MEMORY = {
    "epochs",
    "max_steps",
    "burnin_epochs",
    "learning_rate",
    "lr_schedule",
    "warmup_proportion",
    "warmup_steps",
    "weight_decay",
    "beta1",
    "beta2",
    "eps",
    "max_grad_norm",
    "z_loss",
}
_IN_RUNS = {"burnin_epochs": "burn_in_epochs"}
_SHORT = {"learning_rate": "lr"}


def with_grid(values: Mapping[str, Any]) -> dict[str, Any]:
    """A command's values, with those of several taken apart into `grid`.

    Raises ValueError naming every flag that has one value in a sweep, and every fault of a file.
    """
    values = dict(values)
    axes = {
        name: several
        for name, value in values.items()
        if name in AXES and name not in _NOT_BY_COMMA and (several := _several(value)) is not None
    }
    values |= {name: several[0] for name, several in axes.items()}
    grid = values.get("grid")
    if isinstance(grid, str | Path):
        grid = [grid]
    if grid and all(isinstance(item, str | Path) for item in grid):
        if len(grid) > 1:
            raise ValueError(f"--grid is one file, not {len(grid)}")
        grid = read_points(Path(grid[0]))
    if axes or grid:
        points = combined(grid or [{}], product(axes))
        values["grid"] = points
        everywhere = set.intersection(*map(set, points))
        values |= {name: points[0][name] for name in everywhere}
    return values


def read_points(path: Path) -> list[Point]:
    """The points of a TOML file; ValueError names every fault."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"--grid {path}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"--grid {path} is not TOML: {error}") from None
    points = found.pop("points", [{}])
    if not isinstance(points, list) or not all(isinstance(point, dict) for point in points):
        raise ValueError(f"--grid {path}: points are written as [[points]] tables")
    axes = {name: value if isinstance(value, list) else [value] for name, value in found.items()}
    faults = [f"{name} has no value" for name, several in axes.items() if not several]
    for name in sorted({*axes, *(name for point in points for name in point)}):
        if name not in AXES:
            faults.append(f"{name} is no flag that a sweep can have several values of")
    if faults:
        raise ValueError(f"--grid {path}: {'; '.join(faults)}")
    return combined(points, product(axes))


def product(axes: Mapping[str, Sequence[Any]]) -> list[Point]:
    """Every combination of values, the last axis fastest."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def combined(first: Iterable[Point], second: Sequence[Point]) -> list[Point]:
    """Each of the first with each of the second, whose values win; each once."""
    found: list[Point] = []
    for one in first:
        for other in second:
            both = {**one, **other}
            point = {name: both[name] for name in AXES if name in both}
            if point not in found:
                found.append(point)
    return found


def axes_of(points: Iterable[Point]) -> list[str]:
    """The flags that points name, as the runs' own arguments call them."""
    named = {name for point in points for name in point}
    return [_IN_RUNS.get(name, name) for name in AXES if name in named]


def merged_axes(one: Iterable[str], other: Iterable[str]) -> list[str]:
    """The axes of two grids together, by the names that runs have for them."""
    named = {*one, *other}
    return [_IN_RUNS.get(name, name) for name in AXES if _IN_RUNS.get(name, name) in named]


def point_name(point: Point) -> str:
    """`epochs_1_lr_0.0001`, for ids of jobs; empty for a point of no flags."""
    parts = [f"{_SHORT.get(name, name)}_{_readable(value)}" for name, value in point.items()]
    return escaped("_".join(parts)) if parts else ""


def point_label(point: Point) -> str:
    """`epochs 1, lr 0.0001`, for people."""
    parts = (f"{_SHORT.get(name, name)} {_readable(value)}" for name, value in point.items())
    return ", ".join(parts)


def _several(value: Any) -> list[Any] | None:
    if isinstance(value, str) and "," in value:
        texts = [text.strip() for text in value.split(",")]
        return [None if text in ("None", "null") else text for text in texts]
    return list(value) if isinstance(value, list | tuple) and value else None


def _readable(value: Any) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return readable_number(value) if is_number else str(value)
