"""The command line of `python -m launcher.jobs`: one job by hand, or a worker."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from launcher.attempt import run_here
from launcher.claims import ask_again, standing
from launcher.gpus import ONE_THREAD, places, visible_gpus
from launcher.jobs import Job
from launcher.ledger import job_folders
from launcher.processes import MARK_VARIABLE, NO_ATTEMPT, WORKER_VARIABLE
from launcher.worker import Worker
from launcher.worker_settings import WorkerSettings


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m launcher.jobs", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run one job here, in the foreground")
    run.add_argument("folder", type=Path)
    run.add_argument("--again", action="store_true", help="even if it has ended well before")
    worker = commands.add_parser("worker", help="take jobs until there are none to take")
    worker.add_argument("sweep", type=Path, help="a folder of jobs, or a worker's settings in it")
    worker.add_argument("--gpus-per-job", type=int, default=1)
    worker.add_argument("--max-workers", type=int, help="jobs at the same time, at most")
    args = parser.parse_args(argv)
    if args.command == "worker" and args.sweep.is_dir():
        join(args.sweep, gpus_per_job=args.gpus_per_job, max_workers=args.max_workers)
    if args.command == "worker":
        settings = WorkerSettings.read(args.sweep)
        os.environ.update(settings.env)
        return Worker(settings).serve()
    job = Job.load(args.folder)
    if standing(job).state == "done" and not args.again:
        print(f"{args.folder} has ended well; --again runs it once more", file=sys.stderr)
        return 0
    ask_again(job, why="run by hand", even_done=args.again)
    return run_here(job, gpus=os.environ.get("CUDA_VISIBLE_DEVICES")).exit_code


def join(
    sweep: Path, *, gpus_per_job: int = 1, max_workers: int | None = None, grace: float = 10.0
) -> NoReturn:
    """Become a worker of a sweep, whoever drives it, on the GPUs of this machine.

    In place of this process, so that its whole family carries its token from the start.
    """
    shared = places(visible_gpus(), gpus_per_job)
    each = max(1, gpus_per_job)
    jobs = [Job.load(folder) for folder in job_folders(sweep)]
    settings = WorkerSettings(
        sweeps=(sweep.absolute(),),
        places=shared,
        each=each,
        at_once=min(len(shared) // each, max_workers or len(shared)),
        since=time.time(),
        grace=grace,
        # The first that waits decides: jobs of another environment are left to other workers.
        env=next((dict(job.spec.env) for job in jobs if standing(job).state == "waiting"), {}),
    )
    env = {**os.environ, **settings.env, WORKER_VARIABLE: settings.token}
    env[MARK_VARIABLE] = NO_ATTEMPT
    if not any(shared.values()):
        env |= {**ONE_THREAD, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "launcher.jobs", "worker", str(settings.write())]
    os.execve(sys.executable, command, env)
