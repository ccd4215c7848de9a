"""What makes a forked child as good as a process of its own, and ends it with its parent."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import faulthandler
import io
import logging
import os
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from launcher.ledger import will_pass

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int, number: int) -> None:
    """Have the kernel send us signal `number` when process `parent` ends (Linux).

    The kernel watches the thread that started us, so that thread must live as long as its process
    needs us.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:  # it ended before we asked
        os.kill(os.getpid(), number)


@contextlib.contextmanager
def output_to(descriptor: int) -> Iterator[None]:
    """Lead standard output and error, native code's too, to an open file for a while."""
    saved = [os.dup(1), os.dup(2)]
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for target, copy in enumerate(saved, start=1):
            os.dup2(copy, target)
            os.close(copy)


def warn_of_what_forks_badly(modules: Sequence[str]) -> None:
    """Say what a fresh import left behind that a forked child cannot use."""
    threads = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
    if threads:
        print(
            f"warning: importing {list(modules)} started threads {threads}; forked jobs lack them"
        )
    opened: list[str] = []
    with contextlib.suppress(OSError):
        opened = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir()]
    if any(target.startswith("/dev/nvidia-uvm") for target in opened):
        print(f"warning: importing {list(modules)} opened the GPU; forked jobs cannot use it")


class _Log(io.FileIO):
    """A job's log: a line that a full disk refuses is lost, and the job goes on."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if not will_pass(error):
                raise
            return memoryview(data).nbytes


def become_fresh_process() -> None:
    """Give a forked child what a process of its own would have had."""
    faulthandler.enable()
    for name in ("stdout", "stderr"):
        with contextlib.suppress(OSError):
            getattr(sys, name).flush()
        descriptor = 1 if name == "stdout" else 2
        # Lines reach the log as they are printed, as on a terminal.
        file = io.BufferedWriter(_Log(descriptor, "w", closefd=False))
        stream = io.TextIOWrapper(file, "utf-8", errors="backslashreplace", line_buffering=True)
        setattr(sys, name, stream)
    # What the worker's imports left for its end is the worker's: temporary folders, for one.
    atexit._clear()
    finalizers: Any = weakref.finalize
    finalizers._registry.clear()
    finalizers._registered_with_atexit = False
    atexit.register(logging.shutdown)
    if "multiprocessing.util" in sys.modules:
        atexit.register(sys.modules["multiprocessing.util"]._exit_function)
    # Python reseeds its own generator after a fork, numpy does not: siblings would draw alike.
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()


def run_exit_functions() -> None:
    """What the job has left for its end, which it would not meet as it leaves by os._exit()."""
    atexit._run_exitfuncs()
