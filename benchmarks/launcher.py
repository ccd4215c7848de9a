"""What the launcher costs: beside submitit's local executor and Ray, waiting, and at 10,000 jobs.

    python benchmarks/launcher.py
    python benchmarks/launcher.py --only wait,queue
    pip install --no-deps --target /tmp/rivals submitit cloudpickle
    pip install --target /tmp/rivals ray
    python benchmarks/launcher.py --rivals /tmp/rivals

The jobs are empty: they have torch and transformers imported, and return the moment at which their
first line ran. Two run at a time. A job has a process of its own in each of the three: that is how
Ray runs tasks on GPUs (it is told of two that do not exist), and all that submitit can do. submitit
would start all jobs at once, so the next is submitted when one has ended. All that take part run
`--rounds` times, in turn. Ray listens on all addresses, so root gives it a network of its own.

`dispatch` is the time of a place between two jobs: (span x places - sum of the attempts) / jobs.
`to user code` is from the claim (the submission, for the others) to the job's first line. `CPU` is
what the driver and the worker of a sweep use, as a share of a core: one whose GPU another sweep
has, and one whose job sleeps. `status` reads where every job stands; `claim` takes one.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

HERE = str(Path(__file__).parent)
# This file has the package's name, and its folder comes first.
sys.path[:] = [path for path in sys.path if path != HERE]

import psutil  # noqa: E402

from launcher.attempt import End, record_end  # noqa: E402
from launcher.claims import standing, take  # noqa: E402
from launcher.host import FOLDER_VARIABLE, Host  # noqa: E402
from launcher.jobs import Job, JobSpec  # noqa: E402
from launcher.leases import Claimant  # noqa: E402
from launcher.ledger import identity, job_folders  # noqa: E402
from launcher.local_orchestrator import LocalSweepOrchestrator  # noqa: E402
from launcher.queue import Queue  # noqa: E402
from launcher.worker_settings import WorkerSettings  # noqa: E402

PLACES = 2
IMPORTS = ("torch", "transformers")
JOBS = """
import time


def first_line(args, job):
    return time.time()


def sleep(args, job):
    while not job.stop_requested:
        time.sleep(1)
"""
SWEEP = """
import sys
from pathlib import Path
from launcher.jobs import load_jobs
from launcher.local_orchestrator import LocalSweepOrchestrator
LocalSweepOrchestrator(load_jobs(Path(sys.argv[1])), gpus=["0"]).run()
"""
# Each prints a list of [submitted, first line, known to have ended], all in seconds since 1970.
SUBMITIT = """
import json, sys, time, submitit
def empty():
    import torch, transformers
    return time.time()
executor = submitit.LocalExecutor(sys.argv[2])
executor.update_parameters(timeout_min=10)
left, running, times = int(sys.argv[1]), [], []
while left or running:
    for began, job in list(running):
        if job.done():
            running.remove((began, job))
            times.append([began, job.result(), time.time()])
    while left and len(running) < 2:
        running.append((time.time(), executor.submit(empty)))
        left -= 1
    time.sleep(0.01)
print(json.dumps(times))
"""
RAY = """
import json, sys, time, ray
ray.init(num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False,
         object_store_memory=80 * 2**20)
@ray.remote(num_gpus=1)
def empty():
    import torch, transformers
    return time.time()
left, running, times = int(sys.argv[1]), {}, []
while left or running:
    while left and len(running) < 2:
        began = time.time()
        running[empty.remote()] = began
        left -= 1
    ended, _ = ray.wait(list(running), num_returns=1)
    times += [[running.pop(one), ray.get(one), time.time()] for one in ended]
print(json.dumps(times))
"""


class Table:
    """Rows that are printed as they come."""

    def row(self, what: str, **numbers: Any) -> None:
        """A line."""
        told = (f"{key.replace('_', ' ')} {value}" for key, value in numbers.items())
        print(f"{what:<34} " + "   ".join(told), flush=True)


def ms(seconds: float) -> str:
    """Milliseconds, for people."""
    return f"{1000 * seconds:.1f} ms"


def moment(text: str) -> float:
    """Seconds since 1970 of a record's time."""
    return datetime.fromisoformat(text).timestamp()


# --- a hundred empty jobs ------------------------------------------------------------------------


def empty_jobs(folder: Path, count: int, function: str = "first_line") -> list[Job]:
    """Jobs that have all imports before them."""
    return [
        Job(
            JobSpec(id=f"{n:05}", function=f"empty_jobs:{function}", preload=IMPORTS),
            folder / f"{n:05}",
        )
        for n in range(count)
    ]


def ours(folder: Path, count: int) -> list[list[float]]:
    """[claimed, first line, ended] of each job."""
    jobs = empty_jobs(folder, count)
    result = LocalSweepOrchestrator(jobs, gpus=["0", "1"], show_progress=False).run()
    if not result.ok:
        sys.exit(result.summary())
    exits = [standing(job).exit or {} for job in jobs]
    return [[moment(e["started_at"]), e["result"], moment(e["ended_at"])] for e in exits]


