"""What a sweep hands back: how each job ended, and what to tell the person."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from launcher.claims import last_exit
from launcher.jobs import TRY_AGAIN, Job
from launcher.ledger import Record

Status = Literal["ok", "failed", "interrupted", "not_started"]


@dataclass(frozen=True)
class JobOutcome:
    """How one job ended."""

    job: Job
    status: Status
    exit_code: int | None = None
    """Negative for the signal that killed it; None where it never ended."""
    seconds: float = 0.0
    last_lines: list[str] = field(default_factory=list)
    """The end of its log, where it did not end well."""
    result: Any = None
    """What its function returned."""
    message: str = ""
    """Why it failed, in a line."""
    done_before: bool = False
    """Whether an earlier sweep had finished it."""


def outcome_from_record(job: Job, record: Record, *, done_before: bool = False) -> JobOutcome:
    """The outcome that an exit record tells."""
    error = record.get("error") or {}
    parts = (error.get("type"), error.get("message"))
    return JobOutcome(
        job=job,
        status="ok" if record["status"] == "ok" else "failed",
        exit_code=record["exit_code"],
        seconds=record["seconds"],
        last_lines=error.get("last_lines", []),
        result=record["result"],
        message=": ".join(part for part in parts if part),
        done_before=done_before,
    )


def refused(job: Job, why: str, exit_code: int = 1) -> JobOutcome:
    """The outcome of a job that could not be started, or whose end could not be recorded."""
    return JobOutcome(job, "failed", exit_code, last_lines=[why], message=why)


def interrupted(job: Job) -> JobOutcome:
    """The outcome of a job that stopped early and can be run again, unless it made it after all."""
    record = last_exit(job.folder)
    if record is not None and record["status"] == "ok":
        return outcome_from_record(job, record)
    lines = ((record or {}).get("error") or {}).get("last_lines", [])
    return JobOutcome(job, "interrupted", TRY_AGAIN, (record or {}).get("seconds", 0.0), lines)


@dataclass(frozen=True)
class SweepResult:
    """How a sweep ended; one outcome a job, in the order given."""

    outcomes: list[JobOutcome]
    interrupted: bool = False
    """Whether a signal ended the sweep before its time."""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether every job has ended well, now or before."""
        return all(outcome.status == "ok" for outcome in self.outcomes)

    def of(self, status: Status) -> list[JobOutcome]:
        """The outcomes of one status."""
        return [outcome for outcome in self.outcomes if outcome.status == status]

    @property
    def failed(self) -> list[JobOutcome]:
        """The jobs that failed."""
        return self.of("failed")

    def summary(self) -> str:
        """The sweep in plain text: counts, then each job that failed, where, and its last lines."""
        counts = Counter(outcome.status for outcome in self.outcomes)
        before = sum(outcome.done_before for outcome in self.outcomes)
        parts = [f"{counts['ok']} ok" + (f" ({before} done before)" if before else "")]
        others: tuple[Status, ...] = ("failed", "interrupted", "not_started")
        parts += [f"{counts[s]} {s.replace('_', ' ')}" for s in others if counts[s]]
        number = len(self.outcomes)
        head = f"{number} job{'' if number == 1 else 's'}: {', '.join(parts)}"
        lines = [f"{head}; {duration(self.seconds)}"]
        for outcome in self.failed:
            lines.append(f"\nfailed: {outcome.job.label} ({how_it_ended(outcome)})")
            lines.append(f"  {outcome.job.folder}")
            lines += [f"  | {line}" for line in outcome.last_lines]
        return "\n".join(lines)


def how_it_ended(outcome: JobOutcome) -> str:
    """A failure in a few words."""
    first = outcome.message.splitlines()[0] if outcome.message else ""
    if outcome.exit_code is None or outcome.exit_code < 0:
        return first or "killed"
    return f"exit status {outcome.exit_code}" + (f", {first}" if first else "")


def duration(seconds: float) -> str:
    """1:02:03, or 0:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
