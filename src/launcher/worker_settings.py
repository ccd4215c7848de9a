"""What a worker is told: a record that its starter writes, and the files it keeps beside it.

SWEEP/workers/TOKEN.json      these settings
SWEEP/workers/TOKEN.beat      its sign of life, rewritten every few seconds
SWEEP/workers/TOKEN.events    a line for each job taken and ended: for displays, not the truth
SWEEP/workers/TOKEN.log       what the worker itself prints
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from launcher.ledger import Record, identity, read_record, utc_now, write_record

WORKERS = "workers"
BEAT_EVERY = 5.0  # seconds between two signs of life


@dataclass(frozen=True)
class WorkerSettings:
    """What to take, where, and how much of it at a time."""

    sweeps: tuple[Path, ...]
    """Folders of jobs; the worker's own files lie in the first."""
    jobs: tuple[Path, ...] | None = None
    """The folders of the only jobs to take; None: all of the sweeps', later ones too."""
    places: Mapping[str, str] = field(default_factory=dict)
    """GPUs or cores to lease, by the names of their locks, with their names in
    CUDA_VISIBLE_DEVICES. Empty: what an engine gave is used as it is, and nothing is leased."""
    each: int = 1
    """Places of one job."""
    at_once: int = 1
    """Jobs at the same time, at most."""
    grace: float = 10.0
    """Seconds that a job may take to stop."""
    strangers: str = "wait"
    """GPUs that others' processes use: `wait` for them, or `use` them all the same."""
    sweep: str = ""
    """Who shares in fairness as one: a token of the sweep's driver."""
    since: float = 0.0
    """When that driver started (seconds since 1970)."""
    env: Mapping[str, str] = field(default_factory=dict)
    """The environment of its jobs' specs; jobs with another are left to other workers."""
    driver: Record | None = None
    """The process to die with, as `identity` names it; None: it lives by itself."""
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    def file(self, kind: str) -> Path:
        """One of the worker's files: json, beat, events or log."""
        return self.sweeps[0] / WORKERS / f"{self.token}.{kind}"

    def write(self) -> Path:
        """Put the settings where the worker reads them."""
        path = self.file("json")
        path.parent.mkdir(exist_ok=True)
        record = asdict(self)
        record["sweeps"] = [str(folder) for folder in self.sweeps]
        record["jobs"] = None if self.jobs is None else [str(folder) for folder in self.jobs]
        write_record(path, {**record, "written_at": utc_now()}, durable=False)
        return path

    @classmethod
    def read(cls, path: Path) -> WorkerSettings:
        """The settings in a file."""
        record = read_record(path)
        if record is None:
            raise FileNotFoundError(f"{path} is not there: it names a worker's settings")
        record.pop("written_at")
        jobs = record.pop("jobs")
        settings = cls(
            sweeps=tuple(Path(folder) for folder in record.pop("sweeps")),
            jobs=None if jobs is None else tuple(Path(folder) for folder in jobs),
            **record,
        )
        # The folder may have been moved, or be mounted elsewhere on this machine.
        return replace(settings, sweeps=(path.parent.parent, *settings.sweeps[1:]))


class WorkerFiles:
    """The worker's side of its sign of life and its events."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._beats = 0
        self._next = 0.0

    def beat(self, **about: Any) -> None:
        """A sign of life, if it is time for one."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + BEAT_EVERY
        self._beats += 1
        record = {**identity(), "beat": self._beats, "at": utc_now(), **about}
        with contextlib.suppress(OSError):  # a full disk is no reason to end
            write_record(self._settings.file("beat"), record, durable=False)

    def event(self, what: str, job: Path, **about: Any) -> None:
        """A line for the displays; one write, by one writer."""
        line = json.dumps({"event": what, "job": str(job), "at": utc_now(), **about}) + "\n"
        try:
            with self._settings.file("events").open("ab", buffering=0) as file:
                file.write(line.encode())
        except OSError:  # a full disk: the records are the truth
            return


def read_workers(sweep: Path) -> list[WorkerSettings]:
    """All workers that a sweep has had."""
    found = []
    for path in sorted((sweep / WORKERS).glob("*.json")):
        try:
            found.append(WorkerSettings.read(path))
        except (OSError, ValueError, TypeError):
            continue
    return found


class BeatWatch:
    """Which workers have been silent for how long, by this process's own clock.

    No two machines need to agree on the time: a sign of life is one that has changed.
    """

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[int, float]] = {}

    def silent_for(self, beat: Path) -> float:
        """Seconds since we last saw the file change; 0 when it is seen for the first time."""
        try:
            # Opened, since a network file system may answer a stat from its cache for a minute.
            with beat.open("rb") as file:
                stamp = os.fstat(file.fileno()).st_mtime_ns
        except OSError:
            stamp = 0
        now = time.monotonic()
        before = self._seen.get(beat)
        if before is None or before[0] != stamp:
            self._seen[beat] = (stamp, now)
            return 0.0
        return now - before[1]
