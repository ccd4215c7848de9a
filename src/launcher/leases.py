"""GPUs and cores of this machine, leased to one job at a time, in fairness to all sweeps."""

from __future__ import annotations

import os
import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from launcher.host import Entry, Host, Seen, keep_young, living
from launcher.ledger import Record
from launcher.processes import end_processes


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
        record |= {"wants": 0, "asked_at": 0.0, "holds": [], "barred": []}
        with host.arbiter():
            super().__init__(host.claimants, token, {**record, **about})

    def wants(self, jobs: int) -> None:
        """Say how many jobs wait for a place."""
        self.beat()
        if jobs != self.record["wants"]:
            asked = self.record["asked_at"] if self.record["wants"] else time.time()
            self.write(wants=jobs, asked_at=asked)

    def lease(self, but: Container[str] = ()) -> Lease | None:
        """A job's GPUs or cores, if so many are free and no other sweep comes first.

        `but` names those that strangers use, and that are left to them.
        """
        each = int(self.record["each"])
        barred = [name for name in self.record["names"] if name in but]
        if barred != self.record["barred"]:
            self.write(barred=barred)
        free: dict[str, int] = {}
        with self._host.arbiter():
            try:
                for name in (n for n in self.record["names"] if n not in barred):
                    if (descriptor := self._host.lock(name)) is not None:
                        free[name] = descriptor
                others = self._of_others(list(free)) if len(free) >= each else set()
                names = [name for name in free if name not in others][:each]
                if len(names) < each:
                    return None
                lease = Lease(tuple(names), [free.pop(name) for name in names])
            finally:
                for descriptor in free.values():
                    os.close(descriptor)
            self._leases.append(lease)
            self._write_holds(asked_at=time.time())
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

    def beat(self) -> None:
        """Show that this process is not stopped."""
        super().beat()
        for lease in self._leases:
            for descriptor in lease.descriptors:
                keep_young(descriptor)

    def become_job(self, lease: Lease) -> None:
        """In a job's own process, after the fork: keep this lease, nothing else of the parent's."""
        for other in self._leases:
            if other is not lease:
                other.release()
        self.forget_in_child()

    def _write_holds(self, **changes: Any) -> None:
        self.write(holds=[name for lease in self._leases for name in lease.names], **changes)

    def _of_others(self, free: Sequence[str]) -> set[str]:
        """Those of the free ones that other sweeps may take before this one takes any."""
        # A dead one's token is its worker's: what that left running may still use what is free.
        others = _claimants(self._host, but=self._token, bury=_end_family)
        held: dict[str, int] = {str(self.record["sweep"]): len(self.record["holds"])}
        for seen in others:
            sweep = str(seen.record["sweep"])
            held[sweep] = held.get(sweep, 0) + len(seen.record["holds"])
        taken: dict[str, set[str]] = {}
        for seen in others:
            record, sweep = seen.record, str(seen.record["sweep"])
            usable = set(record["names"]) - set(record["barred"])
            wants = record["wants"] > 0 and len(usable) >= record["each"]
            if seen.fresh and wants and _comes_first(record, self.record, held):
                left = [name for name in free if name in usable.difference(*taken.values())]
                room = int(record["each"]) - len(taken.get(sweep, ()))
                taken.setdefault(sweep, set()).update(left[-room:] if room > 0 else ())
        return set().union(*taken.values())


def _comes_first(one: Record, other: Record, held: Mapping[str, int]) -> bool:
    """Whether a free place is `one`'s before it is `other`'s."""
    mine, yours = held[str(one["sweep"])], held[str(other["sweep"])]
    if mine != yours:
        return mine < yours
    wide, narrow = sorted((one, other), key=lambda record: -int(record["each"]))
    # On a tie a wide job that waits would be overtaken by each narrow one, for ever.
    if wide["each"] > narrow["each"] and wide["asked_at"] < narrow["asked_at"]:
        return wide is one
    ages = ((float(r["sweep_since"]), str(r["sweep"])) for r in (one, other))
    return next(ages) < next(ages)


def _claimants(host: Host, **options: Any) -> list[Seen]:
    """The live claimants whose records can be read, whatever version of us wrote them."""
    return [seen for seen in living(host.claimants, **options) if _is_whole(seen.record)]


def _end_family(token: str) -> None:
    end_processes([token], within=1.0)


def _is_whole(record: Record) -> bool:
    lists = all(isinstance(record.get(key), list) for key in ("names", "holds", "barred"))
    numbers = (record.get(key) for key in ("sweep_since", "each", "wants", "asked_at"))
    return lists and "sweep" in record and all(isinstance(n, int | float) for n in numbers)


def holders(host: Host) -> dict[str, Record]:
    """Who holds what on this machine: the name of a GPU or core to the record of its claimant."""
    with host.arbiter():
        seen = _claimants(host)
    return {name: entry.record for entry in seen for name in entry.record["holds"]}
