"""What a person sees while a sweep runs: bars in a terminal, plain lines in a file.

Every running job has one line: its label, a bar, where it is, what it last said, time gone and time
left. Where standard output is no terminal, a line is printed when a job starts and ends, when it
turns to something else, and every half minute. The same plain lines go to the logger "launcher".

All of it comes from the jobs' own state.json, read when `update` is called; there is no thread.
"""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from launcher.claims import read_state
from launcher.jobs import Job
from launcher.ledger import Record
from launcher.outcomes import JobOutcome, duration, how_it_ended

logger = logging.getLogger("launcher")

_EVERY = 30.0  # seconds between two plain lines of a job that goes on as it did
_AT_LEAST = 5.0  # seconds between two plain lines of a job that turned to something else


@dataclass
class _Line:
    """What the display knows of one running job."""

    job: Job
    began: float
    said_at: float
    stage: str = ""
    report: dict[str, Any] = field(default_factory=dict)
    first: tuple[float, float] | None = None  # when the first count was seen, and the count
    bar: TaskID | None = None

    def refresh(self) -> None:
        state = read_state(self.job.folder)
        if state is None or state.get("status") not in ("starting", "running"):
            return  # not yet begun: what is there is an earlier attempt's
        self.report = state.get("report") or {}
        if self.first is None and _number(self.report.get("completed")) is not None:
            self.first = (time.monotonic(), float(self.report["completed"]))

    def time_left(self) -> float | None:
        """From the pace since the first count was seen, so that resumed jobs are judged fairly."""
        completed, total = (_number(self.report.get(k)) for k in ("completed", "total"))
        if self.first is None or completed is None or total is None or completed <= self.first[1]:
            return None
        pace = (time.monotonic() - self.first[0]) / (completed - self.first[1])
        return max(0.0, pace * (total - completed))

    def count(self) -> str:
        completed, total = (_number(self.report.get(key)) for key in ("completed", "total"))
        if completed is None:
            return ""
        return f"{completed:g}/{total:g}" if total else f"{completed:g}"

    def message(self) -> str:
        return str(self.report.get("message") or "")

    def times(self) -> str:
        left = self.time_left()
        gone = duration(time.monotonic() - self.began)
        return gone if left is None else f"{gone}, {duration(left)} left"

    def text(self) -> str:
        parts = (f"{self.job.label}:", self.count(), self.message(), f"[{self.times()}]")
        return " ".join(part for part in parts if part)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _stage(message: Any) -> str:
    # "loss 2.31  evaluating" and "loss 2.29  evaluating" are one stage: numbers do not count.
    return re.sub(r"[-+]?\d[\d.,:e%+-]*", "#", str(message or ""))


def _bars(console: Console) -> Progress:
    def text(key: str, **column: Any) -> TextColumn:
        # Labels and messages are anyone's words: "[" in them is no markup.
        table_column = Column(no_wrap=True, overflow="ellipsis", **column)
        return TextColumn(f"{{task.{key}}}", markup=False, table_column=table_column)

    return Progress(
        text("description"),
        BarColumn(bar_width=20),
        text("fields[count]"),
        text("fields[times]"),
        text("fields[message]", ratio=1),
        console=console,
        auto_refresh=False,
        expand=True,
    )


class Display:
    """Shows jobs as they start, go on and end. A context manager; `update` is called now and then.

    `console` is where lines go (standard output unless told); `show=False` leaves the logger only,
    `bars=False` plain lines even in a terminal.
    """

    def __init__(
        self, total: int, *, show: bool = True, bars: bool = True, console: Console | None = None
    ) -> None:
        self._total = total
        self._ended = 0
        self._failed = 0
        self._lines: dict[Path, _Line] = {}
        self._console = (console or Console()) if show else None
        self._bars: Progress | None = None
        self._live: Live | None = None
        if bars and self._console is not None and self._console.is_terminal:
            self._bars = _bars(self._console)
            self._live = Live(
                get_renderable=self._render,
                console=self._console,
                auto_refresh=False,
                transient=True,
            )

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def interval(self) -> float:
        """Seconds between two calls of `update` that make sense."""
        return 0.5 if self._live is not None else 1.0

    def say(self, text: str) -> None:
        """A line that stays, for the person and for the log."""
        logger.info("%s", text)
        if self._console is not None:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def started(self, job: Job, where: str) -> None:
        """A job was given to a worker."""
        now = time.monotonic()
        line = self._lines[job.folder] = _Line(job, began=now, said_at=now)
        if self._bars is not None:
            line.bar = self._bars.add_task(job.label, total=None, count="", message="", times="")
        self._plain(f"{job.label}: starts on {where}")
        self._draw()

    def done_before(self, count: int) -> None:
        """Jobs that need not run."""
        self._ended += count
        if count:
            self.say(f"{count} of {self._total} jobs were done before")

    def ended(self, outcome: JobOutcome) -> None:
        """A job is over: its line becomes one that stays."""
        line = self._lines.pop(outcome.job.folder, None)
        if line is not None and line.bar is not None and self._bars is not None:
            self._bars.remove_task(line.bar)
        self._ended += outcome.status in ("ok", "failed")
        self._failed += outcome.status == "failed"
        text = f"{outcome.job.label}: {outcome.status} in {duration(outcome.seconds)}"
        if outcome.status == "failed":
            text += f" ({how_it_ended(outcome)}); see {outcome.job.log}"
        self.say(text)
        self._draw()

    def tried_again(self, outcome: JobOutcome) -> None:
        """Somebody wants a failed job to be tried again."""
        self._ended -= 1
        self._failed -= 1
        self.say(f"{outcome.job.label}: asked for again")

    def waits_again(self, job: Job, ended: Record) -> None:
        """An attempt is over, and the job will have another."""
        line = self._lines.pop(job.folder, None)
        if line is None:
            return
        if line.bar is not None and self._bars is not None:
            self._bars.remove_task(line.bar)
        why = (ended.get("error") or {}).get("message") or f"exit status {ended['exit_code']}"
        self.say(
            f"{job.label}: {ended['status']} ({why.splitlines()[0]}); goes on in a new attempt"
        )

    def update(self) -> None:
        """Read what the running jobs reported, and show it."""
        now = time.monotonic()
        for line in self._lines.values():
            line.refresh()
            stage = _stage(line.report.get("message"))
            turned = stage != line.stage and now - line.said_at >= _AT_LEAST
            if turned or now - line.said_at >= _EVERY:
                line.stage, line.said_at = stage, now
                self._plain(line.text())
        self._draw()

    def _plain(self, text: str) -> None:
        # Where bars are shown they say it better; the log has no bars.
        if self._bars is None:
            self.say(text)
        else:
            logger.info("%s", text)

    def _draw(self) -> None:
        if self._live is None or self._bars is None:
            return
        for line in self._lines.values():
            if line.bar is not None:
                self._bars.update(
                    line.bar,
                    completed=_number(line.report.get("completed")) or 0.0,
                    total=_number(line.report.get("total")),
                    count=line.count(),
                    message=line.message(),
                    times=line.times(),
                )
        self._live.refresh()

    def _render(self) -> Group:
        running = len(self._lines)
        waiting = self._total - self._ended - running
        counts = f"{self._ended} of {self._total} done, {running} running, {waiting} waiting"
        if self._failed:
            counts += f", {self._failed} failed"
        assert self._bars is not None
        return Group(self._bars, Text(counts, style="dim"))
