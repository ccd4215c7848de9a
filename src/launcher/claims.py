"""Who may run a job, and who may say how it ended: one at a time, whoever dies.

    attempts/1.json         attempt 1 was taken: by which worker, when, on which GPUs
    attempts/1.exit.json    how it ended: said by itself, or by whoever found it dead
    attempts/1.retry.json   somebody wants the job to be tried again although this one failed

Each of these is created by `create_record`, which succeeds for one caller alone and for ever. An
attempt is open until it has its exit record, and the next can be taken only then. So an attempt
that was given up, and comes back from a stopped process or a lost network, finds its exit record
written by another and publishes nothing: no clock, no lock and no server is asked.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from launcher.ledger import (
    ATTEMPTS,
    EXIT_FILE,
    STATE_FILE,
    Record,
    create_record,
    last_lines,
    read_record,
    seconds_since,
    utc_now,
    write_record,
)
from launcher.retries import OnExit, next_try

State = Literal["waiting", "open", "done", "failed"]


class Spec(Protocol):
    """What counts here of a job's spec."""

    @property
    def id(self) -> str: ...

    @property
    def on_exit(self) -> OnExit: ...


class Job(Protocol):
    """What counts here of a `launcher.jobs.Job`."""

    @property
    def folder(self) -> Path: ...

    @property
    def log(self) -> Path: ...

    @property
    def spec(self) -> Spec: ...


@dataclass(frozen=True)
class Standing:
    """Where a job stands, from its records alone."""

    state: State
    """waiting to be taken; open: an attempt has no exit record yet; done; failed for good."""
    number: int = 0
    """The last attempt's, from 1; 0 before the first."""
    exit: Record | None = None
    """The last attempt's exit record."""
    patch: Mapping[str, Any] | None = None
    """Changed arguments of the next attempt."""


def standing(job: Job) -> Standing:
    """Where the job stands now."""
    number, names = _last(job.folder)
    if number == 0:
        return _before_attempts(job.folder)
    if f"{number}.exit.json" not in names:
        return Standing("open", number)
    ended = read_record(job.folder / ATTEMPTS / f"{number}.exit.json")
    if ended is None:  # deleted meanwhile, by a person
        return Standing("open", number)
    if f"{number}.retry.json" in names:
        return Standing("waiting", number, ended)
    if ended["status"] == "ok":
        return Standing("done", number, ended)
    patch = next_try(job.spec.on_exit, _tries(job.folder, number, names, ended))
    if patch is None:
        return Standing("failed", number, ended)
    return Standing("waiting", number, ended, patch)


def take(job: Job, **about: Any) -> Record | None:
    """Take the job for one attempt; its claim, or None where it is not there to be taken.

    `about` is kept in the claim: the worker, its process, the GPUs.
    """
    now = standing(job)
    if now.state != "waiting":
        return None
    number = now.number + 1
    (job.folder / ATTEMPTS).mkdir(exist_ok=True)
    taken_at, gpus = utc_now(), about.get("gpus")
    title = (
        f"=== attempt {number} of {job.spec.id}, {taken_at}, CUDA_VISIBLE_DEVICES={gpus!r} ===\n"
    )
    # Nobody else writes there now: the attempt before has ended, with all that it had started.
    written = job.log.stat().st_size if job.log.exists() else 0
    claim = {
        "attempt": uuid.uuid4().hex,
        "attempt_number": number,
        **about,
        "started_at": taken_at,
        "patch": dict(now.patch or {}),
        "log_offset": written + len(title.encode()),
    }
    if not create_record(job.folder / ATTEMPTS / f"{number}.json", claim):
        return None
    # The claim holds from here on. The rest is for people, and a full disk must not undo it.
    with contextlib.suppress(OSError):
        (job.folder / EXIT_FILE).unlink(missing_ok=True)
    with contextlib.suppress(OSError), job.log.open("ab") as log:
        log.write(title.encode())
    with contextlib.suppress(OSError):
        write_record(job.folder / STATE_FILE, as_state(claim, "starting"), durable=False)
    return claim


def as_state(claim: Record, status: str) -> Record:
    """The first state.json of an attempt."""
    return {"status": status, **claim, "report": {}}


def is_open(folder: Path, number: int) -> bool:
    """Whether attempt `number` may still save and publish: it is the last, and nobody ended it."""
    # By the list: a network file system may remember for a while that a name was not there.
    last, names = _last(folder)
    return f"{number}.exit.json" not in names and last <= number


