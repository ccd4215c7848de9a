"""Datamodels and attributions of everything at some paths, computed once for the same records.

datamodels, attributions = figures_of([Path("outputs")])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from oocr_influence.cli.attribution_figures import attribution_of, tables_in
from oocr_influence.cli.datamodel_figures import Splits, datamodel_of, read_splits
from oocr_influence.results.attributions import ABOUT, SCORES
from oocr_influence.results.finding import find_experiments
from oocr_influence.results.run_folder import ExperimentFolder
from oocr_influence.results.subset_outcomes import SPLITS

# A live page asks anew every few seconds: only what has other records is computed again.
_known: dict[Path, tuple[Any, dict[str, Any]]] = {}


def figures_of(paths: Sequence[Path]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What sweeps over subsets say, and what each table of scores does; nothing of single runs."""
    sweeps = {
        one.path.resolve(): one
        for path in paths
        for one in find_experiments(path)
        if any(map(one.subset_numbers, SPLITS))
    }
    states = {path: _state(one) for path, one in sweeps.items()}
    datamodels = [
        _once(path, states[path], lambda one=one: datamodel_of(one))  # type: ignore[misc]
        for path, one in sweeps.items()
    ]
    splits: dict[str, Splits] = {}
    tables = tables_in(path for path in paths if path.is_dir())
    if tables:
        splits = {one.name: found for one in sweeps.values() if (found := _splits(one))}
    attributions = [
        _once(
            table,
            ([_stamp(table / name) for name in (ABOUT, SCORES)], states),
            lambda table=table: attribution_of(table, splits),  # type: ignore[misc]
        )
        for table in tables
    ]
    return datamodels, attributions


def _splits(experiment: ExperimentFolder) -> Splits | None:
    try:
        return read_splits(experiment)
    except (OSError, ValueError, ImportError):  # the experiment's own part says why
        return None


def _state(experiment: ExperimentFolder) -> list[Any]:
    """What changes when a run on a subset completes, or its records do."""
    logs = (
        run.experiment_log
        for split in SPLITS
        for index in experiment.subset_numbers(split)
        for run in experiment.runs_of_subset(split, index)
    )
    return [(str(log), _stamp(log)) for log in logs]


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


def _once(path: Path, state: Any, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    known = _known.get(path)
    if known is None or known[0] != state:
        _known[path] = known = (state, make())
    return known[1]


__all__ = ["figures_of"]
