"""What a sweep did and took, beside what it was planned to: out of its folder alone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from launcher.jobs import read_exit
from oocr_influence.cli.arguments import UsageError
from oocr_influence.results.experiment_log import LoggedExperiment, read_experiment_log
from oocr_influence.results.finding import find_experiments, runs_of
from oocr_influence.results.run_folder import ExperimentFolder, RunFolder
from oocr_influence.results.step_log import read_steps

Row = dict[str, Any]


def compare(path: Path) -> dict[str, dict[str, Any]]:
    """By experiment: how many of its runs are finished, how often it was extended since it was
    planned, and rows of planned and actual values.

    Raises UsageError where no experiment has a plan.
    """
    experiments = [folder for folder in find_experiments(path) if folder.plan.is_file()]
    if not experiments:
        raise UsageError(
            f"--against {path}: no experiment there has a plan.json, which sweeps write first"
        )
    return {folder.name: _compare(folder) for folder in experiments}


def _compare(folder: ExperimentFolder) -> dict[str, Any]:
    try:
        plan = json.loads(folder.plan.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{folder.plan} is not JSON: {error}") from None
    runs = runs_of(folder)
    logs = {run: logged for run in runs if (logged := _read(run)) is not None}
    finished = {run: logged for run, logged in logs.items() if logged.status == "completed"}
    whole, points = plan["whole"], plan["points"]
    parts = [*points, plan["subsets"]] if "subsets" in plan else points
    memory = [part["memory_bytes"]["value"] for part in parts]
    planned_runs = [part["run_seconds"]["value"] for part in parts for _ in range(part["n_runs"])]
    least, most = whole["disk_bytes"]
    used = bytes_on_disk(folder.path)
    began = _read(folder)
    extensions = [] if began is None else began.log_dict.get("extensions") or []
    return {
        "finished": len(finished),
        "extensions": len(extensions),
        "rows": [
            _row("runs", whole["runs"], len(finished)),
            *([_row("jobs", whole["jobs"], _jobs_done(folder))] if "jobs" in whole else []),
            _row("updates", whole["updates"], sum(map(_updates, runs))),
            _row("evaluations", whole["evaluations"], sum(len(r.evaluations()) for r in runs)),
            _row("checkpoints", whole["checkpoints"], sum(len(r.checkpoints()) for r in runs)),
            _row("all runs, one by one", _sum(planned_runs), _sum(_seconds(logs)), "seconds"),
            _row("the sweep", whole["seconds"]["value"], _wall(logs.values()), "seconds"),
            _row("peak memory", _most(memory), _most(_peaks(logs.values())), "memory"),
            _row("disk, at least", least, used, "bytes"),
            _row("disk, at most", most, used, "bytes"),
        ],
    }


def _jobs_done(folder: ExperimentFolder) -> int:
    ends = [read_exit(job) or {} for job in folder.job_folders()]
    return sum(end.get("status") == "ok" for end in ends)


def _row(what: str, planned: float | None, actual: float | None, unit: str = "") -> Row:
    return {"what": what, "planned": planned, "actual": actual, "unit": unit}


def _read(run: RunFolder | ExperimentFolder) -> LoggedExperiment | None:
    try:
        return read_experiment_log(run.experiment_log)
    except (OSError, ValueError):
        return None


def _updates(run: RunFolder) -> int:
    return sum(1 for _ in read_steps(run.steps)) if run.steps.exists() else 0


def _seconds(logs: dict[RunFolder, LoggedExperiment]) -> list[float | None]:
    """Of each run, from its preparation to its end."""
    found: list[float | None] = []
    for logged in logs.values():
        taken = logged.log_dict.get("time_taken")
        prepared = (logged.log_dict.get("phases") or {}).get("prepare") or {}
        found.append(None if taken is None else taken + prepared.get("seconds", 0.0))
    return found


def _wall(logs: Iterable[LoggedExperiment]) -> float | None:
    """From the first run's beginning to the last one's end, pauses between them included."""
    moments = [
        datetime.fromisoformat(moment)
        for logged in logs
        for phase in (logged.log_dict.get("phases") or {}).values()
        for moment in (phase.get("start"), phase.get("end"))
        if isinstance(moment, str)
    ]
    return (max(moments) - min(moments)).total_seconds() if moments else None


def _peaks(logs: Iterable[LoggedExperiment]) -> list[float | None]:
    trained = [(logged.log_dict.get("phases") or {}).get("train") or {} for logged in logs]
    return [phase.get("gpu_peak_bytes") or phase.get("peak_rss_bytes") for phase in trained]


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _most(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def bytes_on_disk(folder: Path) -> int:
    """Of all files in a folder, those of several names counted once."""
    sizes: dict[tuple[int, int], int] = {}
    for parent, _, files in os.walk(folder):
        for name in files:
            try:
                found = (Path(parent) / name).lstat()
            except FileNotFoundError:
                continue
            sizes[found.st_dev, found.st_ino] = found.st_size
    return sum(sizes.values())
