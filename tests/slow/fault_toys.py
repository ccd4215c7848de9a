"""Jobs that notice what must never happen, and the sweep that a person starts, for test_faults.py.

python tests/slow/fault_toys.py SWEEP
"""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

from launcher.driver import Driver
from launcher.jobs import JobInterrupted, load_jobs
from launcher.ledger import create_record, identity, process_liveness, read_record, write_record
from launcher.local_engine import LocalEngine

STOPPED_LIMIT = 1.5  # seconds that a worker may stand stopped here


def steps(args, job):
    """Some steps on a GPU, saved one by one, by a process with a helper that hides from it."""
    arena, state = Path(args["arena"]), job.state
    helper = subprocess.Popen(["sleep", "300"], start_new_session=True)
    # A fork that nobody executed, in a session of its own.
    forked = os.fork()
    if forked == 0:
        os.setsid()
        time.sleep(300)
        os._exit(0)
    family = [identity(pid) for pid in (os.getpid(), helper.pid, forked)]
    hold(arena, os.environ["CUDA_VISIBLE_DEVICES"], {"job": job.spec.id, "family": family})
    saved = job.folder / "saved.json"
    step = (read_record(saved) or {"step": 0})["step"]
    while step < args["steps"]:
        time.sleep(args["seconds"])
        step += 1
        job.report({"completed": step, "total": args["steps"]})
        if job.may_save():
            with contextlib.suppress(OSError):  # a full disk: it goes on from an earlier step
                save(arena, saved, {"step": step, "attempt_number": state["attempt_number"]})
        if job.stop_requested:
            raise JobInterrupted(f"after step {step}")
    return {"step": step, "attempt": state["attempt"]}


def hold(arena, gpu, holder):
    """Nobody gives a GPU back here: who comes next must find the whole family before it dead."""
    path = arena / f"gpu-{gpu}.json"
    while not create_record(path, holder):
        before = read_record(path)
        alive = [m["pid"] for m in (before or {"family": []})["family"] if not is_dead(m)]
        if alive:
            cry(arena, f"GPU {gpu} held twice: {alive} of {before['job']}, and {holder}")
        with contextlib.suppress(FileNotFoundError):  # one of two that come at once succeeds
            path.rename(arena / f"before-{time.monotonic_ns()}")


def is_dead(member):
    return process_liveness(member) == "dead"


def save(arena, path, record):
    before = read_record(path) or record
    if before["attempt_number"] > record["attempt_number"]:
        cry(arena, f"{path}: {record} was saved over {before}")
    write_record(path, record, durable=False)


def cry(arena, text):
    with (arena / "violations").open("a") as file:
        file.write(text + "\n")


def main(sweep):
    engine = LocalEngine(stopped_limit=STOPPED_LIMIT)
    options = {"engine": engine, "grace": 2.0, "stopped_limit": STOPPED_LIMIT}
    gpus = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
    result = Driver(load_jobs(Path(sweep)), gpus=gpus, **options).run()
    print(result.summary(), flush=True)
    return 0 if result.ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
