"""What every orchestrator shares: the jobs and their slots, how they ended, the signals that stop.

The orchestrators themselves are in local_orchestrator.py and in_process.py.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from launcher.attempt import done_before
from launcher.gpus import Slot, slots, visible_gpus
from launcher.jobs import Job
from launcher.outcomes import JobOutcome, SweepResult, outcome_from_record
from launcher.progress import Display

logger = logging.getLogger("launcher")

OnFinish = Callable[[JobOutcome], Any]


class Sweep:
    """What both orchestrators share: the jobs, their slots, and how they have ended so far."""

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
    ) -> None:
        """Check everything before anything starts.

        `gpus`: as CUDA_VISIBLE_DEVICES names them; None finds them, [] is the CPU.
        `on_finish`: called in this process with each job's outcome as it comes.
        `grace`: seconds that a job may take to stop.
        """
        self.jobs = list(jobs)
        times = Counter(job.folder for job in self.jobs)
        if twice := [str(folder) for folder, count in times.items() if count > 1]:
            raise ValueError(f"several jobs share a folder: {', '.join(twice)}")
        if max_workers is not None and max_workers < 1:
            raise ValueError(f"max_workers must be at least 1, not {max_workers}")
        found = visible_gpus() if gpus is None else list(gpus)
        self.slots: list[Slot] = slots(found, gpus_per_job)[:max_workers]
        self.grace = grace
        self._show = show_progress
        self._on_finish = on_finish
        self._outcomes: dict[int, JobOutcome] = {}

    def _queue(self, display: Display) -> deque[int]:
        """Write every spec; the places in `jobs` of those that have still to run."""
        for number, job in enumerate(self.jobs):
            job.write()
            if record := done_before(job):
                self._outcomes[number] = outcome_from_record(job, record, done_before=True)
        display.done_before(len(self._outcomes))
        return deque(n for n in range(len(self.jobs)) if n not in self._outcomes)

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


class StopSignals:
    """Counts the signals that ask a sweep to stop, and wakes who waits on `alarm`.

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
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            before = signal.getsignal(number)
            # What the caller ignores stays ignored: that is how nohup keeps a sweep alive.
            if before is not signal.SIG_IGN:
                self._before[number] = before
                signal.signal(number, self._came)
        return self

    def _came(self, *_: object) -> None:
        self.count += 1
        with contextlib.suppress(BlockingIOError):  # a full pipe has rung often enough
            os.write(self._bell, b"!")

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        os.close(self.alarm)
        os.close(self._bell)
