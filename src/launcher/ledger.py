"""The records of a sweep on disk: how they are written and read back, and who is still alive.

A sweep is a folder of jobs, each a folder, all readable with `cat`:

    JOB/spec.json              what to run; written before the job starts
    JOB/attempts/1.json        attempt 1 was taken: by whom, when, on which GPUs
    JOB/attempts/1.exit.json   how it ended: the truth about a job (`claims.py`)
    JOB/state.json             what the last attempt is doing: process, last report
    JOB/exit.json              how the job ended, for people: a copy of its last exit record
    JOB/log                    everything the job printed
    sweep.json                 how the sweep is run: engine, GPUs a job, limits
    workers/                   who takes its jobs: a record, a heartbeat and the events of each
    stop.json                  somebody wants it to stop

Every record is written beside its place and renamed or linked, so a reader sees a whole one or
none, on a network file system too; nothing is locked there.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import re
import socket
import sys
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import psutil

SPEC_FILE = "spec.json"
STATE_FILE = "state.json"
EXIT_FILE = "exit.json"
LOG_FILE = "log"
ATTEMPTS = "attempts"

_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT}
_PASSING |= {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}

Record = dict[str, Any]
Liveness = Literal["alive", "dead", "unknown"]


def utc_now() -> str:
    """The present moment as ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def seconds_since(moment: str) -> float:
    """Seconds from an ISO 8601 moment to now."""
    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()


def write_record(
    path: Path, record: Mapping[str, Any], *, durable: bool = True, mode: int | None = None
) -> None:
    """Write JSON beside `path` and rename it into place, with `mode` whatever the umask is.

    `durable` waits until the disk holds it. Progress reports do without: a disk that is busy with a
    checkpoint would make the job wait, and after a power cut its process is gone anyway.
    """
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with beside.open("w", encoding="utf-8", errors="backslashreplace") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    if durable:
        _sync_folder(path.parent)


def create_record(path: Path, record: Mapping[str, Any]) -> bool:
    """Put a record at `path` where there is none; of many callers at once exactly one gets True.

    By link(2), which is atomic on NFS too, where its answer can be lost: the count of links tells.
    Durable. Raises OSError where the file system knows no links, as `check_links` finds out before.
    """
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    try:
        with beside.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(beside, path)
        except OSError as error:
            if beside.stat().st_nlink != 2:
                if isinstance(error, FileExistsError):
                    return False
                raise
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
    # It is there: an error from here on would deny what others can read.
    with contextlib.suppress(OSError):
        _sync_folder(path.parent)
    return True


def check_links(folder: Path) -> None:
    """Raise OSError, with the remedy, where `folder` cannot hold a ledger."""
    probe = folder / f".probe.{uuid.uuid4().hex}"
    try:
        create_record(probe, {})
    except OSError as error:
        raise OSError(
            f"{folder} cannot hold the records of a sweep ({error}): its file system needs hard "
            "links and free space; choose another --output_dir"
        ) from error
    finally:
        probe.unlink(missing_ok=True)


def will_pass(error: OSError) -> bool:
    """Whether it may work later without anybody's mending: a full disk, a server that is away."""
    return error.errno in _PASSING


def _sync_folder(folder: Path) -> None:
    # The rename itself is durable only once the folder is on the disk.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_record(path: Path) -> Record | None:
    """The record at `path`, or None where there is none; a file that is no record is an error."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); remove it to run the job again") from None
    if not isinstance(record, dict):
        raise ValueError(f"{path} holds {type(record).__name__}, not a JSON object")
    return record


def job_folders(sweep: Path) -> list[Path]:
    """The folders of all jobs of a sweep, by name; quick for ten thousand."""
    try:
        names = sorted(os.listdir(sweep))  # noqa: PTH208
    except FileNotFoundError:
        return []
    return [Path(sweep, n) for n in names if os.path.exists(f"{sweep}/{n}/{SPEC_FILE}")]  # noqa: PTH110


def process_start(pid: int) -> str | None:
    """What tells process `pid` from an earlier or later one of the same number; None if it is gone.

    On Linux the boot and the clock tick since boot: unlike a time of day, no clock change moves it.
    """
    if sys.platform != "linux":
        try:
            process = psutil.Process(pid)
            return (
                None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
            )
        except psutil.Error:
            return None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    # A zombie has ended; only its parent has not yet looked.
    return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"


def identity(pid: int | None = None) -> Record:
    """The keys that name a process: pid, host, pid_namespace, process_started."""
    pid = os.getpid() if pid is None else pid
    return {
        "pid": pid,
        "host": socket.gethostname(),
        "pid_namespace": pid_namespace(),
        "process_started": process_start(pid),
    }


@functools.cache
def pid_namespace() -> str | None:
    """What tells containers of one machine apart: a process id means something in one alone."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


def liveness(state: Record | None) -> Liveness:
    """Whether the process that a state names still runs; "unknown" for one on another host.

    Who deletes things should ask for "dead", not for "not alive".
    """
    if not state or not isinstance(state.get("pid"), int):
        return "dead"
    if state.get("status") not in ("starting", "running"):
        return "dead"
    return process_liveness(state)


def process_liveness(named: Record) -> Liveness:
    """Whether the process that `identity` named still runs; "unknown" in another pid namespace."""
    elsewhere = named.get("pid_namespace", pid_namespace()) != pid_namespace()
    if named.get("host") != socket.gethostname() or elsewhere:
        return "unknown"
    started = process_start(named["pid"])
    return "alive" if started is not None and started == named.get("process_started") else "dead"


def is_alive(state: Record | None) -> bool:
    """Whether a live process of this host owns the job."""
    return liveness(state) == "alive"


def last_lines(path: Path, *, offset: int = 0, count: int = 20) -> list[str]:
    """The last non-empty lines of a log from byte `offset` on, as a terminal would show them."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(offset, end - 65536))
            return shown_lines(file.read())[-count:]
    except OSError:
        return []


def shown_lines(output: bytes, *, width: int = 500) -> list[str]:
    """The lines that a terminal would show of some output, empty ones left out."""
    text = output.decode("utf-8", errors="replace")
    # A progress bar overwrites its line after "\r": the text after the last one is what is seen.
    shown = (re.split(r"\r+", line.rstrip("\r"))[-1].rstrip() for line in text.split("\n"))
    return [line[:width] for line in shown if line]
