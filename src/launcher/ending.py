"""Stopping a sweep from outside, and making sure that nothing of it is left.

In order first: stop.json for every worker anywhere, SIGTERM for a driver of this machine. Then
firmly, the same way. Then, on this machine, by killing all that carries the sweep's tokens. A
request to stop stays in the folder, so that no worker joins again until the sweep goes on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from launcher.claims import end, is_open, last_claim
from launcher.jobs import Job
from launcher.ledger import Record, identity, liveness, process_liveness, read_record
from launcher.processes import end_processes, processes_of
from launcher.retries import TRY_AGAIN
from launcher.status import job_paths
from launcher.stopping import ask_to_stop, stop_asked
from launcher.sweep import SWEEP_FILE
from launcher.worker_settings import WORKERS, BeatWatch

LOOK = 0.2  # seconds between two looks
KILLING = 12.0  # seconds that a firm stop may take before everything here is killed
FRESH = 10.0  # seconds; a worker elsewhere whose sign of life is older has ended, or cannot be seen

Say = Callable[[str], None]


class SweepEnding:
    """One sweep that shall end."""

    def __init__(self, sweep: Path) -> None:
        self._sweep = sweep
        self._open = {path: claim for path in job_paths(sweep) if (claim := _open_claim(path))}
        self._beats = BeatWatch()
        # What jobs without a worker have started, which nobody else would end.
        self._started = [child for claim in self._by_hand() for child in _children(claim["pid"])]

    def stop(self, *, now: bool, patience: float, say: Say) -> list[str]:
        """End the sweep; what is left of it, in words, which is nothing where all went well.

        `patience`: seconds that jobs may take to stop in order before they are ended firmly.
        """
        self._ask(firm=now)
        if not now and self._wait(patience):
            say(f"not ended within {patience:g} s: ending it firmly")
            self._ask(firm=True)
        if self._wait(KILLING, firm=True):
            self._kill()
        left = self.left()
        if not self._by_hand():
            for child in self._started:
                with contextlib.suppress(psutil.Error):
                    child.kill()
        self._settle()
        if stop_asked(self._sweep) == 0:  # an ending driver has taken it back
            ask_to_stop(self._sweep)
        return left

    def left(self) -> list[str]:
        """What of the sweep still lives, in words."""
        found = []
        driver = self._driver()
        if driver is not None:
            found.append(f"its driver, process {driver['pid']} on {driver['host']}")
        if pids := processes_of(self._tokens()):
            found.append(f"processes {', '.join(map(str, pids))} on this machine")
        for path in self._still_open():
            claim = self._open[path]
            if liveness({"status": "running", **claim}) == "unknown":
                found.append(f"job {path.name} on {claim['host']}")
        for claim in self._by_hand():
            found.append(f"process {claim['pid']}, which runs a job by itself")
        return found + self._workers_elsewhere()

    def _ask(self, *, firm: bool) -> None:
        ask_to_stop(self._sweep, firm=firm)
        driver = self._driver()
        if driver is not None and process_liveness(driver) == "alive":
            with contextlib.suppress(ProcessLookupError):
                os.kill(driver["pid"], signal.SIGTERM)
        for claim in self._by_hand():
            with contextlib.suppress(ProcessLookupError):
                os.kill(claim["pid"], signal.SIGTERM)

    def _by_hand(self) -> list[Record]:
        """The open claims of live processes of this machine that belong to no worker: they look at
        no request, and their environment names no token."""
        claims = [self._open[path] for path in self._still_open()]
        return [
            claim
            for claim in claims
            if not claim.get("worker") and liveness({"status": "running", **claim}) == "alive"
        ]

    def _wait(self, seconds: float, *, firm: bool = False) -> list[str]:
        deadline = time.monotonic() + seconds
        while (left := self.left()) and time.monotonic() < deadline:
            time.sleep(LOOK)
            if stop_asked(self._sweep) == 0 and self.left():
                # The driver took it back as it ended; workers that are not its own must still see.
                ask_to_stop(self._sweep, firm=firm)
        return left

    def _kill(self) -> None:
        driver = self._driver()
        if driver is not None and process_liveness(driver) == "alive":
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(driver["pid"], signal.SIGKILL)
        for claim in self._by_hand():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(claim["pid"], signal.SIGKILL)
        end_processes(self._tokens())

    def _settle(self) -> None:
        """Record the end of attempts that were killed before they could, so that they go on."""
        why = {"error_message": "the sweep was stopped", "said_by": identity()}
        for path in job_paths(self._sweep):  # some may have been taken since we came
            claim = _open_claim(path)
            if claim is not None and liveness({"status": "running", **claim}) == "dead":
                end(Job.load(path), claim, "interrupted", TRY_AGAIN, stop_requested=True, **why)

    def _still_open(self) -> list[Path]:
        for path in self._open:
            # An attempt may have ended, and another been taken, before the request was seen.
            if (claim := _open_claim(path)) is not None:
                self._open[path] = claim
        return [path for path in self._open if _open_claim(path) is not None]

    def _tokens(self) -> list[str]:
        workers = [path.stem for path in (self._sweep / WORKERS).glob("*.json")]
        return workers + [claim["attempt"] for claim in self._open.values()]

    def _driver(self) -> Record | None:
        """The driver, unless it has ended or is known to be dead."""
        record = read_record(self._sweep / SWEEP_FILE)
        if record is None or record.get("ended_at") is not None:
            return None
        driver: Record = record["driver"]
        return None if process_liveness(driver) == "dead" else driver

    def _workers_elsewhere(self) -> list[str]:
        """Workers of other machines that have not said that they ended, and seem to live."""
        found = []
        for path in (self._sweep / WORKERS).glob("*.beat"):
            beat = _quietly(path)
            if beat is None or process_liveness(beat) != "unknown":
                continue
            ended = _said_that_it_ended(path.with_suffix(".events"))
            if not ended and self._beats.silent_for(path) < FRESH:
                found.append(f"a worker, process {beat['pid']} on {beat['host']}")
        return found


def _open_claim(path: Path) -> Record | None:
    claim = last_claim(path)
    return claim if claim is not None and is_open(path, claim["attempt_number"]) else None


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def _quietly(path: Path) -> Record | None:
    try:
        return read_record(path)
    except (OSError, ValueError):
        return None


def _said_that_it_ended(events: Path) -> bool:
    try:
        lines = events.read_bytes().splitlines()
    except OSError:
        return False
    # Of the worker itself; a job's line names the job.
    return bool(lines) and b'"event": "ended"' in lines[-1] and b"attempt_number" not in lines[-1]
