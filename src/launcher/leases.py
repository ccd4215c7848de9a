"""GPUs and cores of this machine, leased to one job at a time, in fairness to all sweeps."""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Any

from launcher.host import Entry, Host, living, try_lock
from launcher.ledger import Record


@dataclass
class Lease:
    """GPUs or cores that are ours until closed by all who inherited them."""

    names: tuple[str, ...]
    descriptors: list[int] = field(default_factory=list)

    def release(self) -> None:
        """Give them back, as far as this process is concerned."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = []


class Claimant(Entry):
    """A process that takes GPUs or cores for the jobs of one sweep, in fairness to the others.

    A free one goes to the sweep that holds the fewest, to the older of two that hold as many. All
    the processes of a sweep on this machine, told by `sweep`, count together.
    """

    def __init__(
        self,
        host: Host,
        token: str,
        *,
        names: Sequence[str],
        each: int,
        sweep: str,
        since: float,
        **about: Any,
    ) -> None:
        """`names` are those that it may take, `each` how many a job needs."""
        self._host = host
        self._token = token
        self._leases: list[Lease] = []
        record = {"sweep": sweep, "sweep_since": since, "each": each, "names": list(names)}
        record |= {"wants": 0, "holds": []}
        with host.arbiter():
            super().__init__(host.claimants, token, {**record, **about})

    def wants(self, jobs: int) -> None:
        """Say how many jobs wait for a place."""
        self.beat()
        if jobs != self.record["wants"]:
            self.write(wants=jobs)

    def lease(self, but: Container[str] = ()) -> Lease | None:
        """A job's GPUs or cores, if so many are free and no other sweep comes first.

        `but` names those that strangers use, and that are left to them.
        """
        each = int(self.record["each"])
        free: list[tuple[str, int]] = []
        with self._host.arbiter():
            try:
                for name in (n for n in self.record["names"] if n not in but):
                    descriptor = self._host.open_lock(name)
                    if try_lock(descriptor):
                        free.append((name, descriptor))
                    else:
                        os.close(descriptor)
                names = {name for name, _ in free}
                first = self._wanted_before(names) if len(free) >= each else 0
                if len(free) - first < each:
                    return None
                kept = [free.pop(0) for _ in range(each)]
            finally:
                for _, descriptor in free:
                    os.close(descriptor)
            lease = Lease(tuple(n for n, _ in kept), [d for _, d in kept])
            self._leases.append(lease)
            self._write_holds()
        return lease

    def release(self, lease: Lease) -> None:
        """Give a lease back."""
        self._leases.remove(lease)
        lease.release()
        self._write_holds()

    def close(self) -> None:
        """Give everything back."""
        for lease in self._leases:
            lease.release()
        super().close()

    def become_job(self, lease: Lease) -> None:
        """In a job's own process, after the fork: keep this lease, nothing else of the parent's."""
        for other in self._leases:
            if other is not lease:
                other.release()
        self.forget_in_child()

    def _write_holds(self) -> None:
        self.write(holds=[name for lease in self._leases for name in lease.names])

    def _wanted_before(self, free: set[str]) -> int:
        """How many of the free ones other sweeps may take before this one takes any."""
        others = living(self._host.claimants, but=self._token)
        held: dict[str, int] = {str(self.record["sweep"]): len(self.record["holds"])}
        for seen in others:
            sweep = str(seen.record["sweep"])
            held[sweep] = held.get(sweep, 0) + len(seen.record["holds"])

        def place(record: Record) -> tuple[int, float, str]:
            sweep = str(record["sweep"])
            return held[sweep], float(record["sweep_since"]), sweep

        own = place(self.record)
        waiting: dict[str, int] = {}
        for seen in others:
            record = seen.record
            usable = free & set(record["names"])
            if seen.fresh and record["wants"] > 0 and usable and place(record) < own:
                sweep = str(record["sweep"])
                waiting[sweep] = max(waiting.get(sweep, 0), int(record["each"]))
        return sum(waiting.values())


def holders(host: Host) -> dict[str, Record]:
    """Who holds what on this machine: the name of a GPU or core to the record of its claimant."""
    with host.arbiter():
        seen = living(host.claimants)
    return {name: entry.record for entry in seen for name in entry.record["holds"]}
