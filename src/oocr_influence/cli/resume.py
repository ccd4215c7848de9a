"""Go on with a sweep that was stopped, or whose machine was, as it was run before.

    oocr resume mayors --detach

The same as `oocr data_modeling --resume FOLDER` with the flags that say how the sweep is run, as
they were when it was last run; those that are stated here win.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field

from launcher.status import read_sweep
from oocr_influence.cli.arguments import CommandArguments, UsageError, run_command
from oocr_influence.cli.sweeps import JOBS, find_sweep


class ResumeArguments(CommandArguments):
    """Which sweep."""

    sweep: Path = Field(json_schema_extra={"positional": True})
    """the experiment's folder, or a part of its name"""
    detach: bool = False
    """leave it running when this terminal closes"""
    dry_run: bool = False
    """print what is done and what would be run, and exit"""
    max_workers: int | None = Field(default=None, ge=1)
    """runs at the same time (workers; None: as before)"""
    output_dir: Path = Path("outputs")
    """the folder that experiments are written to"""


def main(args: ResumeArguments) -> int:
    """Resume it; returns 0 only if every run succeeded."""
    folder = find_sweep(args.sweep, args.output_dir)
    if folder.name != JOBS:
        raise UsageError(f"{folder} is a folder of jobs, and of no experiment: run it by its owner")
    sweep = read_sweep(folder)
    if sweep.driver_alive == "alive":
        raise UsageError(f"{folder.parent} is being run by {sweep.driven_by()}")
    # What trains is only now imported: a wrong name is told at once.
    from oocr_influence.cli import data_modeling

    known = data_modeling.DataModelingArgs.model_fields
    stated = {name: value for name, value in executed_as(folder.parent).items() if name in known}
    if args.max_workers is not None:
        stated["max_workers"] = args.max_workers
    flags = {"resume": folder.parent, "detach": args.detach, "dry_run": args.dry_run, **stated}
    return data_modeling.main(data_modeling.DataModelingArgs.model_validate(flags))


def executed_as(experiment: Path) -> dict[str, object]:
    """The flags that an experiment was last run with, of those that say how it is run."""
    try:
        log = json.loads((experiment / "experiment_log.json").read_text(encoding="utf-8"))
        return dict(log["log_dict"].get("execution") or {})
    except (OSError, ValueError, KeyError, TypeError):
        return {}


if __name__ == "__main__":
    run_command(ResumeArguments, main)
