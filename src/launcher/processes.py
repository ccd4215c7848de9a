"""Processes of a job or a worker, found wherever they hide, and ended.

A worker has its token, and each job its attempt's, in the environment that the kernel shows; all
that they start inherits it, forked or executed, in whatever session it hides.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

ATTEMPT_VARIABLE = "LAUNCHER_ATTEMPT"
WORKER_VARIABLE = "LAUNCHER_WORKER"
MARK_VARIABLE = "LAUNCHER_MARK"
NO_ATTEMPT = "0" * 32  # a worker's mark: room for the token of an attempt
EXECUTING_SECONDS = 1.0  # for a process that executes a program to show its environment
KERNEL_THREAD = 0x00200000  # PF_KTHREAD among a process's flags


class AttemptMark:
    """Where this process's environment names an attempt, as the kernel shows it.

    That is the memory which the process was started with: what a program sets later is not shown,
    but what it writes there is, and a forked child has a copy of its own.
    """

    def __init__(self) -> None:
        """Does nothing where the process was not started with NO_ATTEMPT as its mark."""
        self._address: int | None = None
        if sys.platform == "linux":
            getenv = ctypes.CDLL(None).getenv
            getenv.restype = ctypes.c_void_p
            self._address = getenv(MARK_VARIABLE.encode())

    def set(self, attempt: str) -> None:
        """Name the attempt, a token, for this process and all that it starts."""
        size, token = len(NO_ATTEMPT), attempt.encode()
        place = self._address
        if place and ctypes.string_at(place) == NO_ATTEMPT.encode() and len(token) == size:
            ctypes.memmove(place, token, size)
        os.environ[ATTEMPT_VARIABLE] = attempt


def processes_of(tokens: Iterable[str]) -> list[int]:
    """Ids of the live processes of this user that have one of these tokens in their environment."""
    wanted = [
        f"\0{variable}={token}\0".encode()
        for token in tokens
        for variable in (ATTEMPT_VARIABLE, WORKER_VARIABLE, MARK_VARIABLE)
    ]
    if not wanted or sys.platform != "linux":
        return []
    found = []
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):  # noqa: PTH208
        environment = b"" if pid == os.getpid() else b"\0" + _settled_environment(pid) + b"\0"
        if b"\0LAUNCHER_" in environment and any(t in environment for t in wanted):
            found.append(pid)
    return found


def _settled_environment(pid: int) -> bytes:
    # A process that is just executing a program shows none for a moment, whoever started it.
    deadline = time.monotonic() + EXECUTING_SECONDS
    while (environment := _environment(pid)) == b"":
        if not _executing(pid) or time.monotonic() > deadline:
            environment = _environment(pid)  # it may have had one since
            break
        time.sleep(0.0005)
    return environment or b""


def _environment(pid: int) -> bytes | None:
    """As the kernel shows it: nothing for one that has ended, None for one that is not ours."""
    # Without pathlib: a machine has thousands of processes, and a job ends only after this look.
    try:
        descriptor = os.open(f"/proc/{pid}/environ", os.O_RDONLY)
    except OSError:
        return None
    parts = []
    try:
        while part := os.read(descriptor, 1 << 17):
            parts.append(part)
    except OSError:
        pass
    finally:
        os.close(descriptor)
    return b"".join(parts)


def _executing(pid: int) -> bool:
    """Whether it lives and has no environment yet: proc_pid_stat(5) has 0 where that ends."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    state, *fields = stat.rpartition(")")[2].split()
    return state not in "ZX" and not int(fields[5]) & KERNEL_THREAD and fields[47] == "0"


def end_processes(tokens: Iterable[str], *, within: float = 5.0) -> list[int]:
    """Kill every process that carries one of these tokens; the ids of those that will not go.

    A process may start another while it is being killed, so it is looked for until none is found.
    """
    tokens = list(tokens)
    deadline = time.monotonic() + within
    while found := processes_of(tokens):
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return found
        time.sleep(0.005)
    return []
