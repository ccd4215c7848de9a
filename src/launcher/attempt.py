"""One attempt at one job: take it, call its function, record how it ended.

Used alike by a worker's child, by `python -m launcher.jobs run` and by the in-process twin, so the
files are the same whoever ran the job.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from launcher.claims import as_state, end, is_open, last_claim, standing, take
from launcher.jobs import TRY_AGAIN, Job, JobInterrupted, RunningJob
from launcher.ledger import STATE_FILE, Record, identity, liveness, write_record
from launcher.processes import WORKER_VARIABLE, end_processes

FULL_DISK = 0.5  # seconds between two tries to record an end
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


@dataclass(frozen=True)
class End:
    """How an attempt ended."""

    status: Literal["ok", "failed", "interrupted", "lost", "hung"]
    exit_code: int
    result: Any = None
    error_type: str = ""
    error_message: str = ""
    stop_requested: bool = False


def refusal(job: Job) -> str | None:
    """Why the job cannot be taken now, or None."""
    now = standing(job)
    if now.state != "open":
        return None
    claim = last_claim(job.folder) or {}
    alive = liveness({"status": "running", **claim})
    where = f"process {claim.get('pid')} on {claim.get('host')}"
    return f"is being run by {where}" + ("" if alive == "alive" else ", which cannot be asked")


def give_up(job: Job, claim: Record, why: str) -> Record | None:
    """End an attempt whose worker is gone; None where it has ended by itself, or will not die.

    What it left running on this machine is killed first, so that its successor is alone.
    """
    tokens = {claim["attempt"], claim.get("worker")} - {None, os.environ.get(WORKER_VARIABLE)}
    if end_processes(tokens):
        return None
    return end(job, claim, "lost", -signal.SIGKILL, error_message=why, said_by=identity())


def settle_if_dead(job: Job) -> None:
    """Give up the open attempt of a job if the process that took it is known to be dead."""
    claim = last_claim(job.folder)
    if claim is None or standing(job).state != "open":
        return
    if liveness({"status": "running", **claim}) == "dead":
        give_up(job, claim, "its process ended without a word")


def record_end(job: Job, claim: Record, ended: End) -> bool:
    """Record how this attempt ended; False, and nothing written, where another has ended it.

    Waits out a full disk: what a job took hours to find is not thrown away for a kilobyte.
    """
    while True:
        try:
            return record_end_once(job, claim, ended)
        except OSError as error:
            with contextlib.suppress(OSError):
                print(f"cannot record the end of {job.spec.id} ({error})", file=sys.stderr)
            with contextlib.suppress(OSError):  # who waits for a disk does not hang
                os.utime(job.folder / STATE_FILE)
            time.sleep(FULL_DISK)


def record_end_once(job: Job, claim: Record, ended: End) -> bool:
    """As `record_end`, but raises OSError where the record cannot be written now."""
    number = -ended.exit_code
    record = end(
        job,
        claim,
        ended.status,
        ended.exit_code,
        result=ended.result,
        error_type=ended.error_type,
        error_message=ended.error_message,
        signal=signal_name(number) if number > 0 else None,
        stop_requested=ended.stop_requested,
    )
    return record is not None


def signal_name(number: int) -> str:
    """SIGKILL for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def run_attempt(job: Job, claim: Record) -> End:
    """Call the job's function in this process and record how it ended.

    Standard output and error already lead to the job's log.
    """
    state = {**as_state(claim, "running"), **identity()}
    with contextlib.suppress(OSError):  # a full disk is no reason not to begin
        write_record(job.folder / STATE_FILE, state, durable=False)
    running = RunningJob(job, state)
    with _stop_signals_to(running):
        try:
            ended = _call(running)
        finally:
            running.close()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # what was printed is not worth a result
                stream.flush()
        # Through the file, so that the last report is in what `end` keeps.
        if is_open(job.folder, claim["attempt_number"]):
            with contextlib.suppress(OSError):
                write_record(job.folder / STATE_FILE, running.state, durable=False)
        asked = ended.stop_requested or running.stop_requested
        ended = replace(ended, stop_requested=asked)
        # Still deaf to SIGTERM: a function that came to its end is not called interrupted.
        record_end(job, claim, ended)
    return ended