def end(job: Job, claim: Record, status: str, exit_code: int, **about: Any) -> Record | None:
    """Say how an attempt ended; its exit record, or None where it has one already.

    `status`: ok, failed, interrupted, lost (its process or its machine is gone) or hung. `about`:
    result, error_type, error_message, signal, stop_requested, said_by.
    """
    number = claim["attempt_number"]
    error = None
    if status != "ok":
        lines = last_lines(job.log, offset=int(claim.get("log_offset", 0)))
        kind = about.pop("error_type", "") or None
        error = {"type": kind, "message": about.pop("error_message", ""), "last_lines": lines}
    record = {
        "status": status,
        "exit_code": exit_code,
        "signal": about.pop("signal", None),
        "result": about.pop("result", None),
        "error": error,
        "attempt": claim["attempt"],
        "attempt_number": number,
        "started_at": claim["started_at"],
        "ended_at": utc_now(),
        "seconds": round(seconds_since(claim["started_at"]), 3),
        "patch": claim.get("patch", {}),
        **about,
    }
    if not create_record(job.folder / ATTEMPTS / f"{number}.exit.json", record):
        return None
    with contextlib.suppress(OSError):  # published; these are for people
        state = read_state(job.folder)
        if state is not None and state.get("attempt") == claim["attempt"]:
            ended = {**state, "status": status, "ended_at": record["ended_at"]}
            write_record(job.folder / STATE_FILE, ended, durable=False)
        if status == "ok" or standing(job).state == "failed":
            write_record(job.folder / EXIT_FILE, record, durable=False)
    return record


def ask_again(job: Job, *, why: str, even_done: bool = False) -> bool:
    """Have a failed job tried again; False where it is not one."""
    now = standing(job)
    if now.state != "failed" and not (even_done and now.state == "done"):
        return False
    (job.folder / ATTEMPTS).mkdir(exist_ok=True)
    mark = job.folder / ATTEMPTS / f"{now.number}.retry.json"
    return create_record(mark, {"asked_at": utc_now(), "why": why})


def ended_attempts(folder: Path) -> set[str]:
    """The tokens of all attempts that have their exit record."""
    number, names = _last(folder)
    records = (
        read_record(folder / ATTEMPTS / f"{n}.exit.json")
        for n in range(1, number + 1)
        if f"{n}.exit.json" in names
    )
    return {record["attempt"] for record in records if record is not None}


def last_claim(folder: Path) -> Record | None:
    """The claim of the last attempt; None before the first, or while it cannot be read."""
    number, _ = _last(folder)
    try:
        return read_record(folder / ATTEMPTS / f"{number}.json") if number else None
    except ValueError:
        return None


def read_exit(folder: Path) -> Record | None:
    """How a job ended, or None while it is not done: an interrupted one is not.

    Keys: status (ok, failed, lost, hung), exit_code (negative: killed by that signal), signal,
    result, error ({type, message, last_lines} or None), attempt, attempt_number, started_at,
    ended_at, seconds, patch.
    """
    record = last_exit(folder)
    stopped = record is not None and record.get("status") == "interrupted"
    return None if stopped else record


def last_exit(folder: Path) -> Record | None:
    """How the last attempt ended, interrupted or not; None before the first, or while it is open.

    Keys as of `read_exit`.
    """
    number, names = _last(Path(folder))
    if number == 0:
        return read_record(Path(folder) / EXIT_FILE)
    if f"{number}.exit.json" not in names:
        return None
    return read_record(Path(folder) / ATTEMPTS / f"{number}.exit.json")


def exit_of(folder: Path, number: int) -> Record | None:
    """The exit record of attempt `number`, or None while it is open."""
    return read_record(folder / ATTEMPTS / f"{number}.exit.json")


def read_state(folder: Path) -> Record | None:
    """What the job is doing, or None where it never started (or a power cut tore the file).

    Keys: status ("starting", "running", or as in the exit record), attempt (a token, new for each
    try), attempt_number, pid, host, process_started, worker (its token), worker_pid, gpus,
    started_at, log_offset, report (what the function last reported), reported_at.
    """
    try:
        return read_record(Path(folder) / STATE_FILE)
    except ValueError:
        return None


def _last(folder: Path) -> tuple[int, set[str]]:
    """The number of the last attempt, and the names of all records of attempts."""
    try:
        names = set(os.listdir(folder / ATTEMPTS))  # noqa: PTH208 - names alone, ten thousand times
    except FileNotFoundError:
        return 0, set()
    numbers = (name.removesuffix(".json") for name in names)
    return max((int(number) for number in numbers if number.isdecimal()), default=0), names


def _before_attempts(folder: Path) -> Standing:
    """Of a job that nobody took: or that a version without attempts/ ran."""
    record = read_record(folder / EXIT_FILE)
    if record is None or "0.retry.json" in _last(folder)[1]:
        return Standing("waiting", 0, record)
    return Standing("done" if record["status"] == "ok" else "failed", 0, record)


def _tries(folder: Path, number: int, names: set[str], ended: Record) -> list[Record]:
    """The exit records of the last attempts, oldest first, since somebody asked for a retry."""
    records = [ended]
    for earlier in range(number - 1, 0, -1):
        if f"{earlier}.retry.json" in names:
            break
        record = read_record(folder / ATTEMPTS / f"{earlier}.exit.json")
        if record is not None:
            records.insert(0, record)
    return records
