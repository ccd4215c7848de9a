"""Open attempts whose workers are gone: known to be dead, silent elsewhere, or stopped here."""

from __future__ import annotations

import time

import psutil

from launcher.attempt import give_up, settle_if_dead
from launcher.claims import last_claim, standing
from launcher.jobs import Job
from launcher.ledger import Record, liveness
from launcher.worker_settings import WORKERS, BeatWatch

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
        if alive == "alive" and self._stopped.too_long(claim["pid"]):
            give_up(job, claim, "its worker stood stopped")
        elif alive == "unknown" and claim["worker"] == self._own:
            give_up(job, claim, f"its worker was started again, away from {claim['host']}")
        elif alive == "unknown" and self._silent(job, claim):
            give_up(job, claim, f"no sign of life from {claim['host']} for {self._silence:.0f} s")

    def _silent(self, job: Job, claim: Record) -> bool:
        beat = job.folder.parent / WORKERS / f"{claim['worker']}.beat"
        return self._beats.silent_for(beat) > self._silence


class StoppedWatch:
    """Since when processes of this machine stand stopped, as far as we have seen."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._since: dict[int, float] = {}

    def too_long(self, pid: int) -> bool:
        """Whether the process has stood stopped for longer than the limit."""
        try:
            stopped = psutil.Process(pid).status() == psutil.STATUS_STOPPED
        except psutil.Error:
            stopped = False
        if not stopped:
            self._since.pop(pid, None)
            return False
        since = self._since.setdefault(pid, time.monotonic())
        return time.monotonic() - since > self._limit
