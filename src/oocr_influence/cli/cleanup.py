"""Delete the runs of experiments that nobody needs: incomplete ones and extra completed ones.

    oocr cleanup outputs/                    lists what it would delete, with sizes
    oocr cleanup outputs/ --yes              deletes it

A run that a live process owns stays, and so does everything that is not a run folder of ours. Each
deletion is recorded in the experiment's cleanups.jsonl.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from launcher.jobs import liveness, read_state
from oocr_influence.cli.arguments import CommandArguments, UsageError, run_command
from oocr_influence.results.finding import find_experiments
from oocr_influence.results.run_folder import ExperimentFolder, RunFolder
from oocr_influence.results.upkeep import CleanupPlan, Keep, plan_cleanup, remove


class CleanupArguments(CommandArguments):
    """Where to tidy, and what stays."""

    paths: list[Path] = Field(json_schema_extra={"positional": True})
    """experiments, or folders of experiments"""
    keep: Keep = "first-completed"
    """first-completed: of each experiment's completed runs, the earliest started one with whole
    checkpoints; completed: all of them"""
    include_earlier: bool = False
    """count in extra completed runs of the earlier system, which otherwise always stay"""
    yes: bool = False
    """delete; without it nothing is changed"""


def main(args: CleanupArguments) -> int:
    """List, and delete if told to; returns 0 unless something could not be deleted."""
    plan = plan_cleanup(
        experiments_at(args.paths),
        keep=args.keep,
        include_earlier=args.include_earlier,
        busy=owning_job,
    )
    _list(plan)
    if not plan.removals:
        print("nothing to delete")
        return 0
    if not args.yes:
        print("nothing was deleted: add --yes to delete what is listed")
        return 0
    return _delete(plan)


def experiments_at(paths: Sequence[Path]) -> list[ExperimentFolder]:
    """The experiments at all paths, each once; UsageError for a path that holds none."""
    found: dict[Path, ExperimentFolder] = {}
    for path in paths:
        experiments = find_experiments(path)
        if not experiments:
            raise UsageError(f"{path} is neither an experiment's folder nor holds any")
        found |= {experiment.path.resolve(): experiment for experiment in experiments}
    return list(found.values())


def owning_job(run: RunFolder) -> str | None:
    """The launcher's job that writes the run now, or may do so on another host."""
    _, owner = run.ownership()
    for folder in run.experiment.job_folders():
        state = read_state(folder)
        alive = liveness(state)
        if alive == "dead" or state is None:
            continue
        same = owner is not None and (owner.host, owner.pid) == (state["host"], state["pid"])
        if owner is None or same:
            return f"job {folder.name} may be writing it ({alive})"
    return None


def readable_size(n_bytes: float) -> str:
    """1.5 GB, 320 MB, 12 kB: decimal units, as disks are sold."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes:.0f} B"


def _list(plan: CleanupPlan) -> None:
    for kept in plan.kept:
        print(f"keep    {kept.run.path}\n        {kept.why}")
    for removal in plan.removals:
        size = readable_size(removal.n_bytes)
        print(f"delete  {removal.path}\n        {removal.reason}, {size}")
    if plan.removals:
        print(f"{len(plan.removals)} to delete, {readable_size(plan.n_bytes)} in all")


def _delete(plan: CleanupPlan) -> int:
    failed = 0
    for removal in plan.removals:
        try:
            why = remove(removal, busy=owning_job)
        except OSError as error:
            why = f"{error.strerror}: {error.filename}"
            failed += 1
        print(f"kept    {removal.path}: {why}" if why else f"deleted {removal.path}")
    return 1 if failed else 0


if __name__ == "__main__":
    run_command(CleanupArguments, main)
