"""Processes of a job or a worker, found wherever they hide, and ended.

A worker puts its token, and each job its attempt's, into the environment of what it starts; a child
in a session of its own, whose parents are all dead, still has it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

ATTEMPT_VARIABLE = "LAUNCHER_ATTEMPT"
WORKER_VARIABLE = "LAUNCHER_WORKER"


def processes_of(tokens: Iterable[str]) -> list[int]:
    """Ids of the live processes of this user that have one of these tokens in their environment."""
    wanted = [token.encode() for token in tokens]
    if not wanted or sys.platform != "linux":
        return []
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        # Another user's cannot be read; one that ends meanwhile, or a zombie, reads as nothing.
        with contextlib.suppress(OSError):
            environment = Path(entry.path, "environ").read_bytes()
            if b"LAUNCHER_" in environment and any(t in environment for t in wanted):
                found.append(int(entry.name))
    return found


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
