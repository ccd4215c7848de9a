"""Open attempts whose workers are gone: known to be dead, silent elsewhere, or stopped here."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from launcher.attempt import give_up, settle_if_dead
from launcher.claims import last_claim, standing
from launcher.jobs import Job
from launcher.ledger import Record, liveness, process_liveness, read_record
from launcher.processes import end_processes
from launcher.worker_settings import WORKERS, BeatWatch, WorkerSettings

SILENCE = 60.0  # seconds without a sign of life after which a worker elsewhere is given up
STOPPED_LIMIT = 30.0  # seconds that a worker may stand stopped (SIGSTOP) before it is ended


class LostWatch:
    """Looks at jobs that others have taken, again and again, and gives up what will not end."""

    def __init__(
        self, *, silence: float = SILENCE, stopped_limit: float = STOPPED_LIMIT, own: str = ""
    ) -> None:
        """`own`: the token of the worker that looks, which an engine may have started again."""
        self._silence = silence
        self._own = own
        self._beats = BeatWatch()
        self._stopped = StoppedWatch(stopped_limit)

    def look(self, job: Job) -> None:
        """Give the job's open attempt up if its worker is gone."""
        settle_if_dead(job)
        claim = last_claim(job.folder)
        if claim is None or not claim.get("worker") or standing(job).state != "open":
            return
        alive = liveness({"status": "running", **claim})
        stopped = alive == "alive" and self._stopped.too_long(claim["pid"])
        if stopped and _is_local(job.folder.parent / WORKERS / f"{claim['worker']}.json"):
            give_up(job, claim, "its worker stood stopped")
        elif alive == "unknown" and claim["worker"] == self._own:
            give_up(job, claim, f"its worker was started again, away from {claim['host']}")
        elif alive == "unknown" and self._silent(job, claim):
            give_up(job, claim, f"no sign of life from {claim['host']} for {self._silence:.0f} s")

    def _silent(self, job: Job, claim: Record) -> bool:
        beat = job.folder.parent / WORKERS / f"{claim['worker']}.beat"
        return self._beats.silent_for(beat) > self._silence


class FormerWorkers:
    """Workers that earlier drivers of a sweep started on this machine, or that joined it by hand.

    They end by themselves, and what they leave running dies with them; but one that was killed, or
    stands stopped after its driver's death, has nobody else who looks.
    """

    def __init__(self, sweeps: Sequence[Path], stopped_limit: float = STOPPED_LIMIT) -> None:
        """Ends what the dead ones left running."""
        self._stopped = StoppedWatch(stopped_limit)
        self._alive: dict[str, Record] = {}
        dead = []
        for path in (path for sweep in sweeps for path in (sweep / WORKERS).glob("*.beat")):
            with contextlib.suppress(OSError, ValueError):
                beat = read_record(path) or {}
                alive = process_liveness(beat) if "pid" in beat else "unknown"
                if alive == "unknown" or not _is_local(path.with_suffix(".json")):
                    continue
                if alive == "alive":
                    self._alive[path.stem] = beat
                else:
                    dead.append(path.stem)
        end_processes(dead)

    def look(self, *, at_once: bool = False) -> None:
        """End those that have stood stopped for too long, or, `at_once`, that stand stopped."""
        for token, beat in list(self._alive.items()):
            dead = process_liveness(beat) == "dead"
            if dead or self._stopped.too_long(beat["pid"], at_once=at_once):
                end_processes([token])
                del self._alive[token]


def _is_local(settings: Path) -> bool:
    """Whether a worker leases its GPUs itself; an engine may suspend and restart its own."""
    try:
        return bool(WorkerSettings.read(settings).places)
    except (OSError, ValueError, TypeError, KeyError):
        return False


class StoppedWatch:
    """Since when processes of this machine stand stopped, as far as we have seen."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._since: dict[int, float] = {}

    def too_long(self, pid: int, *, at_once: bool = False) -> bool:
        """Whether the process has stood stopped for longer than the limit, or stands so at all."""
        try:
            stopped = psutil.Process(pid).status() == psutil.STATUS_STOPPED
        except psutil.Error:
            stopped = False
        if not stopped:
            self._since.pop(pid, None)
            return False
        since = self._since.setdefault(pid, time.monotonic())
        return at_once or time.monotonic() - since > self._limit
