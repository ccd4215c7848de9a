"""Four sweeps of five jobs on eight GPUs, while faults drawn from a seed are dealt to all of them.

    make slow                                            5 rounds, of the seeds 0 to 4
    make soak                                            50 rounds
    FAULT_SEED=17 pytest tests/slow/test_faults.py       from that seed on

Killed with -9 or stopped (SIGSTOP) are jobs, workers and orchestrators; the disk fills up; logs are
deleted. An orchestrator that has gone is started again, as a person would. The jobs look out for
the worst by themselves: each holds its GPU by a file, and whoever comes next must find the process
before it, and all that this one had started, dead.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
import warnings
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from launcher.claims import standing
from launcher.jobs import Job, JobSpec
from launcher.processes import MARK_VARIABLE, NO_ATTEMPT

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
SEEDS = range(
    first := int(os.environ.get("FAULT_SEED", 0)), first + int(os.environ.get("FAULT_ROUNDS", 5))
)
SWEEPS, JOBS, GPUS = 4, 5, 8
STEPS, STEP = 8, 0.12  # of a job; seconds
FAULTS, EVERY = 12, (0.1, 0.6)  # faults of a round; seconds from one to the next
KINDS = [("kill", role) for role in ("job", "worker", "driver")]
KINDS += [("stop", role) for role in ("job", "worker", "driver")]
KINDS += [("fill", "disk"), ("delete", "log")]
AWAY = 1.0  # seconds that the disk is full, or an orchestrator stopped
IDLE = 3.0  # seconds that a GPU may be free while a job waits, and that a fault may have effect
LIMIT = 90.0


@dataclass
class Round:
    """The sweeps of one seed, and what was done to them."""

    seed: int
    folder: Path
    full_disk: bool
    preload: tuple = ()
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    drivers: dict = field(default_factory=dict)
    dealt: list = field(default_factory=list)
    undo: list = field(default_factory=list)
    done: set = field(default_factory=set)
    starts: Counter = field(default_factory=Counter)

    def __post_init__(self):
        self.draw = random.Random(self.seed)
        self.arena, self.disk = self.folder / "arena", self.folder / "disk"
        self.arena.mkdir()
        self.jobs = []
        retried = {kind: {"retry": True, "limit": 99} for kind in ("lost", "hung", "-9")}
        for sweep in range(SWEEPS):
            for number in range(JOBS):
                spec = JobSpec(
                    id=f"job {number}",
                    function="fault_toys:steps",
                    args={"arena": str(self.arena), "steps": STEPS, "seconds": STEP},
                    on_exit=retried,
                    silence_limit=1.5,
                    preload=self.preload,
                )
                self.jobs.append(Job(spec, self.disk / f"sweep {sweep}" / spec.id))
                self.jobs[-1].write()
        paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "LAUNCHER_HOST_FOLDER": str(self.folder / "host"),
            "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(GPUS))),
            "OMP_NUM_THREADS": "1",
            "FAULT_ROUND": self.token,
        }

    # --- the person ------------------------------------------------------------------------------

    def start(self, sweep):
        self.starts[sweep] += 1
        with (self.arena / f"driver-{sweep}.log").open("ab") as log:
            self.drivers[sweep] = subprocess.Popen(
                [sys.executable, str(HERE / "fault_toys.py"), str(self.disk / f"sweep {sweep}")],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=self.env,
            )

    def look(self):
        """Start again what has gone; whether all has ended well."""
        for sweep, driver in self.drivers.items():
            code = driver.poll()
            if code == 0:
                self.done.add(sweep)
            elif code is not None and sweep not in self.done:
                self.start(sweep)
        return len(self.done) == SWEEPS

    def said(self):
        return "\n".join(path.read_text() for path in sorted(self.arena.glob("driver-*.log")))

    # --- the faults ------------------------------------------------------------------------------

    def deal(self):
        what, role = self.draw.choice(KINDS)
        which = self.draw.random()
        if what == "fill":
            if not self.full_disk or self.undo:
                return
            self.undo.append((time.time() + AWAY, (self.disk / "ballast").unlink))
            fill(self.disk / "ballast")
        elif what == "delete":
            found = sorted(job.log for job in self.jobs if job.log.exists())
            if found:
                found[int(which * len(found))].unlink()
        else:
            found = self.processes(role)
            if not found:
                return
            pid = found[int(which * len(found))]
            number = signal.SIGKILL if what == "kill" else signal.SIGSTOP
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            if (what, role) == ("stop", "driver"):
                self.undo.append((time.time() + AWAY, lambda: os.kill(pid, signal.SIGCONT)))
        self.dealt.append((round(time.time(), 2), what, role))

    def undo_what_is_over(self):
        for when, undo in list(self.undo):
            if time.time() >= when:
                self.undo.remove((when, undo))
                with contextlib.suppress(ProcessLookupError):
                    undo()
                self.dealt.append((time.time(), "undo", ""))

    def processes(self, role=None):
        """Those that have our token in their environment; of one role, or all."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                environment = process.environ()
                ended = process.status() == psutil.STATUS_ZOMBIE
                if environment.get("FAULT_ROUND") != self.token or ended:
                    continue
                command = process.cmdline()  # empty: it has ended since
                if command and role in (None, role_of(command, environment)):
                    found.append(process.pid)
        return sorted(found)


def role_of(command, environment):
    if command[0] == "sleep":
        return "helper"
    if "launcher.jobs" not in command:
        return "driver"
    return "worker" if environment.get(MARK_VARIABLE) == NO_ATTEMPT else "job"


def fill(ballast):
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 65536):
            pass


