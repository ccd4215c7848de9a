"""Where a sweep stands, read from its folder: what commands show, and nobody decides by.

    python -c "from launcher.status import read_sweep; print(read_sweep(Path('.../jobs')).counts())"

Nothing is written, no process is asked anything, and a job that nobody took costs a few system
calls, so that ten thousand are read within a second.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from launcher.claims import last_claim, read_state, standing
from launcher.jobs import Job, JobSpec
from launcher.ledger import (
    ATTEMPTS,
    EXIT_FILE,
    LOG_FILE,
    SPEC_FILE,
    Liveness,
    Record,
    liveness,
    process_liveness,
    read_record,
    seconds_since,
)
from launcher.stopping import STOP_FILE, stop_asked
from launcher.sweep import SWEEP_FILE

State = Literal["waiting", "running", "stopping", "interrupted", "failed", "done"]
STATES: tuple[State, ...] = get_args(State)


@dataclass(frozen=True)
class JobStatus:
    """One job now."""

    folder: Path
    state: State
    """waiting for its turn or its next try; interrupted: stopped early, or its process is gone
    without a word, and it goes on when the sweep does; failed: for good, unless somebody retries"""
    attempt: int = 0
    """Its last attempt's number, from 1; 0 before the first."""
    gpus: str = ""
    """As CUDA_VISIBLE_DEVICES names them; empty for a core."""
    host: str = ""
    pid: int | None = None
    alive: Liveness = "dead"
    """Whether its process lives; unknown on another machine."""
    started_at: str | None = None
    seconds: float | None = None
    """Since the attempt's start, or what it took (seconds)."""
    silent_seconds: float | None = None
    """Since its last report, by the clocks of two machines where it runs elsewhere (seconds)."""
    report: Mapping[str, Any] = field(default_factory=dict)
    """What its function last reported."""
    message: str = ""
    """What it last said, or why it did not end well: one line."""

    @property
    def id(self) -> str:
        return self.folder.name

    @functools.cached_property
    def label(self) -> str:
        """The job's name for people, from its spec; the id where that cannot be read."""
        try:
            return Job.load(self.folder).label
        except (OSError, ValueError):
            return self.id

    @property
    def log(self) -> Path:
        return self.folder / LOG_FILE

    def number(self, key: str) -> float | None:
        """A number of the report, None where it has none of this name."""
        value = self.report.get(key)
        return float(value) if isinstance(value, int | float) else None

    @property
    def seconds_left(self) -> float | None:
        """By the pace of its first attempt; None where that does not tell.

        A later attempt began somewhere in the middle, which its report does not say.
        """
        done, total = self.number("completed"), self.number("total")
        if self.state not in ("running", "stopping") or self.attempt != 1 or not self.seconds:
            return None
        if not done or total is None:
            return None
        reported_after = self.seconds - (self.silent_seconds or 0.0)
        return max(0.0, (total - done) * reported_after / done - (self.silent_seconds or 0.0))


@dataclass(frozen=True)
class SweepStatus:
    """A sweep now."""

    folder: Path
    jobs: list[JobStatus]
    """By name."""
    driver: Record | None = None
    """sweep.json, where a driver has ever run the sweep."""
    driver_alive: Liveness = "dead"
    stop_asked: int = 0
    """1: somebody wants it to stop, 2: at once."""
    stop: Record | None = None
    """stop.json: who asked, and when."""

    def counts(self) -> dict[State, int]:
        """Jobs in each state."""
        found = Counter(job.state for job in self.jobs)
        return {state: found[state] for state in STATES}

    def of(self, *states: State) -> list[JobStatus]:
        """The jobs in some states."""
        return [job for job in self.jobs if job.state in states]

    @property
    def is_done(self) -> bool:
        return all(job.state == "done" for job in self.jobs)

    @property
    def is_live(self) -> bool:
        """Whether somebody is, or may be, at work on it."""
        return self.driver_alive == "alive" or bool(self.of("running", "stopping"))

    def driven_by(self) -> str:
        """Who runs it, in words."""
        if self.driver is None:
            return "workers that joined" if self.is_live else "nobody"
        who = self.driver["driver"]
        named = f"process {who['pid']} on {who['host']}, {self.driver.get('engine', 'local')}"
        if self.driver.get("ended_at") is not None:
            return "workers that joined" if self.is_live else "nobody"
        if self.driver_alive == "alive":
            return named
        if self.driver_alive == "unknown":
            return f"{named} (cannot be asked from here)"
        return "nobody: its driver died" + (", workers go on" if self.is_live else "")