def _call(running: RunningJob) -> End:
    """The function's result as an `End`; its traceback is printed here, hence in the log."""
    try:
        for module in running.spec.preload:
            importlib.import_module(module)
        result = find_function(running.spec.function)(running.args, running)
        _check_result(result)
    except JobInterrupted as stop:
        print(f"interrupted: {stop}" if str(stop) else "interrupted", file=sys.stderr)
        return End("interrupted", TRY_AGAIN)
    except KeyboardInterrupt:
        traceback.print_exc()
        return End("interrupted", TRY_AGAIN, stop_requested=True)
    except SystemExit as leaving:
        return _end_of_exit(leaving)
    except BaseException as error:
        # Without our own frame: the reader looks for the function's.
        frames = error.__traceback__.tb_next if error.__traceback__ else None
        traceback.print_exception(error.with_traceback(frames))
        return End("failed", 1, None, type(error).__name__, str(error))
    return End("ok", 0, result)


def _check_result(result: Any) -> None:
    try:
        json.dumps(result)
    except (TypeError, ValueError) as error:
        raise TypeError(f"the function returned what JSON cannot hold: {error}") from None


def _end_of_exit(leaving: SystemExit) -> End:
    code = leaving.code
    if code is None or code == 0:
        return End("ok", 0)
    if code == TRY_AGAIN:
        return End("interrupted", TRY_AGAIN)
    if not isinstance(code, int):
        print(code, file=sys.stderr)
        return End("failed", 1, None, "SystemExit", str(code))
    return End("failed", code & 0xFF, None, "SystemExit", f"the function left with {code}")


def find_function(name: str) -> Callable[[dict[str, Any], RunningJob], Any]:
    """The function that `module:function` names."""
    module_name, _, path = name.partition(":")
    found: Any = importlib.import_module(module_name)
    for part in path.split("."):
        if not hasattr(found, part):
            raise ValueError(f"job function {name!r}: {module_name} has no {path!r}")
        found = getattr(found, part)
    if not callable(found):
        raise ValueError(f"job function {name!r} is not callable")
    return found  # type: ignore[no-any-return]


@contextlib.contextmanager
def _stop_signals_to(running: RunningJob) -> Iterator[None]:
    """SIGTERM and SIGUSR1 ask the job to stop; what stood before is put back."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets only the main thread handle signals
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: running.request_stop())
    # A worker blocks them around its fork, so that none is lost before the handlers are there.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


class Tee:
    """A text stream that also writes to a file; everything else is the stream's own."""

    def __init__(self, stream: Any, file: Any) -> None:
        self._stream = stream
        self._file = file

    def write(self, text: str) -> int:
        self._file.write(text)
        return int(self._stream.write(text))

    def flush(self) -> None:
        self._file.flush()
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def run_here(job: Job, **about: Any) -> End:
    """Run a job in this very process, where a breakpoint works; its output goes to its log too.

    `about` is kept in the claim. Raises RuntimeError where the job cannot be taken.
    """
    settle_if_dead(job)
    claim = take(job, **identity(), worker=None, worker_pid=os.getpid(), **about)
    if claim is None:
        raise RuntimeError(f"{job.folder} {refusal(job) or 'is not there to be taken'}")
    before = {key: os.environ.get(key) for key in job.spec.env}
    os.environ.update(job.spec.env)
    try:
        with (
            job.log.open("a", encoding="utf-8", errors="replace", buffering=1) as log,
            contextlib.redirect_stdout(Tee(sys.stdout, log)),
            contextlib.redirect_stderr(Tee(sys.stderr, log)),
        ):
            return run_attempt(job, claim)
    finally:
        restore_environment(before)


def restore_environment(before: dict[str, str | None]) -> None:
    """Put environment variables back to what they were; None means that it was not set."""
    for key, value in before.items():
        if value is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = value
