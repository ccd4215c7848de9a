"""Join a sweep as a worker, from any machine or pod that sees its folder.

    oocr worker /shared/outputs/…_mayors

It takes runs that nobody has, on the GPUs of this machine, which it shares with the other sweeps
here, and leaves when there are none. Whoever dies, each run is published once. docs/kubernetes.md
has a manifest. SIGTERM, as of an ending pod, saves the runs; others go on with them.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from launcher.command_line import join
from launcher.status import read_sweep
from oocr_influence.cli.arguments import CommandArguments, UsageError, run_command
from oocr_influence.cli.engines import GRACE
from oocr_influence.cli.sweeps import find_sweep, folder_of


class WorkerArguments(CommandArguments):
    """Which sweep, and how much of this machine."""

    sweep: Path = Field(json_schema_extra={"positional": True})
    """the experiment's folder, or a part of its name"""
    gpus_per_job: int = Field(default=1, ge=0)
    """GPUs of one run, as the sweep was started with (GPUs)"""
    max_workers: int | None = Field(default=None, ge=1)
    """runs at the same time (workers; None: one a GPU, or one a core where there is none)"""
    output_dir: Path = Path("outputs")
    """the folder that experiments are written to"""


def main(args: WorkerArguments) -> int:
    """Become the worker's process; returns 0 where there is nothing to take."""
    folder = find_sweep(args.sweep, args.output_dir)
    sweep = read_sweep(folder)
    if sweep.stop_asked:
        when = (sweep.stop or {}).get("asked_at", "some time ago")
        print(
            f"asked to stop at {when}, nothing is taken; go on with: "
            f"oocr resume {folder_of(folder)}"
        )
        return 0
    if sweep.is_done:
        print("every run of it is done")
        return 0
    try:
        join(folder, gpus_per_job=args.gpus_per_job, max_workers=args.max_workers, grace=GRACE)
    except (ValueError, OSError) as error:
        raise UsageError(f"cannot join {folder}: {error}") from error


if __name__ == "__main__":
    run_command(WorkerArguments, main)
