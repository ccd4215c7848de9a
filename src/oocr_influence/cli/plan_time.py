"""How long a sweep's jobs take together: in their order, each on the first place that is free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oocr_influence.cli.plan_counts import AskedCounts, RunCounts
from oocr_influence.cli.plan_figures import Figure, unknown, weakest
from oocr_influence.cli.sweep_arguments import DataModelingArgs


@dataclass(frozen=True)
class Work:
    """A job: what it takes (seconds), with the untouched model asked in it where `first` is."""

    seconds: Figure
    first: str | None
    """The questions' digest, where what the untouched model answers is kept for later jobs."""
    asking_seconds: float
    """Of one evaluation."""


def first_asking(args: DataModelingArgs, counts: RunCounts, asked: AskedCounts) -> str | None:
    """The questions that the untouched model is asked and whose answers later runs find."""
    kept = "start" in counts.evaluations and args.eval_cache and not args.metric_files
    return asked.suite if kept else None


def makespan(works: Sequence[Work], at_once: int) -> Figure:
    """Seconds from the first job's start to the last one's end.

    What the untouched model answers is asked once: jobs that begin later find it.
    """
    figures = [work.seconds for work in works]
    if any(figure.value is None for figure in figures):
        return unknown("a run's time is")
    free = [0.0] * at_once
    asked: set[str] = set()
    for work in works:
        seconds = work.seconds.value or 0.0
        place = min(range(at_once), key=free.__getitem__)
        if work.first is not None:
            if work.first in asked and free[place] > 0:
                seconds -= work.asking_seconds
            asked.add(work.first)
        free[place] += seconds
    how = f"{len(works)} jobs, {at_once} at a time, in their order"
    return Figure(max(free), weakest(figures), how)
