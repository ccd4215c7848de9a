"""What `oocr report` and `oocr view` show: collected results, and how the launcher's jobs stand."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from launcher.ledger import last_lines
from launcher.status import JobStatus, SweepStatus, read_sweep
from oocr_influence.cli.arguments import UsageError
from oocr_influence.cli.status_view import time_left
from oocr_influence.cli.subset_figures import figures_of
from oocr_influence.reports.page.data import PageData, page_data
from oocr_influence.results.collecting import REMEDY, Collected, collect
from oocr_influence.results.finding import find_experiments, find_runs
from oocr_influence.results.run_folder import ExperimentFolder

_LAST_LINES = 20


def tell_reading() -> None:
    """Say to a person at a terminal that it takes a while: half a minute for a large sweep."""
    if sys.stderr.isatty():
        print("reading …", file=sys.stderr, flush=True)


@contextmanager
def collected_runs(paths: Sequence[Path]) -> Iterator[Collected]:
    """What `collect` finds; nothing where experiments have not begun a run yet.

    Notices are kept for the page and not printed. Raises UsageError where there is nothing to
    report, or DuckDB is missing.
    """
    if find_spec("duckdb") is None:
        raise UsageError(REMEDY)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        begun = any(find_runs(path) for path in paths)
        if not begun and any(find_experiments(path) for path in paths):
            collected = Collected([])
        else:
            try:
                collected = collect(paths)
            except ValueError as error:
                raise UsageError(str(error)) from error
        with collected:
            yield collected


def read_page(
    paths: Sequence[Path], collected: Collected, *, with_datamodels: bool = True
) -> PageData:
    """The page of everything at `paths`; datamodels and attributions take longest."""
    datamodels, attributions = figures_of(paths) if with_datamodels else ([], [])
    return page_data(
        collected,
        sweeps=[sweep_of(one) for one in experiments_of(paths)],
        datamodels=datamodels,
        attributions=attributions,
    )


def experiments_of(paths: Sequence[Path]) -> list[ExperimentFolder]:
    """The experiments that the paths belong to, each once: their own, or their runs'."""
    found: dict[Path, ExperimentFolder] = {}
    for path in paths:
        own = [*find_experiments(path), *(run.experiment for run in find_runs(path))]
        found.update({one.path.resolve(): one for one in own})
    return list(found.values())


def sweep_of(experiment: ExperimentFolder) -> dict[str, Any]:
    """How an experiment's jobs stand; `jobs` of those that did not end well, with last lines."""
    told: dict[str, Any] = {"experiment": experiment.name, "counts": None, "failed": []}
    if not experiment.jobs.is_dir():
        return told
    status: SweepStatus = read_sweep(experiment.jobs)
    if not status.jobs:
        return told
    return told | {
        "counts": {state: n for state, n in status.counts().items() if n},
        "live": status.is_live,
        "seconds_left": time_left(status),
        "running": [_running(job) for job in status.of("running", "stopping")],
        "failed": [_failed(experiment, job) for job in status.of("failed", "interrupted")],
    }


def _running(job: JobStatus) -> dict[str, Any]:
    return {
        "label": job.label,
        "step": job.number("completed"),
        "steps": job.number("total"),
        "loss": job.number("loss"),
        "message": job.message,
    }


def _failed(experiment: ExperimentFolder, job: JobStatus) -> dict[str, Any]:
    return {
        "experiment": experiment.name,
        "label": job.label,
        "state": job.state,
        "attempt": job.attempt,
        "message": job.message,
        "log": str(job.log),
        "lines": last_lines(job.log, count=_LAST_LINES),
    }


__all__ = ["collected_runs", "experiments_of", "read_page", "sweep_of", "tell_reading"]
