"""Run jobs on this machine: one worker a slot of GPUs, one job at a time each, in the order given.

    result = LocalSweepOrchestrator(jobs, gpus_per_job=1).run()
    print(result.summary())

Jobs that have ended well before are skipped, so the same call after a crash goes on. A job that
fails stops no other. SIGINT, SIGTERM and SIGHUP end the sweep in order: the jobs are asked to stop,
given `grace` seconds, then killed; a second signal kills at once.
"""

from __future__ import annotations

import os
import selectors
import time

from launcher.in_process import InProcessOrchestrator
from launcher.ledger import Record
from launcher.outcomes import JobOutcome, SweepResult, interrupted, outcome_of
from launcher.pool import WorkerProcess
from launcher.progress import Display
from launcher.sweep import StopSignals, Sweep

__all__ = ["InProcessOrchestrator", "JobOutcome", "LocalSweepOrchestrator", "SweepResult"]


class LocalSweepOrchestrator(Sweep):
    """Jobs in worker processes on this machine's GPUs, or on its cores where it has none."""

    def run(self) -> SweepResult:
        """Run what has not yet ended well; returns when all have ended, or a signal came."""
        began = time.monotonic()
        self._outcomes.clear()
        self._stopping = False
        with Display(len(self.jobs), show=self._show) as display, StopSignals() as signals:
            self._waiting = self._queue(display)
            self._workers: list[WorkerProcess | None] = [None] * min(
                len(self.slots), len(self._waiting)
            )
            self._numbers = {job.folder: number for number, job in enumerate(self.jobs)}
            try:
                while self._busy() or self._waiting:
                    if signals.count:
                        self._stop(display, signals)
                        break
                    self._give_work(display)
                    self._hear(display, signals, display.interval)
                    display.update()
            finally:
                self._close()
        return self._result(signals.count > 0, began)

    def _busy(self) -> list[WorkerProcess]:
        return [worker for worker in self._workers if worker is not None and worker.job is not None]

    def _give_work(self, display: Display) -> None:
        for place, worker in enumerate(self._workers):
            if not self._waiting:
                return
            if worker is not None and worker.job is not None:
                continue
            job = self.jobs[self._waiting.popleft()]
            env = dict(job.spec.env)
            if worker is not None and worker.env != env:
                # What modules read while they are imported cannot be changed afterwards.
                worker.close()
                worker = None
            if worker is None:
                worker = WorkerProcess(self.slots[place], env, grace=self.grace)
                self._workers[place] = worker
            worker.give(job)
            display.started(job, str(worker.slot))

    def _hear(self, display: Display, signals: StopSignals, seconds: float) -> None:
        """Wait for answers, a signal, or so many seconds; settle the jobs that have ended."""
        with selectors.DefaultSelector() as selector:
            selector.register(signals.alarm, selectors.EVENT_READ)
            for place, worker in enumerate(self._workers):
                if worker is not None and worker.job is not None:
                    selector.register(worker.answers, selectors.EVENT_READ, place)
            for key, _ in selector.select(max(0.0, seconds)):
                if key.fd == signals.alarm:
                    os.read(signals.alarm, 4096)
                else:
                    self._settle(key.data, display)

    def _settle(self, place: int, display: Display) -> None:
        worker = self._workers[place]
        assert worker is not None
        assert worker.job is not None
        answer: Record | None
        try:
            answer = worker.hear()
        except EOFError:
            answer = worker.lost()
            worker.close()
            self._workers[place] = None  # the next job gets a new one
        if answer is None:
            return
        job = worker.job
        worker.job = None
        outcome = outcome_of(job, answer)
        if self._stopping and answer.get("begun") is False:
            outcome = JobOutcome(job, "not_started")  # stopped before it could take the job
        self._finish(self._numbers[job.folder], outcome, display)

    def _stop(self, display: Display, signals: StopSignals) -> None:
        """End the running jobs: SIGTERM, the grace period or a second signal, SIGKILL."""
        running = len(self._busy())
        display.say(
            f"stopping {running} running jobs, within {self.grace:g} s; once more ends them now"
        )
        self._stopping = True
        for busy in self._busy():
            busy.stop()
        # The workers keep the grace period; we only wait for one that does not keep it.
        deadline = time.monotonic() + self.grace + 2.0
        while self._busy() and time.monotonic() < deadline and signals.count < 2:
            self._hear(display, signals, min(display.interval, deadline - time.monotonic()))
            display.update()
        for place, worker in enumerate(self._workers):
            if worker is not None and worker.job is not None:
                worker.kill()
                worker.close()
                self._workers[place] = None
                self._finish(self._numbers[worker.job.folder], interrupted(worker.job), display)

    def _close(self) -> None:
        for worker in self._workers:
            if worker is not None:
                if worker.job is not None:  # only on an error of our own
                    worker.kill()
                worker.close()
