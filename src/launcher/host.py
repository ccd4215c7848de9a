"""What all sweeps of all users share on this machine: its GPUs, its cores, its free disk.

A folder of small files, /tmp/launcher unless LAUNCHER_HOST_FOLDER names another:

    gpu-0.lock                a GPU, or cpu-0.lock a core; locked by the job that has it
    arbiter.lock              locked for the moment in which somebody takes one
    claimants/TOKEN.json      who takes, for which sweep: what it has and what it still wants
    claimants/TOKEN.lock      locked as long as that process lives
    reservations/…            free disk that sweeps count on, in the same two files

The locks are flock(2) on files of this machine, so that they end with the process that holds them,
however it dies, and no reused process id is ever taken for it. A job's own process inherits the
lock of its GPU: the GPU is free when that process is gone, not when somebody says so.

The folder has mode 1777 like /tmp itself, so that all users share it; each file belongs to who made
it and only its owner writes it (a lock needs to be read, no more). A site that wants it otherwise
makes the folder beforehand, with a group's mode, and names it in the variable.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from launcher.ledger import Record, identity, read_record, utc_now, write_record

FOLDER_VARIABLE = "LAUNCHER_HOST_FOLDER"
FRESH = 10.0  # seconds; who has not looked for that long is stopped, and nobody waits for it
PATIENCE = 5.0  # seconds; who holds the arbiter's lock for that long is stopped
_READABLE = 0o644  # whatever the umask is: others must see what is taken


class Host:
    """The folder that this machine's sweeps share."""

    def __init__(self, folder: Path | None = None) -> None:
        """Raises OSError, with the remedy, where the folder cannot be used."""
        named = os.environ.get(FOLDER_VARIABLE)
        default = Path(tempfile.gettempdir(), "launcher")
        self.folder = folder or (Path(named) if named else default)
        try:
            for path in (self.folder, self.claimants, self.reservations):
                _shared_folder(path)
            os.close(_open_lock(self._lock_file("arbiter")))
        except OSError as error:
            raise OSError(
                f"{self.folder}, where sweeps share out this machine's GPUs, cannot be used "
                f"({error}): set {FOLDER_VARIABLE} to a folder that all of its users can write"
            ) from error

    @property
    def claimants(self) -> Path:
        """Where those who take GPUs say so."""
        return self.folder / "claimants"

    @property
    def reservations(self) -> Path:
        """Where sweeps say how much disk they still need."""
        return self.folder / "reservations"

    def lock(self, name: str) -> int | None:
        """A descriptor that holds the lock of that name; None while another holds it."""
        return _lock(self._lock_file(name))

    @contextlib.contextmanager
    def arbiter(self) -> Iterator[None]:
        """Be the only one on this machine who takes something, for a moment.

        Who is stopped (SIGSTOP) in that moment is passed over: what is taken has its own lock, and
        this one serves fairness and sums.
        """
        path, deadline = self._lock_file("arbiter"), time.monotonic() + PATIENCE
        while (descriptor := _lock(path)) is None and time.monotonic() < deadline:
            time.sleep(0.002)
        if descriptor is None:
            with contextlib.suppress(OSError):  # another user's stays, and costs patience again
                path.unlink()
        try:
            yield
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _lock_file(self, name: str) -> Path:
        return self.folder / f"{_file_name(name)}.lock"


class Entry:
    """A record that lives as long as this process: others see by its lock that it still does."""

    def __init__(self, folder: Path, token: str, record: Record) -> None:
        self.record = {**record, "user": _user(), **identity(), "since": time.time()}
        self._path = folder / f"{token}.json"
        self._lock_path = folder / f"{token}.lock"
        self._lock = _open_lock(self._lock_path)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._written = False
        try:
            self._write()
        except OSError:
            self.close()
            raise

    def write(self, **changes: Any) -> None:
        """Change the record; on a full disk it is tried again at the next sign of life."""
        self.record = {**self.record, **changes}
        self._written = False
        with contextlib.suppress(OSError):
            self._write()

    def _write(self) -> None:
        record = {**self.record, "written_at": utc_now()}
        write_record(self._path, record, durable=False, mode=_READABLE)
        self._written = True

    def beat(self) -> None:
        """Show that this process is not stopped."""
        keep_young(self._lock)
        with contextlib.suppress(OSError):
            os.utime(self._path) if self._written else self._write()

    def forget_in_child(self) -> None:
        """Give up the lock that a fork inherited: the parent alone lives by it."""
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the record."""
        self._path.unlink(missing_ok=True)
        self._lock_path.unlink(missing_ok=True)
        os.close(self._lock)


@dataclass(frozen=True)
class Seen:
    """An entry of another process, as read."""

    record: Record
    fresh: bool
    """Whether it has shown a sign of life within `FRESH` seconds."""


def living(
    folder: Path, *, but: str = "", bury: Callable[[str], object] = lambda _: None
) -> list[Seen]:
    """The entries whose processes live. Those of the dead are removed, where they are ours.

    `bury` is called with the token of each dead one before. Call it with the arbiter's lock held:
    an entry is made of two files.
    """
    found = []
    for path in sorted(folder.glob("*.lock")):
        if path.stem == but:
            continue
        beside = path.with_suffix(".json")
        try:
            beat = path.stat().st_mtime
            if _is_locked(path):
                record = read_record(beside)
                if record is not None:
                    found.append(Seen(record, time.time() - beat < FRESH))
                continue
        except (OSError, ValueError):
            continue
        bury(path.stem)
        with contextlib.suppress(OSError):  # another user's stay where they are, and say nothing
            beside.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
    return found


def _shared_folder(path: Path) -> None:
    if path.is_dir():
        return
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        return
    inherited = path.parent.stat().st_mode & 0o7777
    # Sticky, as /tmp is: everybody may add, nobody may touch what is another's.
    path.chmod(0o1777 if path.parent == Path(tempfile.gettempdir()) else inherited)


def _open_lock(path: Path) -> int:
    # Without O_CREAT first: the kernel refuses that on another's file in a sticky folder.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        try:
            return os.open(path, flags)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                made = os.open(path, flags | os.O_CREAT | os.O_EXCL, _READABLE)
                os.fchmod(made, _READABLE)
                os.close(made)


def _lock(path: Path) -> int | None:
    descriptor = _open_lock(path)
    with contextlib.suppress(FileNotFoundError):
        # The lock of a file that was removed meanwhile is one that nobody else will see.
        if try_lock(descriptor) and os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    os.close(descriptor)
    return None


def keep_young(descriptor: int) -> None:
    """Save an open file from those who clean /tmp by age; another user's is read, not touched."""
    with contextlib.suppress(OSError):
        try:
            os.utime(descriptor)
        except PermissionError:
            os.read(descriptor, 1)


def try_lock(descriptor: int) -> bool:
    """Lock an open file, unless another open file of it is locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_locked(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        return not try_lock(descriptor)
    finally:
        os.close(descriptor)


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
