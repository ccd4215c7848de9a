"""The in-process twin of the local orchestrator: same files, same result, no worker processes.

    InProcessOrchestrator(jobs).run()

For tests, and for breakpoints in a job's function.
"""

from __future__ import annotations

import os
import time

from launcher.attempt import refusal, restore_environment, run_here
from launcher.jobs import Job
from launcher.ledger import read_exit
from launcher.outcomes import (
    JobOutcome,
    SweepResult,
    interrupted,
    outcome_from_record,
    refused,
)
from launcher.progress import Display
from launcher.sweep import Sweep


class InProcessOrchestrator(Sweep):
    """Runs the jobs here, one after the other, on the first slot."""

    def run(self) -> SweepResult:
        """Run what has not yet ended well; a stop signal ends the sweep with the running job."""
        began = time.monotonic()
        self._outcomes.clear()
        # No bars: they would fight with what the jobs print, and with a debugger.
        stopped = False
        slot = self.slots[0].environment()
        before = {key: os.environ.get(key) for key in slot}
        os.environ.update(slot)
        try:
            with Display(len(self.jobs), show=self._show, bars=False) as display:
                for number in self._queue(display):
                    display.started(self.jobs[number], f"{self.slots[0]}, in this process")
                    outcome, stopped = _run(self.jobs[number])
                    self._finish(number, outcome, display)
                    if stopped:
                        break
        finally:
            restore_environment(before)
        return self._result(stopped, began)


def _run(job: Job) -> tuple[JobOutcome, bool]:
    """The job's outcome, and whether the sweep was asked to stop meanwhile."""
    if why_not := refusal(job):
        return refused(job, f"{job.folder} {why_not}"), False
    end = run_here(job)
    record = read_exit(job.folder)
    if end.status == "interrupted":
        return interrupted(job), end.stop_requested
    if record is None:
        return refused(job, "another attempt has taken the job over"), end.stop_requested
    return outcome_from_record(job, record), end.stop_requested
