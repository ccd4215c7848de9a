"""The worker: one process that takes jobs of a sweep, each into its own child, until none is left.

    python -m launcher.jobs worker SWEEP/workers/TOKEN.json

It imports what the jobs want preloaded, once, and forks a child for each job, so that a job starts
warm while its memory, its crashes and its CUDA context end with it. It takes a job when it has a
GPU or a core for it, and writes everything to the ledger: nobody has to be there to listen.

Who dies with whom: the worker when its driver does, the child when its worker does.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial

from launcher.attempt import STOP_SIGNALS, End, record_end_once, signal_name
from launcher.child import Running, fork_job
from launcher.claims import exit_of, is_open, last_exit, take
from launcher.gpus import NO_GPU, used_by_strangers
from launcher.host import Host
from launcher.isolation import die_with_parent, output_to, warn_of_what_forks_badly
from launcher.jobs import TRY_AGAIN, Job
from launcher.leases import Claimant, Lease
from launcher.ledger import Record, identity, process_liveness, will_pass
from launcher.processes import WORKER_VARIABLE, AttemptMark, end_processes
from launcher.queue import Queue, refuse_foreign
from launcher.stopping import stop_asked
from launcher.worker_settings import WorkerFiles, WorkerSettings

LOOK = 1.0  # seconds between two looks at the running jobs and at whether to stop
ASK = 0.25  # seconds between two tries to get a GPU
PAUSE = 2.0  # seconds after a full disk until jobs are taken again
STACK_TIME = 1.0  # seconds that a hung job has to write where it hangs
STRANGERS_EVERY = 2.0  # seconds until a GPU that strangers used is looked at again


class Worker:
    """Takes jobs while it has places for them, and says in the ledger how they ended."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._files = WorkerFiles(settings)
        self._running: dict[int, Running] = {}
        self._ended: list[tuple[Job, Record, End]] = []
        self._mark = AttemptMark()
        self._pause_until = 0.0
        self._said = ""
        self._stopping = False
        self._firm = False
        self._interrupted = False
        self._look_at = 0.0
        self._wake, self._alarm = os.pipe()
        self._strangers: dict[str, float] = {}
        self._claimant: Claimant | None = None

    def serve(self) -> int:
        """Run jobs until there are none to take, or SIGTERM comes; the exit status."""
        for end in (self._wake, self._alarm):
            os.set_blocking(end, False)
        # SIGCHLD and the signals to stop wake the select() below through this pipe.
        signal.set_wakeup_fd(self._alarm, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in STOP_SIGNALS:
            signal.signal(number, lambda *_: self._stop())
        if (driver := self._settings.driver) is not None:
            die_with_parent(driver["pid"], signal.SIGTERM)
        os.environ[WORKER_VARIABLE] = self._settings.token
        self._files.event("started", self._settings.sweeps[0], **identity())
        self._files.beat()
        self._queue = Queue(self._settings)
        if self._settings.places:
            self._claimant = Claimant(
                Host(),
                self._settings.token,
                names=list(self._settings.places),
                each=self._settings.each,
                sweep=self._settings.sweep or self._settings.token,
                since=self._settings.since or time.time(),
                folder=str(self._settings.sweeps[0]),
            )
        try:
            while True:
                self._reap()
                self._conclude()
                wanting = not self._stopping and self._fill()
                if not self._running and (self._stopping or not (wanting or self._ended)):
                    break
                if time.monotonic() >= self._look_at:
                    self._look_at = time.monotonic() + LOOK
                    self._look_around()
                self._sleep(ASK if wanting or self._ended else LOOK)
        finally:
            for running in self._running.values():
                end_processes([running.claim["attempt"]])
            if self._claimant is not None:
                self._claimant.close()
        self._files.event("ended", self._settings.sweeps[0])
        return TRY_AGAIN if self._interrupted else 0

    # --- taking jobs -----------------------------------------------------------------------------

    def _fill(self) -> bool:
        """Take jobs while there are places; whether one waits for a place."""
        if time.monotonic() < self._pause_until:
            return True
        while len(self._running) < self._settings.at_once:
            try:
                job = self._queue.next()
                if job is None:
                    self._wants(0)
                    return False
                refuse_foreign(job, self._settings)
                self._preload(job.spec.preload)
                lease = self._lease()
                if lease is None:
                    self._wants(min(len(self._queue), self._settings.at_once - len(self._running)))
                    return True
                self._start(job, lease)
            except OSError as error:
                if not will_pass(error):
                    self._say(str(error))
                    self._queue.drop()
                    continue
                # Nothing is lost by waiting; and nobody else shall wait for us meanwhile.
                self._say(f"jobs cannot be taken now: {error}")
                self._pause_until = time.monotonic() + PAUSE
                self._wants(0)
                return True
        self._wants(0)
        return False

    def _say(self, text: str) -> None:
        """A line of the worker's log, once; a full disk may refuse it."""
        if text != self._said:
            self._said = text
            with contextlib.suppress(OSError):
                print(text, flush=True)

    def _wants(self, jobs: int) -> None:
        if self._claimant is not None:
            self._claimant.wants(jobs)

    def _lease(self) -> Lease | None:
        if self._claimant is None:
            return Lease(())
        while True:
            now = time.monotonic()
            seen = {gpu: at for gpu, at in self._strangers.items() if now - at < STRANGERS_EVERY}
            self._strangers = seen
            lease = self._claimant.lease(but=seen)
            if lease is None or self._settings.strangers == "use":
                return lease
            # Asked of what we hold: no process of ours, or of another sweep, is on it.
            leased = {name: self._settings.places[name] for name in lease.names}
            found = used_by_strangers(leased, ())
            if not found:
                return lease
            self._claimant.release(lease)
            self._strangers |= dict.fromkeys(found, now)

    def _start(self, job: Job, lease: Lease) -> None:
        gpus = ",".join(self._settings.places[name] for name in lease.names)
        if not self._settings.places:
            gpus = os.environ.get("CUDA_VISIBLE_DEVICES", NO_GPU)  # the engine's word
        claim = None
        try:
            # A GPU is named by the claim before its job can touch it.
            about = {"worker": self._settings.token, "worker_pid": os.getpid(), "gpus": gpus}
            about |= {"node": _node()} if _node() else {}
            claim = take(job, **identity(), **about)
        finally:
            if claim is None:
                self._release(lease)
        self._queue.drop()
        if claim is None:  # another worker was faster
            return
        try:
            # Only its lease goes with it, and nothing of ours to wake or to lock.
            keep = partial(self._claimant.become_job, lease) if self._claimant else None
            pid = fork_job(job, claim, self._mark, become_job=keep, close=(self._wake, self._alarm))
        except OSError as error:
            self._release(lease)
            why = f"could not be started: {error}"
            if not will_pass(error):
                self._ended.append((job, claim, End("failed", 1, error_message=why)))
                return
            # No memory for a child: it has not begun, and can go on.
            not_begun = End("interrupted", TRY_AGAIN, error_message=why, stop_requested=True)
            self._ended.append((job, claim, not_begun))
            raise
        running = Running(job, claim, pid, lease, sign_seen=time.monotonic())
        self._running[pid] = running
        if self._stopping:  # since before it was among the running
            running.ask_to_stop(0.0 if self._firm else self._settings.grace)
        number = claim["attempt_number"]
        self._files.event("taken", job.folder, attempt_number=number, gpus=gpus)

    def _release(self, lease: Lease) -> None:
        if self._claimant is not None:
            self._claimant.release(lease)

    def _preload(self, modules: Sequence[str]) -> None:
        """Import into this process; a failure is left to the child, which meets it again."""
        missing = [module for module in modules if module not in sys.modules]
        if not missing:
            return
        log = sys.stderr.fileno()
        with output_to(log), contextlib.suppress(Exception):
            for module in missing:
                importlib.import_module(module)
        with output_to(log):
            warn_of_what_forks_badly(missing)
        # A child that collects garbage would copy every page on which an object lies.
        gc.collect()
        gc.freeze()

    # --- looking after them ----------------------------------------------------------------------

    def _reap(self) -> None:
        """Settle the jobs whose processes have ended."""
        for running in list(self._running.values()):
            if os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                continue
            # Not yet reaped, so its number cannot be another's: end what it left running.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(running.pid, signal.SIGKILL)
            if stubborn := end_processes([running.claim["attempt"]]):
                self._say(f"{running.job.folder} left processes {stubborn} that do not end")
            code = os.waitstatus_to_exitcode(os.waitpid(running.pid, 0)[1])
            del self._running[running.pid]
            self._ended.append((running.job, running.claim, self._end_of(running, code)))
            self._release(running.lease)

    def _conclude(self) -> None:
        """What the children could not record, their exit status tells."""
        for job, claim, how in list(self._ended):
            number = claim["attempt_number"]
            try:
                if is_open(job.folder, number):
                    record_end_once(job, claim, how)
            except OSError as error:  # a full disk: tried again, while others are looked after
                self._say(f"the end of {job.folder} cannot be recorded now: {error}")
                continue
            self._ended.remove((job, claim, how))
            record = last_exit(job.folder) or {}
            self._interrupted |= record.get("status") == "interrupted"
            self._files.event("ended", job.folder, attempt_number=number)
            self._queue.back(job)

    def _end_of(self, running: Running, code: int) -> End:
        if running.hung:
            silence = f"no report for {running.job.spec.silence_limit:g} s; its stack is in the log"
            return End("hung", code, error_message=silence)
        stopped = running.asked and -code in (signal.SIGKILL, signal.SIGTERM)
        if code == TRY_AGAIN or stopped:
            return End("interrupted", TRY_AGAIN, stop_requested=running.asked)
        if code < 0:
            return End("failed", code, error_message=f"killed by {signal_name(-code)}")
        return End("failed", code, error_message="ended before its function returned")

    def _look_around(self) -> None:
        """Signs of life, ours and the jobs'; whether to stop; whose time has come."""
        self._files.beat(running=[str(r.job.folder) for r in self._running.values()])
        if self._claimant is not None:
            self._claimant.beat()
        asked = max((stop_asked(sweep) for sweep in self._settings.sweeps), default=0)
        if asked:
            self._stop(firm=asked > 1)
        if self._driver_is_gone():
            self._stop()
        for running in self._running.values():
            limit = running.job.spec.silence_limit
            if not is_open(running.job.folder, running.claim["attempt_number"]):
                self._see_out(running)
            elif limit is not None and running.silent_for() > limit and not running.hung:
                running.hung = True
                with contextlib.suppress(ProcessLookupError):
                    os.kill(running.pid, signal.SIGUSR2)
                running.deadline = time.monotonic() + STACK_TIME
            self._kill_if_late(running)

    def _see_out(self, running: Running) -> None:
        """One that has said its end may still tidy up; one that was given up goes at once."""
        if running.deadline is None:
            ended = exit_of(running.job.folder, running.claim["attempt_number"])
            given_up = ended is None or "said_by" in ended
            running.deadline = time.monotonic() + (0.0 if given_up else self._settings.grace)

    def _kill_if_late(self, running: Running) -> None:
        if running.deadline is not None and time.monotonic() >= running.deadline:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(running.pid, signal.SIGKILL)

    def _driver_is_gone(self) -> bool:
        # Where the kernel does not tell of its end, look for it.
        driver = self._settings.driver
        return driver is not None and process_liveness(driver) == "dead"

    def _stop(self, *, firm: bool = False) -> None:
        """Ask the jobs to stop, and take no more; `firm` gives them no time."""
        self._firm |= firm
        self._look_at = 0.0
        if not self._stopping:
            self._stopping = True
            for running in self._running.values():
                running.ask_to_stop(self._settings.grace)
        if self._firm:
            for running in self._running.values():
                running.deadline = 0.0

    def _sleep(self, seconds: float) -> None:
        """Until a child ends, a signal comes, or so many seconds have gone."""
        deadlines = [r.deadline for r in self._running.values() if r.deadline is not None]
        if deadlines:
            seconds = min(seconds, max(0.02, min(deadlines) - time.monotonic()))
            self._look_at = min(self._look_at, *deadlines)
        ready, _, _ = select.select([self._wake], [], [], seconds)
        if ready:
            os.read(self._wake, 4096)


def _node() -> str | None:
    """What an engine calls this machine, or the part of it that it gave us."""
    return os.environ.get("SLURMD_NODENAME") or os.environ.get("RAY_NODE_ID")
