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
import traceback
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from launcher.jobs import TRY_AGAIN, Job, JobInterrupted, RunningJob
from launcher.ledger import (
    EXIT_FILE,
    STATE_FILE,
    Record,
    identity,
    is_alive,
    last_lines,
    read_exit,
    read_state,
    seconds_since,
    utc_now,
    write_record,
)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


@dataclass(frozen=True)
class End:
    """How an attempt ended."""

    status: Literal["ok", "failed", "interrupted"]
    exit_code: int
    result: Any = None
    error_type: str = ""
    error_message: str = ""
    stop_requested: bool = False


def refusal(job: Job) -> str | None:
    """Why the job must not be started now, or None."""
    state = read_state(job.folder)
    if state is not None and is_alive(state):
        return f"is being run by process {state['pid']}"
    return None


def begin(job: Job) -> Record:
    """Take the job: an earlier failure's record goes, state.json names this attempt and process."""
    before = read_state(job.folder) or {}
    # Gone first: a new attempt beside the record of an old one would count as done.
    (job.folder / EXIT_FILE).unlink(missing_ok=True)
    number = int(before.get("attempt_number", 0)) + 1
    started_at = utc_now()
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
    title = (
        f"=== attempt {number} of {job.spec.id}, {started_at}, CUDA_VISIBLE_DEVICES={gpus!r} ===\n"
    )
    with job.log.open("ab") as log:
        log.write(title.encode())
        offset = log.tell()
    state = {
        "status": "starting",
        "attempt": uuid.uuid4().hex,
        "attempt_number": number,
        **identity(),
        "worker": os.getpid(),
        "gpus": gpus,
        "started_at": started_at,
        "log_offset": offset,
        "report": {},
    }
    write_record(job.folder / STATE_FILE, state)
    return state


def record_end(job: Job, attempt: Record, end: End) -> bool:
    """Write how the attempt ended; False, and nothing written, where it no longer owns the job."""
    state = read_state(job.folder) or {}
    if state.get("attempt") != attempt["attempt"]:
        return False
    write_record(job.folder / STATE_FILE, {**state, "status": end.status, "ended_at": utc_now()})
    if end.status == "interrupted":
        return True
    error = None
    if end.status == "failed":
        lines = last_lines(job.log, offset=int(state.get("log_offset", 0)))
        error = {"type": end.error_type or None, "message": end.error_message, "last_lines": lines}
    record = {
        "status": end.status,
        "exit_code": end.exit_code,
        "signal": signal_name(-end.exit_code) if end.exit_code < 0 else None,
        "result": end.result,
        "error": error,
        "attempt": state["attempt"],
        "attempt_number": state["attempt_number"],
        "started_at": state["started_at"],
        "ended_at": utc_now(),
        "seconds": round(seconds_since(state["started_at"]), 3),
    }
    write_record(job.folder / EXIT_FILE, record)
    return True


def signal_name(number: int) -> str:
    """SIGKILL for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def run_attempt(job: Job, attempt: Record) -> End:
    """Call the job's function in this process and record how it ended.

    Standard output and error already lead to the job's log.
    """
    state = {**attempt, **identity(), "status": "running"}
    write_record(job.folder / STATE_FILE, state)
    running = RunningJob(job, state)
    with _stop_signals_to(running):
        try:
            end = _call(running)
        finally:
            running.close()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        # Through the file, so that the last report is in what record_end keeps.
        if running.may_save():
            write_record(job.folder / STATE_FILE, running.state, durable=False)
        # Still deaf to SIGTERM: a function that came to its end is not called interrupted.
        record_end(job, attempt, end)
    return replace(end, stop_requested=end.stop_requested or running.stop_requested)


def _call(running: RunningJob) -> End:
    """The function's result as an `End`; its traceback is printed here, hence in the log."""
    try:
        for module in running.spec.preload:
            importlib.import_module(module)
        result = find_function(running.spec.function)(dict(running.spec.args), running)
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


def run_here(job: Job) -> End:
    """Run a job in this very process, where a breakpoint works; its output goes to its log too."""
    if why_not := refusal(job):
        raise RuntimeError(f"{job.folder} {why_not}")
    attempt = begin(job)
    before = {key: os.environ.get(key) for key in job.spec.env}
    os.environ.update(job.spec.env)
    try:
        with (
            job.log.open("a", encoding="utf-8", errors="replace", buffering=1) as log,
            contextlib.redirect_stdout(Tee(sys.stdout, log)),
            contextlib.redirect_stderr(Tee(sys.stderr, log)),
        ):
            return run_attempt(job, attempt)
    finally:
        restore_environment(before)


def restore_environment(before: dict[str, str | None]) -> None:
    """Put environment variables back to what they were; None means that it was not set."""
    for key, value in before.items():
        if value is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = value


def done_before(job: Job) -> Record | None:
    """The exit record of a job that has already ended well."""
    record = read_exit(job.folder)
    return record if record is not None and record["status"] == "ok" else None
