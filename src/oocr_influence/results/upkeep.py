"""Tidying experiments: which runs may go, and deleting them so that no half run ever looks whole.

Only run folders of ours inside the experiment are ever named; a run that a live process owns, or
may own on another host, stays. Each deletion is a line in the experiment's `cleanups.jsonl`.
"""

from __future__ import annotations

import getpass
import json
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from oocr_influence.results import checkpoints
from oocr_influence.results.experiment_log import LoggedExperiment, read_experiment_log
from oocr_influence.results.finding import runs_of
from oocr_influence.results.run_folder import RUNS_FOLDERS, ExperimentFolder, RunFolder
from oocr_influence.results.variants import variant_of
from oocr_influence.results.verification import is_completed, is_earlier

Keep = Literal["first-completed", "completed"]
DELETING_PREFIX = ".deleting_"

Busy = Callable[[RunFolder], str | None]
"""Why a run must be left alone, as far as the launcher knows; None if it need not."""


@dataclass(frozen=True)
class Removal:
    """A folder that may go, and why."""

    path: Path
    name: str
    experiment: ExperimentFolder
    reason: str
    n_bytes: int


@dataclass(frozen=True)
class Kept:
    """A run that stays, and why."""

    run: RunFolder
    why: str


@dataclass
class CleanupPlan:
    """What a cleanup would delete and what it leaves."""

    removals: list[Removal] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)

    @property
    def n_bytes(self) -> int:
        return sum(removal.n_bytes for removal in self.removals)


def plan_cleanup(
    experiments: Sequence[ExperimentFolder],
    *,
    keep: Keep = "first-completed",
    include_earlier: bool = False,
    busy: Busy = lambda run: None,
) -> CleanupPlan:
    """Incomplete runs, and with `first-completed` every completed run but an experiment's first.

    The first is the earliest started one whose checkpoints are whole; of a grid, each point has its
    first. Runs of the earlier system stay, unless `include_earlier` counts its extra completed ones
    in; its other runs always stay.
    """
    plan = CleanupPlan()
    for experiment in experiments:
        _plan_experiment(plan, experiment, keep, include_earlier, busy)
    return plan


def remove(removal: Removal, *, busy: Busy = lambda run: None) -> str | None:
    """Delete one folder; returns why it was left alone after all, if it was.

    It first takes a hidden name, so that a deletion that is interrupted leaves no run behind, and
    is finished by the next one.
    """
    path = removal.path
    if not path.name.startswith(DELETING_PREFIX):
        run = RunFolder(path)
        why = _guarded(run, removal.experiment, busy)
        if why is not None:
            return why
        # Run names may have all the bytes that a file system allows: only their stamp is kept.
        path = path.with_name(f"{DELETING_PREFIX}{run.name[:25]}_{secrets.token_hex(4)}")
        run.path.rename(path)
        _record(removal)
    shutil.rmtree(path)
    return None


def read_cleanups(experiment: ExperimentFolder) -> list[dict[str, Any]]:
    """The deletions of an experiment, oldest first: what, reason, bytes, when, user, host."""
    try:
        lines = experiment.cleanups.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line.endswith("}")]


def _plan_experiment(
    plan: CleanupPlan,
    experiment: ExperimentFolder,
    keep: Keep,
    include_earlier: bool,
    busy: Busy,
) -> None:
    _add_interrupted(plan, experiment)
    first: dict[str, RunFolder] = {}
    extra: list[tuple[RunFolder, str]] = []
    for run in runs_of(experiment):
        variant = variant_of(run)
        log = _log_of(run)
        earlier = is_earlier(run, log)
        completed = is_completed(run, log)
        guard = _guarded(run, experiment, busy)
        if guard is not None:
            plan.kept.append(Kept(run, guard))
        elif earlier and not (include_earlier and completed):
            plan.kept.append(Kept(run, "a run of the earlier system"))
        elif not completed:
            plan.removals.append(_removal(run, experiment, "incomplete"))
        elif keep == "completed":
            plan.kept.append(Kept(run, "completed"))
        elif variant not in first and _is_sound(run):
            first[variant] = run
            of_it = f" of {variant}" if variant else ""
            plan.kept.append(Kept(run, f"the first completed run{of_it}"))
        else:
            extra.append((run, variant))
    for run, variant in extra:
        if variant not in first:
            plan.kept.append(Kept(run, "completed, and no completed run has whole checkpoints"))
        else:
            plan.removals.append(_removal(run, experiment, "extra completed run"))


def _guarded(run: RunFolder, experiment: ExperimentFolder, busy: Busy) -> str | None:
    """Why nobody may delete the run now, whatever it holds."""
    inside = experiment.path.resolve()
    if run.path.is_symlink() or inside not in run.path.resolve().parents:
        return "it lies outside its experiment's folder"
    state, owner = run.ownership()
    who = owner.describe() if owner else "its owner.json cannot be read"
    if state == "alive":
        return f"owned by a live process: {who}"
    if state == "unknown":
        return f"its owner cannot be asked from here: {who}"
    return busy(run)


def _is_sound(run: RunFolder) -> bool:
    return not any(checkpoints.faults_of(run.checkpoint(name)) for name in run.checkpoints())


def _removal(run: RunFolder, experiment: ExperimentFolder, reason: str) -> Removal:
    return Removal(run.path, run.name, experiment, reason, checkpoints.folder_bytes(run.path))


def _add_interrupted(plan: CleanupPlan, experiment: ExperimentFolder) -> None:
    """What an interrupted cleanup left under its hidden name; its record is there already."""
    for name in RUNS_FOLDERS:
        for path in sorted((experiment.path / name).glob(f"{DELETING_PREFIX}*")):
            inside = experiment.path.resolve() in path.resolve().parents
            if path.is_dir() and not path.is_symlink() and inside:
                size = checkpoints.folder_bytes(path)
                reason = "left by an interrupted cleanup"
                plan.removals.append(Removal(path, path.name, experiment, reason, size))


def _log_of(run: RunFolder) -> LoggedExperiment | None:
    try:
        return read_experiment_log(run.experiment_log)
    except (OSError, ValueError):
        return None


def _record(removal: Removal) -> None:
    line = {
        "what": removal.name,
        "reason": removal.reason,
        "bytes": removal.n_bytes,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "user": _user(),
        "host": socket.gethostname(),
    }
    with removal.experiment.cleanups.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
