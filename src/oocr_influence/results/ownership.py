"""Which process owns a run folder, so that upkeep never deletes what somebody is writing.

`owner.json` holds the host, the process id and the process's start time (an id alone is reused),
and, where it is one, the attempt at a job: its ledger may know that the attempt is over, where the
process cannot be asked.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import psutil

from oocr_influence.results.atomic import write_json

ATTEMPT_VARIABLE = "LAUNCHER_ATTEMPT"  # set by whoever runs jobs: a token of the attempt
Ownership = Literal["free", "alive", "unknown"]


class RunOwnedError(RuntimeError):
    """Another live process owns the run folder."""


@dataclass(frozen=True)
class Owner:
    """The process that writes a run; `released` says when it was done with it."""

    host: str
    pid: int
    process_started: float
    user: str
    claimed: str
    boot_id: str | None = None
    released: str | None = None
    attempt: str | None = None

    def describe(self) -> str:
        return f"process {self.pid} of {self.user} on {self.host}, since {self.claimed}"


def this_process() -> Owner:
    """The calling process as an owner."""
    return Owner(
        host=socket.gethostname(),
        pid=os.getpid(),
        process_started=psutil.Process().create_time(),
        user=_user(),
        claimed=_now(),
        boot_id=_boot_id(),
        attempt=os.environ.get(ATTEMPT_VARIABLE),
    )


def claim(path: Path) -> Owner:
    """Write `owner.json` for the calling process.

    A run may be taken over from a dead process, or from one of the caller's own parents, which
    made the folder for it. Raises RunOwnedError if another process may still be writing.
    """
    state, owner = ownership(path)
    if owner is not None and state != "free" and owner.pid not in _own_line():
        raise RunOwnedError(f"{path.parent} belongs to {owner.describe()}: stop that one first")
    mine = this_process()
    write_json(path, asdict(mine))
    return mine


def release(path: Path) -> None:
    """Note that the owner is done: its process may live on, the run may be tidied away."""
    owner = read_owner(path)
    if owner is not None:
        write_json(path, asdict(owner) | {"released": _now()})


def read_owner(path: Path) -> Owner | None:
    """The recorded owner; None where there is no record that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Owner(**{name: found.get(name) for name in Owner.__dataclass_fields__})
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def ownership(path: Path) -> tuple[Ownership, Owner | None]:
    """Whether a live process owns the run: `unknown` on another host, which cannot be asked."""
    owner = read_owner(path)
    if owner is None:
        # A record that is there and cannot be read says nothing about who is alive.
        return ("unknown" if path.exists() else "free"), None
    if owner.released is not None:
        return "free", owner
    if owner.host != socket.gethostname():
        return "unknown", owner
    if owner.boot_id != _boot_id():
        # Of this host before its last start, hence dead; or of another host of the same name.
        before = datetime.fromisoformat(owner.claimed).timestamp() < psutil.boot_time()
        return ("free" if before else "unknown"), owner
    return ("alive" if _is_running(owner) else "free"), owner


def _is_running(owner: Owner) -> bool:
    try:
        process = psutil.Process(owner.pid)
        # Start times are computed from the boot time, which a clock's correction may shift.
        same = abs(process.create_time() - owner.process_started) < 2.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True  # it is there and will not be asked


def _own_line() -> set[int]:
    """The ids of this process and its parents."""
    process = psutil.Process()
    return {process.pid, *(parent.pid for parent in process.parents())}


def _boot_id() -> str | None:
    """Tells two machines or containers of one host name apart; None where there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
