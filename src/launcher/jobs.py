"""A job as data, and the process that runs it.

    python -m launcher.jobs run JOB_FOLDER     run one job here, in the foreground
    python -m launcher.jobs worker SWEEP       take jobs of a sweep until there are none

A job is a function and its arguments: `module:function` plus JSON, in a folder of its own. The
function is called as `function(args, job)`, where `job` is a `RunningJob`, and returns something
that JSON can hold, or None.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from launcher.claims import ended_attempts, is_open, read_exit, read_state, standing
from launcher.ledger import (
    LOG_FILE,
    SPEC_FILE,
    STATE_FILE,
    Record,
    is_alive,
    job_folders,
    liveness,
    read_record,
    utc_now,
    write_record,
)
from launcher.retries import TRY_AGAIN, on_exit_faults

__all__ = [
    "TRY_AGAIN",
    "Job",
    "JobInterrupted",
    "JobSpec",
    "RunningJob",
    "is_alive",
    "liveness",
    "load_jobs",
    "read_exit",
    "read_state",
]

_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_REPORT_INTERVAL = 0.5  # seconds between two writes of state.json


class JobInterrupted(Exception):
    """Raised by a job's function that stopped early, as it was asked to, and can be run again."""


@dataclass(frozen=True)
class JobSpec:
    """What to run. Equal after a round trip through JSON; refused with all its faults at once."""

    id: str
    """Names the job within its sweep, and its folder."""
    function: str
    """`module:function`, importable by a fresh `python -m` in the same working directory."""
    args: Mapping[str, Any] = field(default_factory=dict)
    """The function's first argument."""
    label: str = ""
    """Short name for people; the id where it is empty."""
    preload: Sequence[str] = ()
    """Modules that a worker imports once, for all its jobs; they must leave the GPU alone."""
    on_exit: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Kind of end to {retry: bool, patch: changed arguments, limit: tries}; see `retries.py`."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables set before anything is imported."""
    silence_limit: float | None = None
    """Seconds without a report after which the job counts as hung and is killed; None: never."""
    disk_bytes: int = 0
    """What the job will leave on the disk of its sweep (bytes), reserved until it is done."""

    def __post_init__(self) -> None:
        faults = self._faults()
        if faults:
            raise ValueError(f"job {self.id!r}: " + "; ".join(faults))
        object.__setattr__(self, "label", self.label or self.id)
        object.__setattr__(self, "preload", tuple(self.preload))

    def _faults(self) -> list[str]:
        faults = []
        if not self.id or self.id.startswith(".") or re.search(r"[/\0\n]", self.id):
            faults.append("the id must be usable as a folder's name")
        if not _FUNCTION.fullmatch(self.function):
            faults.append(f"function {self.function!r} is not of the form 'module:function'")
        if isinstance(self.preload, str) or not all(map(_MODULE.fullmatch, self.preload)):
            faults.append(f"preload {self.preload!r} is not a list of module names")
        try:
            if json.loads(json.dumps(dict(self.args))) != self.args:
                faults.append("args change in a round trip through JSON (tuples? keys not text?)")
        except (TypeError, ValueError) as error:
            faults.append(f"args are not JSON: {error}")
        if not all(isinstance(part, str) for pair in self.env.items() for part in pair):
            faults.append("env must map text to text")
        if "CUDA_VISIBLE_DEVICES" in self.env:
            faults.append("env must not set CUDA_VISIBLE_DEVICES: the launcher gives out the GPUs")
        if self.silence_limit is not None and not self.silence_limit > 0:
            faults.append(f"silence_limit must be above 0 seconds, not {self.silence_limit}")
        return faults + on_exit_faults(self.on_exit)

    def as_record(self) -> Record:
        """The content of spec.json."""
        return asdict(self) | {"preload": list(self.preload)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> JobSpec:
        """A spec from the content of spec.json."""
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(record) - known):
            raise ValueError(f"a job's spec has no {unknown}; known keys: {sorted(known)}")
        if missing := sorted({"id", "function"} - set(record)):
            raise ValueError(f"a job's spec lacks {missing}")
        return cls(**record)


