"""A job's own process: forked off a worker, warm, with nothing else of the worker's in it."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from launcher.attempt import STOP_SIGNALS, run_attempt
from launcher.isolation import become_fresh_process, die_with_parent, run_exit_functions
from launcher.jobs import Job
from launcher.leases import Lease
from launcher.ledger import STATE_FILE, Record
from launcher.processes import AttemptMark


@dataclass
class Running:
    """A job in its child."""

    job: Job
    claim: Record
    pid: int
    lease: Lease
    sign: int = 0
    """When state.json last changed, by the file's own time."""
    sign_seen: float = 0.0
    """When we saw that, by our clock."""
    deadline: float | None = None
    """When it is killed, if it has not ended by then."""
    hung: bool = False
    asked: bool = False

    def ask_to_stop(self, grace: float) -> None:
        """SIGTERM to the job alone: what it started, it may still need."""
        self.asked = True
        self.deadline = time.monotonic() + grace
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def silent_for(self) -> float:
        """Seconds since its last report, as far as we have seen."""
        with contextlib.suppress(OSError):
            stamp = (self.job.folder / STATE_FILE).stat().st_mtime_ns
            if stamp != self.sign:
                self.sign, self.sign_seen = stamp, time.monotonic()
        return time.monotonic() - self.sign_seen


def fork_job(
    job: Job,
    claim: Record,
    mark: AttemptMark,
    *,
    become_job: Callable[[], None] | None,
    close: Sequence[int],
) -> int:
    """The id of a new process that runs the claimed job, its output in the job's log.

    There `become_job` is called, and the descriptors of `close` are closed. OSError where no
    process can be had.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    worker = os.getpid()
    log = os.open(job.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    # Held back until the child has its own handlers: a stop sent now must reach the job.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        pid = os.fork()
        if pid == 0:
            _run(job, claim, mark, become_job, (*close, log), log, worker)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        os.close(log)
    with contextlib.suppress(OSError):  # the child does it too; whoever comes first
        os.setpgid(pid, pid)
    return pid


def _run(
    job: Job,
    claim: Record,
    mark: AttemptMark,
    become_job: Callable[[], None] | None,
    close: Sequence[int],
    log: int,
    worker: int,
) -> NoReturn:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        die_with_parent(worker, signal.SIGKILL)
        # A group of its own: whatever the job starts can be ended with it, and Ctrl-C in the
        # terminal reaches the driver alone.
        os.setpgid(0, 0)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for standard, source in enumerate((nothing, log, log)):
            os.dup2(source, standard)
        for descriptor in (*close, nothing):
            os.close(descriptor)
        if become_job is not None:
            become_job()
        os.environ["CUDA_VISIBLE_DEVICES"] = claim["gpus"]
        become_fresh_process()
        mark.set(claim["attempt"])
        faulthandler.register(signal.SIGUSR2, all_threads=True)
        code = run_attempt(job, claim).exit_code
        run_exit_functions()
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        # Not sys.exit: the worker's own frames lie below us on the stack.
        os._exit(code)
