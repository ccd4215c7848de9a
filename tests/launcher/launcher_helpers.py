"""Waiting, looking at processes, and a sweep in a process of its own, for the launcher's tests."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

HERE = Path(__file__).parent


def eventually(condition, seconds=10.0):
    """Wait for something to become true; what it returned, or a failure."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {condition}")


def running(pid):
    """Whether a process exists and has not ended (a zombie has)."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def start_sweep(folder, *options):
    """`launcher_toys.py FOLDER` as a person's script, in a terminal of its own."""
    return subprocess.Popen(
        [sys.executable, str(HERE / "launcher_toys.py"), str(folder), *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
