"""What a block of runs on subsets takes beside its updates and evaluations, out of earlier blocks.

A block loads the base once and then makes its runs: it takes start + runs × (a run).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from launcher.jobs import read_exit
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.plan_hardware import Hardware
from oocr_influence.cli.plan_measured import is_alike, measured_run
from oocr_influence.results.experiment_log import read_experiment_log
from oocr_influence.results.finding import find_experiments
from oocr_influence.results.run_folder import ExperimentFolder, RunFolder

BLOCKS_LOOKED_AT = 5  # of those that match


@dataclass(frozen=True)
class MeasuredBlocks:
    """Medians over blocks."""

    source: str
    start_seconds: float
    """Of a block, beside its runs: the process, the base, the questions."""
    beside_seconds: float
    """Of each of its runs, beside updates and evaluations."""


def blocks_before(outputs: Path, args: TrainingArgs, hardware: Hardware) -> MeasuredBlocks | None:
    """Out of the newest blocks in `outputs` that match and went through in one go; None if none."""
    if not outputs.is_dir():
        return None
    alike = (
        (experiment.name, *measured)
        for experiment in reversed(find_experiments(outputs))
        for block in _blocks(experiment)
        if (measured := _measured(block, args, hardware)) is not None
    )
    found = list(islice(alike, BLOCKS_LOOKED_AT))
    if not found:
        return None
    many = "s" * (len(found) > 1)
    return MeasuredBlocks(
        source=f"{len(found)} earlier job{many}, such as one of {found[0][0]}",
        start_seconds=statistics.median(start for _, start, _ in found),
        beside_seconds=statistics.median(beside for _, _, beside in found),
    )


def _blocks(experiment: ExperimentFolder) -> Iterator[dict[str, Any]]:
    """How its blocks ended that were made by one attempt, the last first."""
    for folder in reversed(experiment.job_folders()):
        ended = read_exit(folder) or {}
        made = (ended.get("result") or {}).get("runs")
        if ended.get("status") == "ok" and ended.get("attempt_number") == 1 and made:
            yield ended


def _measured(
    block: dict[str, Any], args: TrainingArgs, hardware: Hardware
) -> tuple[float, float] | None:
    """Seconds of the start, and of each run beside its updates and evaluations."""
    asked, beside, busy = args.model_dump(mode="json"), [], 0.0
    for path in block["result"]["runs"]:
        run = RunFolder(Path(path))
        try:
            logged = read_experiment_log(run.experiment_log)
        except (OSError, ValueError):
            return None  # deleted since
        if not is_alike(logged, asked, hardware) or "resumed" in logged.log_dict:
            return None
        seconds = measured_run(run, logged, asked, None).beside_seconds
        if seconds is None:
            return None
        prepared = (logged.log_dict.get("phases") or {}).get("prepare") or {}
        busy += float(logged.log_dict["time_taken"]) + prepared.get("seconds", 0.0) - seconds
        beside.append(seconds)
    # The first loads the base, which is the start's.
    usual = statistics.median(beside[1:] or beside)
    return max(0.0, float(block["seconds"]) - busy - usual * len(beside)), usual
