"""What all that run jobs share: the jobs and the places for them, the signals that stop.

Who runs them are the driver (driver.py), by workers, and its twin in one process (in_process.py).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from launcher.gpus import places, visible_gpus
from launcher.jobs import Job
from launcher.ledger import (
    Record,
    create_record,
    identity,
    process_liveness,
    read_record,
    utc_now,
    write_record,
)
from launcher.outcomes import JobOutcome, SweepResult
from launcher.progress import Display

SWEEP_FILE = "sweep.json"
Strangers = Literal["wait", "leave", "use"]

logger = logging.getLogger("launcher")

OnFinish = Callable[[JobOutcome], Any]


class SweepRunningError(RuntimeError):
    """Another driver runs this sweep."""


class Sweep:
    """What all that run jobs share: the jobs, the places for them, and how they have ended."""

    is_here = True
    """Whether jobs run on this machine, and need its GPUs."""

    def __init__(
        self,
        jobs: Sequence[Job],
        *,
        gpus_per_job: int = 1,
        max_workers: int | None = None,
        gpus: Sequence[str] | None = None,
        show_progress: bool = True,
        on_finish: OnFinish | None = None,
        grace: float = 10.0,
        strangers: Strangers = "wait",
    ) -> None:
        """Check everything before anything starts.

        `gpus`: as CUDA_VISIBLE_DEVICES names them; None finds them, [] is the CPU.
        `max_workers`: jobs at the same time, at most.
        `on_finish`: called in this process with each job's outcome as it comes.
        `grace`: seconds that a job may take to stop.
        `strangers`: whether GPUs that other processes use are waited for, left alone, or used.
        """
        self.jobs = list(jobs)
        times = Counter(job.folder for job in self.jobs)
        if twice := [str(folder) for folder, count in times.items() if count > 1]:
            raise ValueError(f"several jobs share a folder: {', '.join(twice)}")
        if max_workers is not None and max_workers < 1:
            raise ValueError(f"max_workers must be at least 1, not {max_workers}")
        self.gpus_per_job = gpus_per_job
        self.places: dict[str, str] = {}
        self.each, self.at_once = max(1, gpus_per_job), max_workers or 1
        if self.is_here:
            found = visible_gpus() if gpus is None else list(gpus)
            self.places = places(found, gpus_per_job)
            free = len(self.places) // self.each
            self.at_once = min(free, max_workers or free)
        self.grace = grace
        self.strangers = strangers
        self._show = show_progress
        self._on_finish = on_finish
        self._outcomes: dict[int, JobOutcome] = {}

    def _finish(self, number: int, outcome: JobOutcome, display: Display) -> None:
        self._outcomes[number] = outcome
        display.ended(outcome)
        if self._on_finish is not None:
            try:
                self._on_finish(outcome)
            except Exception:  # a fault in what follows a job must not end the others
                logger.exception("on_finish failed for %s", outcome.job.label)

    def _result(self, interrupted: bool, began: float) -> SweepResult:
        outcomes = [
            self._outcomes.get(number) or JobOutcome(job, "not_started")
            for number, job in enumerate(self.jobs)
        ]
        return SweepResult(outcomes, interrupted, round(time.monotonic() - began, 3))


class SweepRecord:
    """sweep.json: how a sweep is run, and by which driver while it lives."""

    def __init__(self, path: Path, record: Record) -> None:
        self._path = path
        self._record = record

    @classmethod
    def open(cls, sweep: Path, token: str, described: Record) -> SweepRecord:
        """Become the driver of a sweep; raises SweepRunningError while another one lives."""
        path = sweep / SWEEP_FILE
        before = read_record(path)
        if before is not None and before.get("ended_at") is None:
            driver = before["driver"]
            if process_liveness(driver) == "alive" and driver["pid"] != os.getpid():
                raise SweepRunningError(
                    f"{sweep} is being run by process {driver['pid']} on {driver['host']}, since "
                    f"{before['started_at']}: stop that one first"
                )
        number = _driver_number(sweep, 1 + int((before or {}).get("number", 0)))
        record = {**described, "token": token, "driver": identity(), "started_at": utc_now()}
        record["number"] = number
        opened = cls(path, {**record, "ended_at": None})
        write_record(path, opened._record)
        return opened

    def close(self) -> None:
        """The driver has ended in order."""
        with contextlib.suppress(OSError):
            write_record(self._path, {**self._record, "ended_at": utc_now()}, durable=False)


def _driver_number(sweep: Path, number: int) -> int:
    """Ours alone, from `number` on: of two drivers that start in the same moment one is refused."""
    folder = sweep / "drivers"
    folder.mkdir(exist_ok=True)
    while not create_record(folder / f"{number}.json", identity()):
        other = read_record(folder / f"{number}.json") or {}
        if process_liveness(other) == "alive" and other["pid"] != os.getpid():
            raise SweepRunningError(f"{sweep} has just been started by process {other['pid']}")
        number += 1
    return number


class StopSignals:
    """Counts the signals that ask a sweep to stop; they, and ended children, ring the `alarm`.

    A context manager; the handlers that stood before come back at its end.
    """

    def __init__(self) -> None:
        self.count = 0
        self.alarm, self._bell = os.pipe()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        os.set_blocking(self._bell, False)
        if threading.current_thread() is not threading.main_thread():
            return self  # Python lets only the main thread handle signals
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, self._ring)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            before = signal.getsignal(number)
            # What the caller ignores stays ignored: that is how nohup keeps a sweep alive.
            if before is not signal.SIG_IGN:
                self._before[number] = before
                signal.signal(number, self._came)
        return self

    def _came(self, *_: object) -> None:
        self.count += 1
        self._ring()

    def _ring(self, *_: object) -> None:
        with contextlib.suppress(BlockingIOError):  # a full pipe has rung often enough
            os.write(self._bell, b"!")

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        os.close(self.alarm)
        os.close(self._bell)