def read_sweep(folder: Path) -> SweepStatus:
    """The sweep of a folder of jobs. Raises FileNotFoundError where there is no such folder."""
    asked = stop_asked(folder)
    record = _record(folder / SWEEP_FILE)
    alive: Liveness = "dead"
    if record is not None and record.get("ended_at") is None:
        alive = process_liveness(record["driver"])
    return SweepStatus(
        folder=folder,
        jobs=[
            # A job that nobody took has neither of them.
            _read_job(folder / name, stopping=asked > 0)
            if ATTEMPTS in records or EXIT_FILE in records
            else JobStatus(folder / name, "waiting")
            for name, records in _jobs_with_records(folder)
        ],
        driver=record,
        driver_alive=alive,
        stop_asked=asked,
        stop=_record(folder / STOP_FILE),
    )


def job_paths(sweep: Path) -> list[Path]:
    """The folders of all jobs of a sweep, by name."""
    return [sweep / name for name, _ in _jobs_with_records(sweep)]


def _jobs_with_records(sweep: Path) -> list[tuple[str, list[str]]]:
    """The names of the jobs and of what lies in their folders: one look at each."""
    found = []
    with os.scandir(sweep) as entries:
        for entry in entries:
            with contextlib.suppress(NotADirectoryError, FileNotFoundError):
                records = os.listdir(entry.path)  # noqa: PTH208 - ten thousand times
                if SPEC_FILE in records:
                    found.append((entry.name, records))
    return sorted(found)


class _Stored:
    """A job whose spec is read only where its retries count."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / LOG_FILE

    @functools.cached_property
    def spec(self) -> JobSpec:
        return Job.load(self.folder).spec


def _read_job(folder: Path, *, stopping: bool) -> JobStatus:
    try:
        now = standing(_Stored(folder))
    except (OSError, ValueError, KeyError) as error:  # a record that a person has broken
        return JobStatus(folder, "failed", message=str(error))
    if now.state == "open":
        return _open_job(folder, now.number, stopping=stopping)
    if now.exit is None:
        return JobStatus(folder, "waiting")
    ended = now.exit
    state: State = "waiting"
    if now.state != "waiting":
        state = "done" if now.state == "done" else "failed"
    elif ended["status"] == "interrupted":
        state = "interrupted"
    return JobStatus(
        folder,
        state,
        attempt=now.number,
        started_at=ended.get("started_at"),
        seconds=ended.get("seconds"),
        report={} if state == "done" else _report_of(folder, ended),
        message="" if state == "done" else _why(ended),
    )


def _open_job(folder: Path, number: int, *, stopping: bool) -> JobStatus:
    claim = last_claim(folder) or {}
    told = read_state(folder) or {}
    if told.get("attempt") != claim.get("attempt"):
        told = {}  # this one has only just been taken
    alive = liveness({"status": "running", **claim})
    state: State = "stopping" if stopping else "running"
    message = str((told.get("report") or {}).get("message") or told.get("status", "starting"))
    if alive == "dead":
        state, message = "interrupted", "its process is gone without a word"
    return JobStatus(
        folder,
        state,
        attempt=number,
        gpus=str(claim.get("gpus") or ""),
        host=str(claim.get("host") or ""),
        pid=told.get("pid", claim.get("pid")),
        alive=alive,
        started_at=claim.get("started_at"),
        seconds=_seconds_since(claim.get("started_at")),
        silent_seconds=_seconds_since(told.get("reported_at")),
        report=told.get("report") or {},
        message=message.splitlines()[0] if message else "",
    )


def _report_of(folder: Path, attempt: Record) -> Mapping[str, Any]:
    """What an attempt last reported; nothing, where state.json is another one's."""
    told = read_state(folder) or {}
    return (told.get("report") or {}) if told.get("attempt") == attempt.get("attempt") else {}


def _why(ended: Record) -> str:
    error = ended.get("error") or {}
    lines = (str(error.get("message") or "").splitlines() or [""])[0]
    said = [error.get("type"), lines or (error.get("last_lines") or [""])[-1]]
    if not any(said):
        said = [f"exit status {ended['exit_code']}"]
    return ": ".join(part for part in said if part)


def _seconds_since(moment: str | None) -> float | None:
    return None if moment is None else round(max(0.0, seconds_since(moment)), 3)


def _record(path: Path) -> Record | None:
    try:
        return read_record(path)
    except ValueError:
        return None
