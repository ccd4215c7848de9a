"""Have failed runs tried again.

    oocr retry mayors                  # all that failed
    oocr retry mayors --job all_docs_seed_43 --start

They are marked; who runs the sweep takes them up. Where nobody does, `--start` resumes the sweep,
with all that is unfinished in it. A run goes on from its last state.
"""

from __future__ import annotations

import getpass
from pathlib import Path

from pydantic import Field

from launcher.asked_again import ask_for_retry
from launcher.jobs import Job
from launcher.status import JobStatus, SweepStatus, read_sweep
from oocr_influence.cli.arguments import CommandArguments, UsageError, run_command
from oocr_influence.cli.sweeps import find_sweep, folder_of


class RetryArguments(CommandArguments):
    """Which runs of which sweep."""

    sweep: Path = Field(json_schema_extra={"positional": True})
    """the experiment's folder, or a part of its name"""
    failed: bool = False
    """all that failed; so it is where no --job is named"""
    job: list[str] = []
    """these alone (ids)"""
    start: bool = False
    """resume the sweep where nobody runs it"""
    detach: bool = False
    """with --start: leave it running when this terminal closes"""
    output_dir: Path = Path("outputs")
    """the folder that experiments are written to"""


def main(args: RetryArguments) -> int:
    """Mark them; returns that of the sweep with --start, and 0 else."""
    if args.failed and args.job:
        raise UsageError("--failed means all that failed, --job some of them: leave one out")
    if args.detach and not args.start:
        raise UsageError("--detach goes with --start")
    folder = find_sweep(args.sweep, args.output_dir)
    sweep = read_sweep(folder)
    why = f"asked for by {getpass.getuser()}"
    chosen = _chosen(sweep, args.job)
    marked = [job.id for job in chosen if ask_for_retry(Job.load(job.folder), why=why)]
    if not marked:
        print("no run of it has failed")
    for name in marked:
        print(f"{name}: is tried again")
    if sweep.is_live or not (marked or args.start):
        return 0
    if not args.start:
        print(f"nobody runs the sweep; go on with: oocr resume {folder_of(folder)}")
        return 0
    from oocr_influence.cli import resume

    return resume.main(resume.ResumeArguments(sweep=folder_of(folder), detach=args.detach))


def _chosen(sweep: SweepStatus, names: list[str]) -> list[JobStatus]:
    known = {job.id: job for job in sweep.jobs}
    faults = [f"--job {name}: there is none of this id" for name in names if name not in known]
    faults += [
        f"--job {name} is {known[name].state}: only a failed one can be retried"
        for name in names
        if name in known and known[name].state != "failed"
    ]
    if faults:
        raise UsageError("\n       ".join(faults))
    return [known[name] for name in names] if names else sweep.of("failed")


if __name__ == "__main__":
    run_command(RetryArguments, main)
