"""A tracker in a thread of its own: whatever it does, the run trains on.

    thread = TrackerThread("wandb", make, run, backlog)
    thread.tell((42, 0), {"train/loss": 2.3})     # never waits, never raises
    thread.close("completed")                     # waits for PATIENCE seconds at most

How far it has been told lies in a file, so that an attempt that goes on tells nothing twice.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oocr_influence.cli.trackers import NOTHING_TOLD, Moment, TrackedRun, Tracker

logger = logging.getLogger("oocr_influence")

QUEUE_SIZE = 50_000  # tellings: minutes of the fastest steps, and some 50 MB
PATIENCE = 60.0  # seconds that a run waits at its end for what is told to be stored
PATIENCE_WITH_A_FAULT = 2.0

Telling = tuple[Moment, Mapping[str, float]]


@dataclass(frozen=True)
class _End:
    status: str


class TrackerThread:
    """Tells one tracker of one run.

    `backlog` is what the run's own files say has happened so far: what of it the tracker was not
    told comes first.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Tracker],
        run: TrackedRun,
        backlog: Iterable[Telling] = (),
    ) -> None:
        self.name = name
        self.fault: str | None = None
        self._make, self._run, self._backlog = make, run, list(backlog)
        self._told = ToldMark(run.folder / f"{name}.told")
        self._queue: queue.Queue[Telling | _End] = queue.Queue(QUEUE_SIZE)
        self._tracker: Tracker | None = None
        self._saying = threading.Lock()
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def tell(self, moment: Moment, values: Mapping[str, float]) -> None:
        """Hand it over; after a fault nothing more is."""
        if self.fault is not None:
            return
        try:
            self._queue.put_nowait((moment, values))
        except queue.Full:
            self._fail(f"it does not keep up: {QUEUE_SIZE} tellings wait at step {moment[0]}")

    def close(self, status: str) -> None:
        """Say how the run ended, and wait a little until all is stored."""
        with_fault = self.fault is not None
        try:
            self._queue.put_nowait(_End(status))
        except queue.Full:
            with_fault = True
        self._thread.join(PATIENCE_WITH_A_FAULT if with_fault else PATIENCE)
        if self._thread.is_alive():
            self._fail(f"it did not end within {PATIENCE:g} s")
        if self.fault is not None and self._tracker is not None:
            with suppress(Exception):
                self._tracker.abandon()

    def record(self) -> dict[str, Any]:
        """For the run's log: up to which step it was told, and what went wrong."""
        told = self._told.read()
        return {"told_to_step": None if told == NOTHING_TOLD else told[0], "fault": self.fault}

    def _work(self) -> None:
        try:
            self._tracker = tracker = self._make()
            told = self._told.read()
            after = tracker.start(self._run, told)
            if after < told:
                self._told.write(after)
            for telling in self._backlog:
                after = self._pass_on(tracker, telling, after)
            self._backlog = []
            while not isinstance(item := self._queue.get(), _End):
                after = self._pass_on(tracker, item, after)
            tracker.finish(item.status)
        except BaseException as error:  # SystemExit too: W&B leaves by it where a key is missing
            self._fail(f"{type(error).__name__}: {error}")
        finally:
            self._told.close()

    def _pass_on(self, tracker: Tracker, telling: Telling, after: Moment) -> Moment:
        moment, values = telling
        if moment <= after:
            return after
        tracker.log(moment[0], values)
        self._told.write(moment)
        return moment

    def _fail(self, fault: str) -> None:
        with self._saying:
            if self.fault is not None:
                return
            self.fault = fault
        logger.warning(
            "%s is not told any more (%s); the run goes on, and its own files are complete",
            self.name,
            fault,
        )


class ToldMark:
    """The last moment that a tracker was told of, in a file of one short line.

    It is written in place: a process that is killed leaves the last one or the one before.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def read(self) -> Moment:
        """NOTHING_TOLD where there is none, or none that can be read."""
        try:
            step, kind = self._path.read_text(encoding="ascii").split()
            return int(step), int(kind)
        except (OSError, ValueError):
            return NOTHING_TOLD

    def write(self, moment: Moment) -> None:
        if self._descriptor is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o644)
        os.pwrite(self._descriptor, b"%12d %d\n" % moment, 0)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
