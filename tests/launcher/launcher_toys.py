"""Functions that the launcher's tests run as jobs.

python tests/launcher/launcher_toys.py JOBS_FOLDER [grace]     sweep the jobs there on 2 "GPUs"
"""

import atexit
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from launcher.jobs import JobInterrupted, load_jobs
from launcher.local_orchestrator import LocalSweepOrchestrator


def succeed(args, job):
    return {"pid": os.getpid(), "worker": os.getppid(), "draw": random.random()}


def environment(args, job):
    return {name: os.environ.get(name) for name in args["names"]}


def meet(args, job):
    """Succeeds only if so many jobs run at the same time."""
    place = Path(args["dir"], "meeting")
    place.mkdir(exist_ok=True)
    (place / job.spec.id).touch()
    deadline = time.monotonic() + 15
    while len(list(place.iterdir())) < args["of"]:
        if time.monotonic() > deadline:
            raise TimeoutError("the others did not come")
        time.sleep(0.01)
    return os.environ["CUDA_VISIBLE_DEVICES"]


def fail(args, job):
    print("about to fail")
    raise ValueError("a fault of mine")


def leave(args, job):
    print("leaving by the window")
    sys.stdout.flush()
    os._exit(3)


def shoot_self(args, job):
    print("goodbye")
    os.kill(os.getpid(), signal.SIGKILL)


def shoot_worker(args, job):
    """Kills the worker once only, with a process of its own left behind."""
    helper = subprocess.Popen(["sleep", "60"])
    Path(args["dir"], "helper").write_text(str(helper.pid))
    print("aiming", flush=True)
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


def leave_helper_behind(args, job):
    return subprocess.Popen(["sleep", "60"]).pid


def leave_forked_child_behind(args, job):
    """In a session of its own, and never executed: it has its parents' memory alone."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        time.sleep(60)
        os._exit(0)
    return pid


def tidy_up_slowly(args, job):
    def tidy():
        time.sleep(2.5)
        Path(args["dir"], "tidy").touch()

    atexit.register(tidy)


def temporary_folders(args, job):
    """One that the worker made while it imported, and one of the job's own, kept until its end."""
    import tempfile

    import launcher_temporary

    global own
    own = tempfile.TemporaryDirectory()
    return [Path(launcher_temporary.FOLDER.name).exists(), own.name]


def stop_process(args, job):
    """SIGSTOP for itself or its worker, the first time."""
    if job.state["attempt_number"] == 1:
        os.kill(os.getppid() if args["whom"] == "worker" else os.getpid(), signal.SIGSTOP)
        time.sleep(60)
    return job.state["attempt_number"]


def fill_the_disk(args, job):
    """To the last byte, and goes on telling how far it is; somebody empties it later."""
    with Path(args["ballast"]).open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue
    for step in range(20):
        print(f"step {step}, in more words than a page of the log has left" * 100)
        job.report({"completed": step})
        time.sleep(0.1)
    return "what took hours"


def unfit_result(args, job):
    return {"a set": {1}}


def count_to_99(args, job):
    """Reports faster than is written, and leaves work for the end of the process."""
    atexit.register(Path(args["dir"], "left in order").touch)
    for number in range(100):
        job.report({"completed": number})


def numpy_draw(args, job):
    import numpy

    return numpy.random.random()


def interrupted(args, job):
    raise JobInterrupted("saved at step 3")


def count_imports(args, job):
    import launcher_counted

    return {"pid": os.getpid(), "imported_by": launcher_counted.IMPORTED_BY}


def setting_at_import(args, job):
    import launcher_counted

    return launcher_counted.SETTING


def hang(args, job):
    """Reports once and then no more, the first time; succeeds the second."""
    if job.state["attempt_number"] == 1:
        job.report({"completed": 1})
        time.sleep(120)
    return job.args


def need_less(args, job):
    """Runs out of memory with more than two."""
    if args["batch"] > 2:
        raise OutOfMemoryError(f"{args['batch']} are too many")
    return args["batch"]


class OutOfMemoryError(RuntimeError):
    """As torch's."""


def wait(args, job):
    """Runs until the gate file is there, and stops early when asked."""
    helper = subprocess.Popen(["sleep", "120"])
    Path(args["dir"], f"{job.spec.id}.pids").write_text(
        f"{os.getppid()} {os.getpid()} {helper.pid}"
    )
    step = 0
    while not Path(args["dir"], "gate").exists():
        step += 1
        job.report({"completed": step, "total": 1000, "message": f"step {step}"})
        if job.stop_requested and not args.get("stubborn"):
            raise JobInterrupted(f"after step {step}")
        time.sleep(0.02)
    return "through the gate"


def own_after_takeover(args, job):
    """Says whether a job may save before and after somebody has given its attempt up."""
    from launcher.claims import end

    before = job.may_save()
    end(job.job, job.state, "lost", -9, error_message="given up")
    job.report({"message": "from beyond"})
    print(f"may save: {before}, then {job.may_save()}")


def sweep(folder, grace=10.0):
    before = signal.getsignal(signal.SIGTERM)
    jobs = load_jobs(Path(folder))
    result = LocalSweepOrchestrator(jobs, gpus=["0", "1"], grace=grace).run()
    assert signal.getsignal(signal.SIGTERM) is before
    print(result.summary())
    print("interrupted" if result.interrupted else "complete")
    return 0 if result.ok else 1


if __name__ == "__main__":
    sys.exit(sweep(sys.argv[1], *map(float, sys.argv[2:])))
