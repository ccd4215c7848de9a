"""The driver: has workers started until every job of a sweep has ended, and shows how it goes.

It decides nothing about single jobs: workers take them from the ledger, and say there how they
ended. So a driver may die and be started again, and workers that it never started may help.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launcher.asked_again import RetryReader
from launcher.attempt import give_up, settle_if_dead
from launcher.claims import ask_again, end, last_claim, last_exit, standing
from launcher.disk import DiskReservation, still_to_write
from launcher.engine import Engine, EngineUnreachable, WorkerRequest, WorkerState
from launcher.events import EventReader
from launcher.gpus import ONE_THREAD, used_by_strangers
from launcher.jobs import Job
from launcher.ledger import Record, check_links, identity, last_lines, will_pass
from launcher.lost import STOPPED_LIMIT, FormerWorkers, LostWatch
from launcher.outcomes import SweepResult, interrupted, outcome_from_record
from launcher.processes import MARK_VARIABLE, NO_ATTEMPT
from launcher.progress import Display
from launcher.retries import TRY_AGAIN
from launcher.stopping import ask_to_stop, let_go_on, stop_asked
from launcher.sweep import StopSignals, Sweep, SweepRecord
from launcher.worker_settings import WorkerSettings, read_workers

LOOK = 1.0  # seconds between two looks at the events of the workers
FULL_LOOK = 30.0  # seconds between two looks at all jobs, whatever the events say
FRUITLESS = 3  # workers in a row that end without having taken a job


class WorkersFailError(RuntimeError):
    """Workers end before they take a job; the message has what they said."""


class Driver(Sweep):
    """Runs the jobs of one or several sweeps by an engine's workers."""

    def __init__(
        self,
        *args: Any,
        engine: Engine,
        reservation: DiskReservation | None = None,
        stopped_limit: float = STOPPED_LIMIT,
        **settings: Any,
    ) -> None:
        """Take an engine, and what goes with it.

        `reservation`: of the disk that the jobs will fill, let go as they write it.
        `stopped_limit`: seconds that others' workers here may stand stopped (SIGSTOP).
        """
        self.is_here = engine.jobs_per_worker is None
        super().__init__(*args, **settings)
        self.engine = engine
        self.reservation = reservation
        self._stopped_limit = stopped_limit
        if not self.is_here:
            self.at_once = min(engine.max_in_flight, settings.get("max_workers") or len(self.jobs))

    @property
    def _gpus(self) -> int:
        """GPUs that a job has."""
        return self.gpus_per_job if not self.is_here or any(self.places.values()) else 0

    def described(self) -> Record:
        """How the sweep is run, for its record."""
        return {
            "engine": self.engine.name,
            "gpus_per_job": self._gpus,
            "at_once": self.at_once,
            "grace": self.grace,
            "strangers": self.strangers,
        }

    def run(self) -> SweepResult:
        """Run what has not yet ended well; returns when all have ended, or a signal came.

        Failed jobs of earlier calls are tried again. Raises SweepRunningError where another driver
        runs one of the sweeps, EngineError where the engine cannot be used, and WorkersFailError.
        """
        began = time.monotonic()
        self._outcomes.clear()
        self._stopping = 0
        self._stop_at: float | None = None
        self._workers: dict[str, WorkerSettings] = {}
        self._elsewhere: set[int] = set()
        self._lost = LostWatch(stopped_limit=self._stopped_limit)
        self._fruitless = 0
        self._token = uuid.uuid4().hex
        self._since = time.time()
        self._trouble = ""
        self._full_look_at = 0.0
        self.engine.check()
        folders = sorted({job.folder.parent for job in self.jobs})
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            check_links(folder)
        records = [SweepRecord.open(folder, self._token, self.described()) for folder in folders]
        try:
            with Display(len(self.jobs), show=self._show) as display, StopSignals() as signals:
                self._begin(display, folders)
                try:
                    while self._unsettled:
                        self._turn(display, signals, folders)
                        if self._stopping and not self._workers:
                            break
                finally:
                    self.engine.close()
                    self._end_open_attempts()
                    self._former.look(at_once=True)
                self._leave_interrupted(display)
        finally:
            for folder, record in zip(folders, records, strict=True):
                record.close()
                let_go_on(folder)
        return self._result(self._stopping > 0, began)

    def _begin(self, display: Display, folders: Sequence[Path]) -> None:
        for folder in folders:
            let_go_on(folder)
        self._former = FormerWorkers(folders, self._stopped_limit)
        for job in self.jobs:
            job.write()
            settle_if_dead(job)
            ask_again(job, why="the sweep was started again")
        self._places = self._own_places()
        self._numbers = {job.folder: number for number, job in enumerate(self.jobs)}
        self._unsettled = dict(self._numbers)
        self._events = EventReader(folders)
        self._adopt_workers(folders)
        self._retries = RetryReader(folders)
        for job in self.jobs:
            now = standing(job)
            if now.state == "done":
                assert now.exit is not None
                outcome = outcome_from_record(job, now.exit, done_before=True)
                self._outcomes[self._unsettled.pop(job.folder)] = outcome
        display.done_before(len(self._outcomes))

    def _adopt_workers(self, folders: Sequence[Path]) -> None:
        """The workers of an earlier driver that the engine still has: they go on, and are ours."""
        if self.is_here:
            return  # they ended with it
        earlier = {
            worker.token: worker
            for folder in folders
            for worker in read_workers(folder)
            if worker.jobs is not None and set(worker.jobs) <= set(self._numbers)
        }
        for token, state in self.engine.states(list(earlier)).items():
            if state != "gone":
                self._workers[token] = earlier[token]

    def _own_places(self) -> dict[str, str]:
        if self.strangers != "leave" or not any(self.places.values()):
            return dict(self.places)
        busy = used_by_strangers(self.places, ())
        left = {lock: gpu for lock, gpu in self.places.items() if lock not in busy}
        if len(left) < self.each:
            raise ValueError(
                f"processes of others use {', '.join(busy)}, and {len(left)} GPUs are left for "
                f"jobs of {self.each}: end them, or let the sweep wait for them"
            )
        return left

    # --- one turn of the loop --------------------------------------------------------------------

    def _turn(self, display: Display, signals: StopSignals, folders: Sequence[Path]) -> None:
        self._heed_stops(display, signals, folders)
        try:
            for token, state in self._states().items():
                if state == "gone":
                    self._gone(self._workers[token], display)
                    del self._workers[token]
            self._hear(display)
            if not self._stopping:
                self._start_workers(display)
        except EngineUnreachable as error:
            display.say(f"{error}; its workers go on, trying again")
        except OSError as error:
            if not will_pass(error):
                raise
            # A full disk: the workers wait too, and the ledger is what it was.
            if str(error) != self._trouble:
                display.say(f"nothing can be written now ({error}); trying on")
            self._trouble = str(error)
        if self._unsettled and (self._workers or not self._stopping):
            self._wait(signals, min(LOOK, display.interval))
        display.update()

    def _states(self) -> dict[str, WorkerState]:
        return self.engine.states(list(self._workers)) if self._workers else {}

    def _hear(self, display: Display) -> None:
        """What the workers have done since the last turn."""
        for event in self._events.new():
            number = self._unsettled.get(event.job)
            if number is None:
                continue
            if event.kind == "taken":
                self._fruitless = 0
                display.started(self.jobs[number], event.where)
            elif event.kind == "ended":
                self._settle(number, display)
        for folder in self._retries.new():
            if folder in self._numbers and folder not in self._unsettled:
                self._unsettled[folder] = self._numbers[folder]
                display.tried_again(self._outcomes.pop(self._numbers[folder]))
        self._former.look()
        for number in list(self._elsewhere):
            self._lost.look(self.jobs[number])
            self._settle(number, display)
        if time.monotonic() >= self._full_look_at:
            self._full_look_at = time.monotonic() + FULL_LOOK
            for number in list(self._unsettled.values()):
                self._settle(number, display)
            if self.reservation is not None:
                left = [self.jobs[number] for number in self._unsettled.values()]
                self.reservation.still_needs(still_to_write(left))

    def _settle(self, number: int, display: Display) -> None:
        """Take a job off the list if it has ended for good."""
        job = self.jobs[number]
        now = standing(job)
        if now.state != "open":
            self._elsewhere.discard(number)
        if now.state in ("done", "failed"):
            assert now.exit is not None
            self._unsettled.pop(job.folder, None)
            self._finish(number, outcome_from_record(job, now.exit), display)
        elif now.state == "waiting" and now.exit is not None:
            display.waits_again(job, now.exit)

    def _gone(self, worker: WorkerSettings, display: Display) -> None:
        """A worker has ended: whatever it had open is given up, so that others can take it."""
        self._hear(display)
        fruitless = True
        for job in [self.jobs[number] for number in self._unsettled.values()]:
            claim = last_claim(job.folder)
            if claim is None or claim.get("worker") != worker.token:
                continue
            fruitless = False
            if standing(job).state == "open":
                self._give_up(job, claim, f"worker lost{_said(worker)}")
            self._settle(self._numbers[job.folder], display)
        # One that found all of its jobs taken by others is no sign of a fault.
        fruitless = fruitless and any(
            standing(self.jobs[self._numbers[folder]]).state == "waiting"
            for folder in worker.jobs or ()
        )
        self._fruitless = self._fruitless + 1 if fruitless else 0
        if self._fruitless >= FRUITLESS and not self._stopping:
            raise WorkersFailError(
                f"{self._fruitless} workers in a row ended before they took a job{_said(worker)}"
            )

    # --- starting and stopping -------------------------------------------------------------------

    def _start_workers(self, display: Display) -> None:
        most = self.engine.max_in_flight if self.is_here else self.at_once
        room = most - len(self._workers)
        if room <= 0:
            return
        having = {folder for w in self._workers.values() for folder in w.jobs or ()}
        waiting = []
        for folder, number in self._unsettled.items():
            if folder in having or number in self._elsewhere:
                continue
            state = standing(self.jobs[number]).state
            if state == "open":  # somebody else's: a worker by hand, or of another machine
                self._elsewhere.add(number)
            elif state == "waiting":
                waiting.append(self.jobs[number])
                if self.engine.jobs_per_worker is not None and len(waiting) >= room:
                    break
        if self.engine.jobs_per_worker is not None:
            for job in waiting:
                self._start([job])
        elif waiting:
            # What modules read while they are imported cannot be changed afterwards.
            env = dict(waiting[0].spec.env)
            self._start([job for job in waiting if dict(job.spec.env) == env])

    def _start(self, jobs: list[Job]) -> None:
        settings = WorkerSettings(
            sweeps=tuple(dict.fromkeys(job.folder.parent for job in jobs)),
            jobs=tuple(job.folder for job in jobs),
            places=self._places,
            each=self.each,
            at_once=self.at_once if self.is_here else 1,
            grace=self.grace,
            strangers=self.strangers,
            sweep=self._token,
            since=self._since,
            env=dict(jobs[0].spec.env),
            driver=identity() if self.is_here else None,
        )
        path = settings.write()
        env = {**settings.env, MARK_VARIABLE: NO_ATTEMPT}
        if self.is_here and not self._gpus:
            env = {**ONE_THREAD, "CUDA_VISIBLE_DEVICES": "", **env}
        self.engine.start(
            WorkerRequest(
                token=settings.token,
                command=(sys.executable, "-m", "launcher.jobs", "worker", str(path)),
                env=env,
                gpus=self._gpus,
                log=settings.file("log"),
                label=jobs[0].label if len(jobs) == 1 else f"{len(jobs)} jobs",
            )
        )
        self._workers[settings.token] = settings

    def _heed_stops(self, display: Display, signals: StopSignals, folders: Sequence[Path]) -> None:
        asked = max(signals.count, *(stop_asked(folder) for folder in folders))
        asked = min(asked, 2)
        late = self._stop_at is not None and time.monotonic() > self._stop_at
        if late:
            asked = 2
        if asked <= self._stopping:
            return
        if not self._stopping:
            display.say(f"stopping, within {self.grace:g} s; once more ends the jobs now")
            # The workers keep the grace period; we only wait for one that does not keep it.
            self._stop_at = time.monotonic() + self.grace + 2.0
        self._stopping = asked
        for folder in folders:
            with contextlib.suppress(OSError):  # a full disk: the engine tells them too
                ask_to_stop(folder, firm=asked > 1)
        self.engine.stop(list(self._workers), firm=asked > 1)

    def _give_up(self, job: Job, claim: Record, why: str) -> None:
        if self._stopping:  # it was asked to stop, and can go on
            ended = {"error_message": why, "stop_requested": True, "said_by": identity()}
            end(job, claim, "interrupted", TRY_AGAIN, **ended)
        else:
            give_up(job, claim, why)

    def _end_open_attempts(self) -> None:
        """What our workers that have ended left open is theirs no more, and can go on."""
        try:
            states = self._states()
        except EngineUnreachable:
            states = {}
        ended = {"error_message": "the sweep was stopped", "stop_requested": True}
        for worker in (w for w in self._workers.values() if states.get(w.token) == "gone"):
            for folder in worker.jobs or ():
                job, claim = self.jobs[self._numbers[folder]], last_claim(folder)
                ours = claim is not None and claim.get("worker") == worker.token
                if claim is not None and ours and standing(job).state == "open":
                    # On a full disk it stays open, and the next start finds its process dead.
                    with contextlib.suppress(OSError):
                        end(job, claim, "interrupted", TRY_AGAIN, said_by=identity(), **ended)
        self._workers = {}

    def _leave_interrupted(self, display: Display) -> None:
        for folder, number in list(self._unsettled.items()):
            job = self.jobs[number]
            if last_exit(folder) is not None:
                self._finish(number, interrupted(job), display)
                del self._unsettled[folder]

    def _wait(self, signals: StopSignals, seconds: float) -> None:
        ready, _, _ = select.select([signals.alarm], [], [], max(0.0, seconds))
        if ready:
            os.read(signals.alarm, 4096)


def _said(worker: WorkerSettings) -> str:
    lines = last_lines(worker.file("log"), count=5)
    return "; it said: " + " / ".join(lines) if lines else ""
