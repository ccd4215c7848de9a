"""Free disk that sweeps count on, so that no two count the same bytes."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from launcher.host import Entry, Host, living


class NoRoomError(OSError):
    """The free disk is not enough, or other sweeps count on it."""


class DiskReservation(Entry):
    """Free disk that a sweep counts on, until this process ends or has written it.

    Made in one moment with the question whether there is enough, so that sweeps that start in the
    same second do not all count the same bytes.
    """

    def __init__(self, host: Host, place: Path, needed: int, *, what: str) -> None:
        """Reserve `needed` bytes beside `place`, which need not exist yet, for `what`.

        Raises NoRoomError where there is less, counting what other live sweeps still need there.
        """
        there = next(
            path for path in (place.absolute(), *place.absolute().parents) if path.exists()
        )
        device = there.stat().st_dev
        with host.arbiter():
            free = shutil.disk_usage(there).free
            others = sum(
                int(seen.record.get("bytes", 0))
                for seen in living(host.reservations)
                if seen.record.get("device") == device
            )
            if needed > free - others:
                raise NoRoomError(needed, free, others)
            record = {"device": device, "place": str(place), "bytes": needed, "what": what}
            super().__init__(host.reservations, uuid.uuid4().hex, record)

    def still_needs(self, needed: int) -> None:
        """Say how much of it is not yet written."""
        if needed != self.record["bytes"]:
            self.write(bytes=needed)
