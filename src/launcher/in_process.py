"""The in-process twin of the local orchestrator: same files, same result, no worker processes.

    InProcessOrchestrator(jobs).run()

For tests, and for breakpoints in a job's function.
"""

from __future__ import annotations

import os
import time
import uuid

from launcher.attempt import refusal, restore_environment, run_here, settle_if_dead
from launcher.claims import ask_again, last_exit, standing
from launcher.gpus import ONE_THREAD
from launcher.host import Host
from launcher.jobs import Job
from launcher.leases import Claimant, Lease
from launcher.outcomes import (
    JobOutcome,
    SweepResult,
    interrupted,
    outcome_from_record,
    refused,
)
from launcher.progress import Display
from launcher.sweep import Sweep

ASK = 0.25  # seconds between two tries to get a GPU


class InProcessOrchestrator(Sweep):
    """Runs the jobs here, one after the other, on the first GPUs that are free."""

    def run(self) -> SweepResult:
        """Run what has not yet ended well; a stop signal ends the sweep with the running job."""
        began = time.monotonic()
        self._outcomes.clear()
        stopped = False
        token = uuid.uuid4().hex
        names, since = list(self.places), time.time()
        claimant = Claimant(Host(), token, names=names, each=self.each, sweep=token, since=since)
        before: dict[str, str | None] = {}
        try:
            # No bars: they would fight with what the jobs print, and with a debugger.
            with Display(len(self.jobs), show=self._show, bars=False) as display:
                waiting = self._waiting(display)
                if waiting:
                    lease = _leased(claimant, display)
                    gpus = ",".join(self.places[name] for name in lease.names)
                    slot = {"CUDA_VISIBLE_DEVICES": gpus, **({} if gpus else ONE_THREAD)}
                    before = {key: os.environ.get(key) for key in slot}
                    os.environ.update(slot)
                for number in waiting:
                    where = f"GPU {gpus}" if gpus else "a core"
                    display.started(self.jobs[number], f"{where}, in this process")
                    outcome, stopped = _run(self.jobs[number], gpus)
                    self._finish(number, outcome, display)
                    if stopped:
                        break
        finally:
            restore_environment(before)
            claimant.close()
        return self._result(stopped, began)

    def _waiting(self, display: Display) -> list[int]:
        """Write every spec; the places in `jobs` of those that have still to run."""
        for number, job in enumerate(self.jobs):
            job.write()
            settle_if_dead(job)
            ask_again(job, why="the sweep was started again")
            now = standing(job)
            if now.state == "done" and now.exit is not None:
                self._outcomes[number] = outcome_from_record(job, now.exit, done_before=True)
        display.done_before(len(self._outcomes))
        return [n for n in range(len(self.jobs)) if n not in self._outcomes]


def _leased(claimant: Claimant, display: Display) -> Lease:
    lease, said = claimant.lease(), False
    while lease is None:
        if not said:
            display.say("waiting for a GPU or a core that no other sweep has")
            said = True
        claimant.wants(1)
        time.sleep(ASK)
        lease = claimant.lease()
    claimant.wants(0)
    return lease


def _run(job: Job, gpus: str) -> tuple[JobOutcome, bool]:
    """The job's outcome, and whether the sweep was asked to stop meanwhile."""
    while True:
        if why_not := refusal(job):
            return refused(job, f"{job.folder} {why_not}"), False
        ended = run_here(job, gpus=gpus)
        record = last_exit(job.folder)
        if ended.status == "interrupted" and ended.stop_requested:
            return interrupted(job), True
        if record is None or (record["attempt_number"] and record["status"] != ended.status):
            return refused(job, "another attempt has taken the job over"), ended.stop_requested
        if standing(job).state != "waiting":
            return outcome_from_record(job, record), ended.stop_requested
