"""Free disk that sweeps count on, so that no two count the same bytes."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

from launcher.claims import read_state, standing
from launcher.host import Entry, Host, living
from launcher.jobs import Job


class NoRoomError(OSError):
    """The free disk is not enough, or other sweeps count on it."""

    def __init__(self, needed: int, free: int, reserved: int) -> None:
        super().__init__(f"{needed} bytes are needed, {free} are free, {reserved} reserved")
        self.free = free
        self.reserved = reserved
        """What other live sweeps still need there (bytes)."""


class DiskReservation(Entry):
    """Free disk that a sweep counts on, until this process ends or has written it.

    Made in one moment with the question whether there is enough, so that sweeps that start in the
    same second do not all count the same bytes.
    """

    def __init__(self, host: Host, place: Path, needed: int, *, what: str) -> None:
        """Reserve `needed` bytes beside `place`, which need not exist yet, for `what`.

        Raises NoRoomError where there is less, counting what other live sweeps still need there.
        """
        line = (place.absolute(), *place.absolute().parents)
        self.there = next(path for path in line if path.exists())
        device = self.there.stat().st_dev
        with host.arbiter():
            free = shutil.disk_usage(self.there).free
            reserved = sum(
                int(seen.record.get("bytes", 0))
                for seen in living(host.reservations)
                if seen.record.get("device") == device
            )
            if needed > free - reserved:
                raise NoRoomError(needed, free, reserved)
            record = {"device": device, "place": str(place), "bytes": needed, "what": what}
            super().__init__(host.reservations, uuid.uuid4().hex, record)

    def still_needs(self, needed: int) -> None:
        """Say how much of it is not yet written (bytes)."""
        if needed != self.record["bytes"]:
            self.write(bytes=needed)


def still_to_write(jobs: Iterable[Job]) -> int:
    """What unfinished jobs will still write, by their specs and by what they reported (bytes)."""
    total = 0
    for job in jobs:
        if job.spec.disk_bytes == 0 or standing(job).state == "done":
            continue
        report = (read_state(job.folder) or {}).get("report") or {}
        total += max(0, job.spec.disk_bytes - int(report.get("disk_bytes", 0)))
    return total
