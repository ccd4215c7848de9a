"""The records of one job on disk: who writes them, how they are read back, who is still alive.

A job's folder holds four files, all readable with `cat`:

    spec.json    what to run; written before the job starts
    state.json   what is happening now: status, process, attempt, last report; rewritten as it runs
    exit.json    how it ended; written last, so a job is done exactly when this file exists
    log          everything the job printed

Every record is written beside its place and renamed, so a reader sees the old one or the new one,
never a half of either.
"""

from __future__ import annotations

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

Record = dict[str, Any]
Liveness = Literal["alive", "dead", "unknown"]


def utc_now() -> str:
    """The present moment as ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def seconds_since(moment: str) -> float:
    """Seconds from an ISO 8601 moment to now."""
    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()


def write_record(path: Path, record: Mapping[str, Any], *, durable: bool = True) -> None:
    """Write JSON beside `path` and rename it into place.

    `durable` waits until the disk holds it. Progress reports do without: a disk that is busy with a
    checkpoint would make the job wait, and after a power cut its process is gone anyway.
    """
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with beside.open("w", encoding="utf-8", errors="backslashreplace") as file:
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


def read_exit(folder: Path) -> Record | None:
    """How the job ended, or None while it is not done.

    Keys: status ("ok" or "failed"), exit_code (negative: killed by that signal), signal, result,
    error ({type, message, last_lines} or None), attempt, attempt_number, started_at, ended_at,
    seconds.
    """
    return read_record(Path(folder) / EXIT_FILE)


def read_state(folder: Path) -> Record | None:
    """What the job is doing, or None where it never started (or a power cut tore the file).

    Keys: status ("starting", "running", "interrupted", "ok", "failed"), attempt (a token, new for
    each try), attempt_number, pid, host, process_started, worker, gpus, started_at, log_offset,
    report (what the function last reported), reported_at.
    """
    try:
        return read_record(Path(folder) / STATE_FILE)
    except ValueError:
        return None


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
    """The keys of state.json that name a process: pid, host, process_started."""
    pid = os.getpid() if pid is None else pid
    return {"pid": pid, "host": socket.gethostname(), "process_started": process_start(pid)}


def liveness(state: Record | None) -> Liveness:
    """Whether the process that a state names still runs; "unknown" for one on another host.

    Who deletes things should ask for "dead", not for "not alive".
    """
    if not state or not isinstance(state.get("pid"), int):
        return "dead"
    if state.get("status") not in ("starting", "running"):
        return "dead"
    if state.get("host") != socket.gethostname():
        return "unknown"
    started = process_start(state["pid"])
    return "alive" if started is not None and started == state.get("process_started") else "dead"


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
