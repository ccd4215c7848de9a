"""What runs on a node of a Ray cluster: it starts one worker there and passes on what it is told.

An actor and not a task, since a running task can be told nothing. Ray sends this class by value, so
it names nothing but the standard library: a node needs Ray for it, and not our package.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

# The worker is killed when this process ends, however it ends: Ray gives its GPU away at once. A
# program in between and no function after the fork, which a process of many threads must not run.
_START = """
import ctypes, os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_SETMASK, [])
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)  # PR_SET_PDEATHSIG
if os.getppid() != int(sys.argv[1]):
    sys.exit("the Ray worker ended before its child had begun")
os.execvp(sys.argv[2], sys.argv[2:])
"""
_GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")


class RaySlot:
    """A place on a node, for the life of one worker. `work` and `stop` run in threads of their own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = False
        self._process: subprocess.Popen[bytes] | None = None
        self._token = ""
        self._over = threading.Event()

    def is_placed(self) -> bool:
        """Answers as soon as the slot has its GPUs."""
        return True

    def work(
        self, command: list[str], env: dict[str, str], *, gpus: int, log: str, folder: str
    ) -> None:
        """Run the worker to its end, then end this process, which frees the GPUs.

        The thread that calls this stays until then: the kernel ties the worker's life to it.
        """
        import ray

        self._token = env["LAUNCHER_WORKER"]
        with Path(log).open("ab") as output:
            with self._lock:
                if not self._stopped:
                    self._process = subprocess.Popen(
                        [sys.executable, "-I", "-S", "-c", _START, str(os.getpid()), *command],
                        env={**_own_environment(gpus), **env},
                        cwd=folder if Path(folder).is_dir() else None,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        process_group=0,
                    )
            if self._process is not None:
                self._process.wait()
                self._end_leftovers()
        self._over.set()
        ray.actor.exit_actor()

    def wait(self) -> None:
        """Answer when the worker has ended, for a driver whose call of `work` was cut off."""
        self._over.wait()

    def stop(self, *, firm: bool) -> None:
        """Send the worker SIGTERM, or kill it and everything that it started on this node."""
        with self._lock:
            self._stopped = True
            process = self._process
        if process is None:
            return
        if firm:
            self._end_leftovers()
        elif process.poll() is None:
            process.send_signal(signal.SIGTERM)

    def _end_leftovers(self) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        # What has left the group, by the token that every descendant inherits.
        deadline = time.monotonic() + 5.0
        while (pids := _pids_of(self._token)) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)


def _own_environment(gpus: int) -> dict[str, str]:
    """The node's environment, and the GPUs that Ray has given us.

    As this process was started with: Ray changes its own afterwards, and limits it to as many threads
    as processors were asked for.
    """
    pairs = [entry.partition(b"=") for entry in Path("/proc/self/environ").read_bytes().split(b"\0")]
    env = {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs if name}
    for name in _GPU_VARIABLES:
        env.pop(name, None)
        if gpus and name in os.environ:
            env[name] = os.environ[name]
    if not gpus:
        env["CUDA_VISIBLE_DEVICES"] = ""  # unset, all GPUs of the node would be seen
    return env


def _pids_of(token: str) -> list[int]:
    needle = b"\0LAUNCHER_WORKER=" + token.encode() + b"\0"
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # ended, or another user's
                if needle in b"\0" + (folder / "environ").read_bytes() + b"\0":
                    found.append(int(folder.name))
    return found
