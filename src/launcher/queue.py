"""The jobs that a worker may still take, in order; looked at one by one, never all at once.

A job is read from the disk when its turn comes, so that the next one is found as fast among ten
thousand as among ten.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from pathlib import Path

from launcher.asked_again import RetryReader
from launcher.claims import State, standing
from launcher.jobs import Job, JobSpec
from launcher.ledger import SPEC_FILE, job_folders
from launcher.lost import SILENCE, LostWatch
from launcher.worker_settings import WorkerSettings

LOOK_AGAIN = 2.0  # seconds between two looks at the jobs that others have


class ForeignJobError(PermissionError):
    """A job that another user wrote: it could be any program, and is not run."""


class Queue:
    """The waiting jobs of a worker's sweeps."""

    def __init__(self, settings: WorkerSettings, *, silence: float = SILENCE) -> None:
        self._settings = settings
        self._waiting: deque[Path] = deque()
        self._elsewhere: list[Path] = []
        self._known: set[Path] = set()
        self._lost = LostWatch(silence=silence, own=settings.token)
        self._retries = RetryReader(settings.sweeps)
        self._look_at = 0.0
        self._look_for_new()

    def __len__(self) -> int:
        """Jobs whose turn has not come; some of them may have been done by others."""
        return len(self._waiting)

    def next(self) -> Job | None:
        """The first job that can be taken, or None. It stays the first until `drop`."""
        if not self._waiting:
            self._look_again()
        while self._waiting:
            job, state = self._load(self._waiting[0])
            if job is not None and dict(job.spec.env) == dict(self._settings.env):
                if state == "waiting":
                    return job
                if state == "open":
                    self._elsewhere.append(job.folder)
            self._waiting.popleft()
        return None

    def drop(self) -> None:
        """Go on to the job behind the first."""
        if self._waiting:
            self._waiting.popleft()

    def back(self, job: Job) -> None:
        """A job whose attempt has ended: it may want another."""
        now = standing(job)
        if now.state == "waiting":
            self._waiting.append(job.folder)
        elif now.state == "open":  # somebody else was faster
            self._elsewhere.append(job.folder)

    def _load(self, folder: Path) -> tuple[Job | None, State]:
        try:
            job = Job.load(folder)
            return job, standing(job).state
        except (FileNotFoundError, ValueError) as error:
            print(f"{folder} is left out: {error}", flush=True)
            return None, "failed"

    def _look_again(self) -> None:
        """At new jobs, and at those that others have had."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_AGAIN
        self._look_for_new()
        self._waiting.extend(folder for folder in self._retries.new() if folder in self._known)
        left = []
        for folder in self._elsewhere:
            job, state = self._load(folder)
            if job is not None and state == "open":
                self._lost.look(job)
                state = standing(job).state
            if state == "waiting":
                self._waiting.append(folder)
            elif state == "open":
                left.append(folder)
        self._elsewhere = left

    def _look_for_new(self) -> None:
        if self._settings.jobs is not None:
            found = self._settings.jobs
        else:
            found = tuple(job for sweep in self._settings.sweeps for job in job_folders(sweep))
        new = [folder for folder in found if folder not in self._known]
        self._known.update(new)
        self._waiting.extend(new)


def refuse_foreign(job: Job, settings: WorkerSettings) -> None:
    """Raise ForeignJobError if the spec belongs to another user than this worker's own files.

    Files are compared with files, since a network file system may know us by another number.
    """
    try:
        own = settings.file("events").stat().st_uid
    except FileNotFoundError:  # a full disk refused it
        own = os.geteuid()
    path = job.folder / SPEC_FILE
    # What was read and whose it is are asked of one open file: a path may change in between.
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), encoding="utf-8") as file:  # noqa: PTH123
        owner = os.fstat(file.fileno()).st_uid
        same = JobSpec.from_record(json.load(file)) == job.spec
    if owner != own:
        raise ForeignJobError(
            f"{path} was written by user {owner} and not by {own}: it could be any program, and "
            "is not run; copy it to a sweep of your own"
        )
    if not same:
        raise ForeignJobError(f"{path} has just been changed, and is not run before it is read")
