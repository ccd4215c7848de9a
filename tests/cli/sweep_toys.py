"""Sweeps of small jobs in processes of their own, for the tests of the commands.

python tests/cli/sweep_toys.py JOBS_FOLDER      sweep the jobs there, on CUDA_VISIBLE_DEVICES
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from launcher.jobs import Job, JobInterrupted, JobSpec, load_jobs
from launcher.local_orchestrator import LocalSweepOrchestrator

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def succeed(args, job):
    return os.getpid()


def fail(args, job):
    raise ValueError("a fault of mine")


def fail_without_a_file(args, job):
    """Fails until somebody makes the file that it needs."""
    return Path(args["dir"], "what is needed").read_text()


def wait(args, job):
    """Runs until the gate is there; prints and reports; stops early when asked, unless stubborn."""
    subprocess.Popen(["sleep", "300"])  # what a job starts must end with it
    step = 0
    while not Path(args["dir"], "gate").exists():
        step += 1
        print(f"line {step}", flush=True)
        told = {"completed": step, "total": 1000, "message": f"step {step}", "loss": 1 / step}
        job.report({**told, "evaluation": "e1_s42"})
        if job.stop_requested and not args.get("stubborn"):
            raise JobInterrupted(f"after step {step}")
        time.sleep(0.05)
    print("last line")


def leave_a_trace(args, job):
    Path(args["dir"], f"{job.spec.id} ran").touch()


def make_sweep(outputs, name, **jobs):
    """An experiment's folder in `outputs` with jobs: id to function, or to (function, args)."""
    experiment = (
        Path(outputs) / f"2026_11_27_10-00-{len(list(outputs.glob('2026*'))):02}_AbCde_{name}"
    )
    for job_id, what in jobs.items():
        function, args = (what, {}) if isinstance(what, str) else what
        args = {"dir": str(experiment), **args}
        spec = JobSpec(id=job_id, function=f"sweep_toys:{function}", args=args)
        Job(spec, experiment / "jobs" / job_id).write()
    return experiment


def start(experiment, gpus="0", **env):
    """Run a sweep in a process of its own."""
    return subprocess.Popen(
        [sys.executable, str(HERE / "sweep_toys.py"), str(experiment / "jobs")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**environment(), "CUDA_VISIBLE_DEVICES": gpus, **env},
    )


def environment():
    path = f"{HERE}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def command(*words):
    return [sys.executable, "-m", "oocr_influence.cli.main", *map(str, words)]


def oocr(*words, cwd=None, **env):
    """A command as typed."""
    return subprocess.run(
        command(*words),
        capture_output=True,
        text=True,
        env={**environment(), **env},
        cwd=cwd,
        timeout=120,
    )


def eventually(condition, seconds=30.0):
    """Wait for something to become true; what it returned, or a failure."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s")


def family_of(pid):
    """A process and all that it started, as long as they live."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def living(processes):
    def lives(process):
        try:
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return [process for process in processes if lives(process)]


if __name__ == "__main__":
    result = LocalSweepOrchestrator(load_jobs(Path(sys.argv[1]))).run()
    print(result.summary())
    sys.exit(0 if result.ok else 1)
