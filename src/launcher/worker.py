"""The worker: one process a slot of GPUs that runs one job after another, each in its own child.

    python -m launcher.jobs worker     job folders on stdin, one a line (as JSON text, or plain)

The worker imports what the jobs want preloaded, once, and forks a child for each job, so that a
job starts warm while its memory, its crashes and its CUDA context end with it. It answers each job
with one JSON line on what was its standard output.

Who dies with whom: the worker when its orchestrator does, the child when its worker does.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from launcher.attempt import (
    STOP_SIGNALS,
    End,
    begin,
    done_before,
    record_end,
    refusal,
    run_attempt,
    run_here,
    signal_name,
)
from launcher.isolation import (
    become_fresh_process,
    die_with_parent,
    output_to,
    run_exit_functions,
    warn_of_what_forks_badly,
)
from launcher.jobs import TRY_AGAIN, Job
from launcher.ledger import Record, read_exit


class Worker:
    """Reads job folders, runs each in a child, answers each with one line."""

    def __init__(self, *, answers: int, grace: float, parent: int | None) -> None:
        self._answers = answers
        self._grace = grace
        self._parent = parent
        self._stopping = False
        self._input = b""
        self._ended = False  # no more lines will come
        self._wake, self._alarm = os.pipe()

    def serve(self) -> int:
        """Run jobs until the input ends or SIGTERM comes."""
        for end in (self._wake, self._alarm):
            os.set_blocking(end, False)
        # SIGCHLD and SIGTERM wake the select() below through this pipe.
        signal.set_wakeup_fd(self._alarm, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._stop())
        if self._parent is not None:
            die_with_parent(self._parent, signal.SIGTERM)
        while (line := self._next_line()) is not None:
            self._answer(line, self._run(line))
        return 0

    def _stop(self) -> None:
        self._stopping = True

    def _next_line(self) -> str | None:
        while not self._stopping:
            line, newline, rest = self._input.partition(b"\n")
            if newline or (self._ended and line):
                self._input = rest
                if line.strip():
                    return os.fsdecode(line.strip())
            elif self._ended:
                return None
            else:
                self._listen(None)
        return None

    def _listen(self, seconds: float | None) -> None:
        """Wait for input, a signal, or so many seconds."""
        watched = [self._wake] if self._ended else [self._wake, 0]
        if self._ended and self._parent is not None:
            # Where the kernel does not tell of the orchestrator's end, look for it.
            if os.getppid() != self._parent:
                self._stop()
            seconds = 0.5 if seconds is None else min(seconds, 0.5)
        ready, _, _ = select.select(watched, [], [], seconds)
        if self._wake in ready:
            os.read(self._wake, 4096)
        if 0 in ready:
            data = os.read(0, 65536)
            self._input += data
            self._ended = not data

    def _answer(self, asked: str, answer: Record) -> None:
        line = json.dumps({"asked": asked, **answer}) + "\n"
        with contextlib.suppress(BrokenPipeError):  # the orchestrator is gone; the ledger has it
            os.write(self._answers, line.encode())

    def _run(self, line: str) -> Record:
        """One job from its folder to its answer; whatever goes wrong is the job's, not ours."""
        try:
            # A path may hold a newline, so the orchestrator writes it as JSON; a person need not.
            folder = json.loads(line) if line.startswith('"') else line
            job = Job.load(Path(folder))
            if record := done_before(job):
                return {"status": "ok", "exit_code": 0, "attempt": record["attempt"]}
            if why_not := refusal(job):
                return {"status": "failed", "exit_code": 1, "refused": f"{job.folder} {why_not}"}
            attempt = begin(job)
            with job.log.open("ab", buffering=0) as log:
                self._preload(job.spec.preload, log.fileno())
                if self._stopping:
                    code = TRY_AGAIN
                else:
                    code = self._wait(self._fork(job, attempt, log.fileno()))
            return self._conclude(job, attempt, code)
        except Exception as error:
            traceback.print_exc()
            return {
                "status": "failed",
                "exit_code": 1,
                "refused": f"{type(error).__name__}: {error}",
            }

    def _preload(self, modules: Sequence[str], log: int) -> None:
        """Import into this process; a failure is left to the child, which meets it again."""
        missing = [module for module in modules if module not in sys.modules]
        if not missing:
            return
        with output_to(log), contextlib.suppress(Exception):
            for module in missing:
                importlib.import_module(module)
        with output_to(log):
            warn_of_what_forks_badly(missing)

    def _fork(self, job: Job, attempt: Record, log: int) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        worker = os.getpid()
        # Held back until the child has its own handlers: a stop sent now must reach the job.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        pid = os.fork()
        if pid == 0:
            self._child(job, attempt, log, worker)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        with contextlib.suppress(OSError):  # the child does it too; whoever comes first
            os.setpgid(pid, pid)
        return pid

    def _child(self, job: Job, attempt: Record, log: int, worker: int) -> NoReturn:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            die_with_parent(worker, signal.SIGKILL)
            # A group of its own: whatever the job starts can be ended with it, and Ctrl-C in the
            # terminal reaches the orchestrator alone.
            os.setpgid(0, 0)
            nothing = os.open(os.devnull, os.O_RDONLY)
            for standard, source in enumerate((nothing, log, log)):
                os.dup2(source, standard)
            for descriptor in (self._answers, self._wake, self._alarm, nothing, log):
                os.close(descriptor)
            become_fresh_process(attempt["attempt"])
            end = run_attempt(job, attempt)
            code = end.exit_code
            run_exit_functions()
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            # Not sys.exit: the worker's own frames lie below us on the stack.
            os._exit(code)

    def _wait(self, pid: int) -> int:
        """The child's exit status; negative for the signal that killed it."""
        deadline = None
        while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            now = time.monotonic()
            if self._stopping and deadline is None:
                deadline = now + self._grace
                os.kill(pid, signal.SIGTERM)  # the job alone: what it started, it may still need
            if deadline is not None and now >= deadline:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
                self._listen(0.05)
            else:
                self._listen(None if deadline is None else deadline - now)
        # Not yet reaped, so its number cannot be another's: end what it left running.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def _conclude(self, job: Job, attempt: Record, code: int) -> Record:
        """What the child recorded, or, where it could not, what its exit status tells."""
        record = read_exit(job.folder)
        if record is not None and record["attempt"] == attempt["attempt"]:
            return {k: record[k] for k in ("status", "exit_code", "attempt")}
        killed_while_stopping = self._stopping and -code in (signal.SIGKILL, signal.SIGTERM)
        if code == TRY_AGAIN or killed_while_stopping:
            end = End("interrupted", TRY_AGAIN)
        elif code < 0:
            end = End("failed", code, error_message=f"killed by {signal_name(-code)}")
        else:
            end = End("failed", code, error_message="ended before its function returned")
        record_end(job, attempt, end)
        return {"status": end.status, "exit_code": end.exit_code, "attempt": attempt["attempt"]}


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of `python -m launcher.jobs`."""
    parser = argparse.ArgumentParser(prog="python -m launcher.jobs", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run one job here, in the foreground")
    run.add_argument("folder", type=Path)
    run.add_argument("--again", action="store_true", help="even if it has ended well before")
    worker = commands.add_parser("worker", help="run the job folders named on stdin, one a line")
    worker.add_argument("--grace", type=float, default=10.0, help="seconds to stop in (10)")
    worker.add_argument("--parent", type=int, default=None, help="die with this parent process")
    args = parser.parse_args(argv)
    if args.command == "run":
        job = Job.load(args.folder)
        if done_before(job) and not args.again:
            print(f"{args.folder} has ended well; --again runs it once more", file=sys.stderr)
            return 0
        return run_here(job).exit_code
    # The answers keep standard output to themselves; what anyone prints goes to standard error.
    answers = os.dup(1)
    os.dup2(2, 1)
    return Worker(answers=answers, grace=args.grace, parent=args.parent).serve()