@pytest.fixture
def folder(tmp_path):
    """A folder whose `disk` can be filled, where a small one can be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(disk)]
    try:
        done = subprocess.run(mounting, capture_output=True, text=True)
    except FileNotFoundError as error:
        done = subprocess.CompletedProcess(mounting, 1, stderr=str(error))
    if done.returncode:
        warnings.warn(f"NO DISK IS FILLED in this test: {done.stderr}", stacklevel=2)
    yield tmp_path, not done.returncode
    if not done.returncode:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_doubled_or_left_behind(folder, seed):
    here = Round(seed, *folder)
    began = time.time()
    try:
        with ended_with(here):
            run_round(here, began, faults=FAULTS)
            check(here, began)
    except BaseException:
        print(f"seed {seed}: {here.dealt}\n" + here.said())
        raise
    told = Counter(f"{what} {role}".strip() for _, what, role in here.dealt)
    tries = sum(standing(job).number for job in here.jobs)
    print(f"seed {seed}: {time.time() - began:.1f} s, {tries} attempts, {dict(told)}")


@contextlib.contextmanager
def ended_with(here):
    """A failed round leaves no process either."""
    try:
        yield
    finally:
        for pid in here.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for driver in here.drivers.values():
            driver.wait()


def run_round(here, began, *, faults):
    for sweep in range(SWEEPS):
        here.start(sweep)
    next_fault, left = began + 1.0, faults
    while not here.look():
        assert time.time() - began < LIMIT, "the sweeps do not end"
        here.undo_what_is_over()
        if left and time.time() >= next_fault:
            here.deal()
            left -= 1
            next_fault = time.time() + here.draw.uniform(*EVERY)
        time.sleep(0.03)


def check(here, began):
    violations = here.arena / "violations"
    assert not violations.exists(), violations.read_text()
    ends = {job.folder: records_of(job) for job in here.jobs}
    for job in here.jobs:
        assert standing(job).state == "done", job.folder
        claims, exits = ends[job.folder]
        ok = [number for number, record in exits.items() if record["status"] == "ok"]
        assert ok == [max(claims)], "published once, and nothing was taken afterwards"
        assert exits[ok[0]]["result"] == {"step": STEPS, "attempt": claims[ok[0]]["attempt"]}
        assert sorted(claims) == sorted(exits) == list(range(1, len(claims) + 1))
    deadline = time.time() + 5
    while (orphans := here.processes()) and time.time() < deadline:
        time.sleep(0.05)
    assert orphans == [], [psutil.Process(pid).cmdline() for pid in orphans]
    faults = [when for when, _, _ in here.dealt]
    spans = idle_spans(list(ends.values()), began, faults)
    assert spans == [], f"GPUs idle while jobs waited: {spans}; faults: {here.dealt}"


def records_of(job):
    """The claims and the exit records by their numbers, read without the code under test."""
    claims, exits = {}, {}
    for path in (job.folder / "attempts").glob("[0-9]*.json"):
        number, *kind = path.name.removesuffix(".json").split(".")
        {"": claims, "exit": exits}["".join(kind)][int(number)] = json.loads(path.read_text())
    return claims, exits


def idle_spans(ends, began, faults):
    """Spans (start, seconds) in which a job waited beside a free GPU, and no fault was the reason.

    From the time stamps of claims and ends alone.
    """
    changes = [(began, 0, len(ends))]
    for claims, exits in ends:
        for number, claim in claims.items():
            taken, ended = (
                datetime.fromisoformat(r[key]).timestamp()
                for r, key in ((claim, "started_at"), (exits[number], "ended_at"))
            )
            again = exits[number]["status"] != "ok"
            changes += [(taken, 1, -1), (ended, -1, int(again))]
    spans, open_attempts, waiting, since = [], 0, 0, None
    for when, opened, more in sorted(changes):
        open_attempts, waiting = open_attempts + opened, waiting + more
        if open_attempts < GPUS and waiting > 0:
            since = when if since is None else since
        elif since is not None:
            spans, since = [*spans, (since, when)], None
    assert since is None, "all jobs have ended"
    return [
        (round(start - began, 2), round(end - start, 2))
        for span in spans
        for start, end in without(span, sorted([began, *faults]))
        if end - start > IDLE
    ]


def without(span, faults):
    """What is left of a span where each fault may have effect for a while."""
    start, end = span
    for fault in faults:
        if start < fault:
            yield start, min(fault, end)
        start = max(start, fault + IDLE)
        if start >= end:
            return
    yield start, end


def test_a_gpu_leased_twice_is_found(folder):
    """The jobs' own watch can fail: with locks that lock nothing."""
    here = Round(0, *folder, preload=("fault_planted",))
    with ended_with(here):
        run_round(here, time.time(), faults=0)
        with pytest.raises(AssertionError, match="held twice"):
            check(here, time.time())


def test_idle_gpus_are_found():
    """The check above can fail: one job is taken five seconds after a GPU was free for it."""

    def at(second):
        return datetime.fromtimestamp(1000 + second).astimezone().isoformat()

    def ran(start, end):
        return {1: {"started_at": at(start)}}, {1: {"ended_at": at(end), "status": "ok"}}

    early = [ran(0.5, 2.0) for _ in range(GPUS)]
    assert idle_spans([*early, ran(2.2, 3.0)], 1000, []) == []
    assert idle_spans([*early, ran(9.0, 10.0)], 1000, []) == [(3.0, 6.0)]
    assert idle_spans([*early, ran(9.0, 10.0)], 1000, [1004.0]) == []
    assert idle_spans([*early, ran(9.0, 10.0)], 1000, [1001.5]) == [(4.5, 4.5)]
