"""The jobs that a worker may still take, in order; looked at one by one, never all at once.

A job is read from the disk when its turn comes, so that the next one is found as fast among ten
thousand as among ten.
"""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

from launcher.asked_again import RetryReader
from launcher.attempt import give_up, settle_if_dead
from launcher.claims import last_claim, standing
from launcher.jobs import Job
from launcher.ledger import SPEC_FILE, liveness
from launcher.worker_settings import WORKERS, BeatWatch, WorkerSettings

LOOK_AGAIN = 2.0  # seconds between two looks at the jobs that others have
SILENCE = 60.0  # seconds without a sign of life after which a worker elsewhere is given up


class ForeignJobError(PermissionError):
    """A job that another user wrote: it could be any program, and is not run."""


class Queue:
    """The waiting jobs of a worker's sweeps."""

    def __init__(self, settings: WorkerSettings, *, silence: float = SILENCE) -> None:
        self._settings = settings
        self._silence = silence
        self._waiting: deque[Path] = deque()
        self._elsewhere: list[Path] = []
        self._known: set[Path] = set()
        self._beats = BeatWatch()
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
            job = self._load(self._waiting[0])
            if job is not None and dict(job.spec.env) == dict(self._settings.env):
                now = standing(job)
                if now.state == "waiting":
                    return job
                if now.state == "open":
                    self._elsewhere.append(job.folder)
            self._waiting.popleft()
        return None

    def drop(self) -> None:
        """Go on to the job behind the first."""
        self._waiting.popleft()

    def back(self, job: Job) -> None:
        """A job whose attempt has ended: it may want another."""
        if standing(job).state == "waiting":
            self._waiting.append(job.folder)

    def _load(self, folder: Path) -> Job | None:
        try:
            return Job.load(folder)
        except (OSError, ValueError) as error:
            print(f"{folder} is left out: {error}", flush=True)
            return None

    def _look_again(self) -> None:
        """At new jobs, and at those that others have had."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_AGAIN
        self._look_for_new()
        self._waiting.extend(folder for folder in self._retries.new() if folder in self._known)
        left = []
        for folder in self._elsewhere:
            job = self._load(folder)
            if job is None:
                continue
            self._give_up_the_dead(job)
            now = standing(job)
            if now.state == "waiting":
                self._waiting.append(folder)
            elif now.state == "open":
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

    def _give_up_the_dead(self, job: Job) -> None:
        settle_if_dead(job)
        claim = last_claim(job.folder)
        if claim is None or liveness({"status": "running", **claim}) != "unknown":
            return
        worker = claim.get("worker")
        beat = job.folder.parent / WORKERS / f"{worker}.beat"
        if self._beats.silent_for(beat) > self._silence:
            give_up(job, claim, f"no sign of life from {claim['host']} for {self._silence:.0f} s")


def job_folders(sweep: Path) -> list[Path]:
    """The folders of all jobs of a sweep, by name."""
    return [path.parent for path in sorted(sweep.glob(f"*/{SPEC_FILE}"))]


def refuse_foreign(job: Job, settings: WorkerSettings) -> None:
    """Raise ForeignJobError if the spec belongs to another user than this worker's own files.

    Files are compared with files, since a network file system may know us by another number.
    """
    own = settings.file("events").stat().st_uid
    spec = job.folder / SPEC_FILE
    if spec.stat().st_uid != own:
        raise ForeignJobError(
            f"{spec} was written by user {spec.stat().st_uid} and not by {own}: it could be any "
            "program, and is not run; copy it to a sweep of your own"
        )