def rival(program: str, rivals: str) -> Callable[[Path, int], list[list[float]]]:
    """The same of a rival's, in a process of its own."""

    def measure(folder: Path, count: int) -> list[list[float]]:
        command = [sys.executable, "-c", program, str(count), str(folder)]
        if os.geteuid() == 0 and shutil.which("unshare"):
            command = [
                "unshare",
                "--net",
                "sh",
                "-c",
                'ip link set lo up; exec "$@"',
                "sh",
                *command,
            ]
        env = {**os.environ, "PYTHONPATH": rivals, "RAY_USAGE_STATS_ENABLED": "0"}
        env |= {"RAY_AUTH_MODE": "disabled", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
        with tempfile.TemporaryDirectory(prefix="ray") as short:  # its sockets' names are limited
            env["RAY_TMPDIR"] = short
            done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        times: list[list[float]] = json.loads(done.stdout.splitlines()[-1])
        return times

    return measure


def compare(table: Table, args: argparse.Namespace, scratch: Path) -> None:
    """All that take part, in turn."""
    runners = {"launcher": (ours, args.jobs)}
    sys.path += args.rivals.split(os.pathsep) if args.rivals else []
    for name, program in (("submitit", SUBMITIT), ("ray", RAY)):
        if importlib.util.find_spec(name) is None:
            table.row(name, left_out="it is not installed; see --rivals")
        else:
            runners[name] = (rival(program, args.rivals), args.rival_jobs)
    for number in range(args.rounds):
        for name, (run, count) in runners.items():
            folder = Path(tempfile.mkdtemp(dir=scratch))
            began = time.time()
            times = run(folder, count)
            span = max(end for _, _, end in times) - min(start for start, _, _ in times)
            held = sum(end - start for start, _, end in times)
            first = sorted(line - start for start, line, _ in times)
            table.row(
                f"{name}, {count} empty jobs, round {number + 1}",
                a_job=ms(span * PLACES / count),
                dispatch=ms((span * PLACES - held) / count),
                to_user_code=f"{ms(statistics.median(first))} (worst {ms(first[-1])})",
                in_all=f"{time.time() - began:.1f} s",
            )


# --- waiting -------------------------------------------------------------------------------------


def cpu_share(folder: Path, seconds: float, ready: Callable[[], bool]) -> float:
    """CPU seconds a second of a sweep's driver and worker, from when it is `ready`."""
    sweep = subprocess.Popen([sys.executable, "-c", SWEEP, str(folder)], stdout=subprocess.DEVNULL)
    try:
        while not ready():
            time.sleep(0.1)
        time.sleep(3)
        family = [psutil.Process(sweep.pid), *psutil.Process(sweep.pid).children()]
        began, before = time.monotonic(), used(family)
        time.sleep(seconds)
        return (used(family) - before) / (time.monotonic() - began)
    finally:
        sweep.terminate()
        sweep.wait()


def used(processes: Sequence[psutil.Process]) -> float:
    """CPU seconds of processes so far."""
    return sum(p.cpu_times().user + p.cpu_times().system for p in processes)


def wait(table: Table, args: argparse.Namespace, scratch: Path) -> None:
    """A sweep that waits for a GPU, and one that waits for its job."""
    for count in (10, 1000):
        folder = Path(tempfile.mkdtemp(dir=scratch))
        for job in empty_jobs(folder, count, "sleep"):
            job.write()
        claimant = Claimant(Host(), "benchmark", names=["gpu-0"], each=1, sweep="b", since=0.0)
        claimant.lease()
        workers = folder / "workers"
        share = cpu_share(folder, args.seconds, lambda w=workers: bool(list(w.glob("*.beat"))))
        table.row(f"waits for a GPU, {count} jobs", CPU=f"{100 * share:.2f} %")
        claimant.close()
        running = folder / "00000" / "attempts" / "1.json"
        share = cpu_share(folder, args.seconds, running.exists)
        table.row(f"waits for its job, {count} jobs", CPU=f"{100 * share:.2f} %")


# --- ten thousand jobs ---------------------------------------------------------------------------


def queue(table: Table, args: argparse.Namespace, scratch: Path) -> None:
    """How long it takes to see where all stand, and to claim one."""
    for count in (10, 10_000):
        sweep = Path(tempfile.mkdtemp(dir=scratch))
        for job in empty_jobs(sweep, count):  # without waiting for the disk each time
            job.folder.mkdir()
            (job.folder / "spec.json").write_text(json.dumps(job.spec.as_record()))
        began = time.perf_counter()
        settings = WorkerSettings(sweeps=(sweep,))
        waiting = Queue(settings)
        opened = time.perf_counter() - began
        taken = []
        for _ in range(min(count, 100)):
            began = time.perf_counter()
            job = waiting.next()
            assert job is not None
            claim = take(job, **identity(), worker="w", worker_pid=os.getpid(), gpus="")
            waiting.drop()
            taken.append(time.perf_counter() - began)
            assert claim is not None
            record_end(job, claim, End("ok", 0))
        began = time.perf_counter()
        states = [standing(Job.load(folder)).state for folder in job_folders(sweep)]
        table.row(
            f"{count} jobs in a sweep",
            status=ms(time.perf_counter() - began),
            claim=f"{ms(statistics.median(taken))} (worst {ms(max(taken))})",
            queue_read=ms(opened),
        )
        assert states.count("done") == len(taken)


PARTS = {"compare": compare, "wait": wait, "queue": queue}


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=100, help="empty jobs of ours")
    parser.add_argument(
        "--rival_jobs", type=int, default=10, help="of each rival, which are slower"
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20.0, help="of looking at a waiting sweep")
    parser.add_argument("--rivals", default="", help="folders of pip install --target, as a path")
    parser.add_argument("--only", default=",".join(PARTS), help="of " + ", ".join(PARTS))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="launcher_benchmark_") as scratch:
        Path(scratch, "empty_jobs.py").write_text(JOBS)
        paths = [scratch, *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
        os.environ[FOLDER_VARIABLE] = str(Path(scratch, "host"))
        load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
        print(f"{os.cpu_count()} cores, load {load} at the start", flush=True)
        for part in args.only.split(","):
            PARTS[part](Table(), args, Path(scratch))
        print(f"load {', '.join(f'{one:.1f}' for one in os.getloadavg())} at the end")


if __name__ == "__main__":
    main()
