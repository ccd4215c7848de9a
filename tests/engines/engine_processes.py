"""Finding processes by what stands in their environment, and waiting, for the tests of engines."""

import contextlib
import os
import signal
import time
from pathlib import Path


def pids_with(*settings: str) -> list[int]:
    """Every process, zombies aside, whose environment begins entries with all of `settings`."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # it ended meanwhile
            environment = b"\0" + (folder / "environ").read_bytes()
            if all(b"\0" + os.fsencode(setting) in environment for setting in settings):
                found.append(int(folder.name))
    return found


def kill_all_with(*settings: str) -> None:
    """Kill -9 every such process, and those that they start meanwhile."""
    while pids := pids_with(*settings):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def eventually(condition, seconds, what):
    """Wait for something to become true; what it returned, or an error that says what did not."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")