@dataclass(frozen=True)
class Job:
    """A spec and the folder where its records lie; jobs of one pool may lie anywhere."""

    spec: JobSpec
    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder).absolute())

    @property
    def label(self) -> str:
        """The job's name for people."""
        return self.spec.label

    @property
    def log(self) -> Path:
        """Everything the job printed, over all its attempts."""
        return self.folder / LOG_FILE

    def write(self) -> None:
        """Put spec.json in place; refuses to rename what a finished job has done."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path, record = self.folder / SPEC_FILE, self.spec.as_record()
        before = read_record(path)
        if before == record:
            return
        if before is not None and is_alive(read_state(self.folder)):
            raise ValueError(f"{self.folder}: a live process runs this job from another spec")
        done = standing(self).state == "done"
        changed = [k for k in ("function", "args") if before and before.get(k) != record[k]]
        if done and changed:
            raise ValueError(f"{self.folder} was finished with another {' and '.join(changed)}")
        write_record(path, record)

    @classmethod
    def load(cls, folder: Path) -> Job:
        """The job of a folder."""
        folder = Path(folder)
        record = read_record(folder / SPEC_FILE)
        if record is None:
            raise FileNotFoundError(f"{folder} is not a job's folder: it has no {SPEC_FILE}")
        try:
            return cls(JobSpec.from_record(record), folder)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{folder / SPEC_FILE}: {error}") from None


def load_jobs(jobs_folder: Path) -> list[Job]:
    """Every job below `jobs_folder`, by name."""
    return [Job.load(folder) for folder in job_folders(jobs_folder)]


class RunningJob:
    """What a job's function can ask and tell while it runs."""

    def __init__(self, job: Job, state: Record) -> None:
        self.job = job
        self.state = state
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._written = 0.0

    @property
    def folder(self) -> Path:
        """Where the job's records lie."""
        return self.job.folder

    @property
    def spec(self) -> JobSpec:
        """What is being run."""
        return self.job.spec

    @property
    def args(self) -> dict[str, Any]:
        """The function's arguments, those that an earlier attempt's end changed included."""
        return {**self.job.spec.args, **self.state.get("patch", {})}

    def has_ended(self, attempt: str) -> bool:
        """Whether `attempt`, a token, is an earlier attempt of this job, and recorded as ended."""
        return attempt in ended_attempts(self.folder)

    @property
    def stop_requested(self) -> bool:
        """Whether SIGTERM or SIGUSR1 came: save, then raise `JobInterrupted`."""
        return self._stop.is_set()

    def request_stop(self) -> None:
        """Ask the function to stop at its next convenience."""
        self._stop.set()

    def may_save(self) -> bool:
        """Whether this attempt still owns the job; ask before each save.

        An attempt that was given up for dead and came back finds its end recorded.
        """
        return is_open(self.folder, self.state["attempt_number"])

    def report(self, values: Mapping[str, Any]) -> None:
        """Say how far the job is; keys given before and not now are kept.

        `completed`, `total` and `message` are what the progress display shows; `disk_bytes` is what
        the job has written so far. A report is also the sign of life that `silence_limit` waits
        for. Cheap enough for every step: state.json is written at most twice a second.
        """
        json.dumps(dict(values))  # what JSON cannot hold is refused here, not at some later write
        with self._lock:
            self.state["report"] = {**self.state.get("report", {}), **values}
            self.state["reported_at"] = utc_now()
            wait = self._written + _REPORT_INTERVAL - time.monotonic()
            if wait <= 0:
                self._write()
            elif self._timer is None:
                # The last report before a long silence must be seen too.
                self._timer = threading.Timer(wait, self._late)
                self._timer.daemon = True
                self._timer.start()

    def _late(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._write()

    def _write(self) -> None:
        self._timer = None
        self._written = time.monotonic()
        try:
            if self.may_save():
                write_record(self.folder / STATE_FILE, self.state, durable=False)
        except OSError:
            # A full disk must not end a run that only wanted to say how far it is, nor make it
            # look as if it hung.
            with contextlib.suppress(OSError):
                os.utime(self.folder / STATE_FILE)

    def close(self) -> None:
        """End reporting; nothing is written by this object afterwards."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None


if __name__ == "__main__":
    import sys

    # By its own name: this module runs as __main__, and a job's JobInterrupted is the other one's.
    from launcher.command_line import main

    sys.exit(main())
