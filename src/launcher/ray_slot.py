"""What runs on a node of a Ray cluster: it starts one worker there and passes on what it is told.

An actor and not a task, since a running task can be told nothing. Ray sends this class by value, so
it names nothing but the standard library and Ray: a node need not have our package for it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

_GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")


class RaySlot:
    """A place on a node, for the life of one worker; its methods run in threads of their own."""

    def __init__(self, guardian: str) -> None:
        """`guardian`: the text of `ray_guardian.py`, which stands between us and the worker."""
        self._guardian = guardian
        self._lock = threading.Lock()
        self._stopped = False
        self._orders: int | None = None  # descriptor of the pipe to the guardian
        self._over = threading.Event()

    def is_placed(self) -> bool:
        """Answers as soon as the slot has its GPUs."""
        return True

    def work(
        self, command: list[str], env: dict[str, str], *, gpus: int, log: str, folder: str
    ) -> None:
        """Run the worker to its end, then end this process, which frees the GPUs."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        env = {**_own_environment(gpus), "RAY_NODE_ID": node, **env}
        with self._lock:
            ended = None if self._stopped else self._start(command, env, log, folder)
        if ended is not None:
            with open(ended, "rb") as pipe:  # noqa: PTH123
                pipe.read()  # until the guardian has ended
            with self._lock:
                self._order(None)
        self._over.set()
        ray.actor.exit_actor()

    def _start(self, command: list[str], env: dict[str, str], log: str, folder: str) -> int:
        """Start the guardian and through it the worker; the pipe that ends with them."""
        heard, orders = os.pipe()
        ended, ends = os.pipe()
        guardian = [sys.executable, "-I", "-S", "-c", self._guardian, str(heard), str(ends)]
        try:
            with Path(log).open("ab") as output:
                subprocess.run(
                    [*guardian, env["LAUNCHER_WORKER"], *command],
                    env=env,
                    cwd=folder if Path(folder).is_dir() else None,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(heard, ends),
                    check=True,
                )
        finally:
            os.close(heard)
            os.close(ends)
        self._orders = orders
        return ended

    def _order(self, letter: bytes | None) -> None:
        """Write to the guardian, or close the pipe, upon which it kills the worker."""
        if self._orders is None:
            return
        if letter is None:
            os.close(self._orders)
            self._orders = None
        else:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._orders, letter)

    def wait(self) -> None:
        """Answer when the worker has ended, for a driver whose call of `work` was cut off."""
        self._over.wait()

    def stop(self, *, firm: bool) -> None:
        """Send the worker SIGTERM, or kill it and everything that it started on this node."""
        with self._lock:
            self._stopped = True
            self._order(None if firm else b"T")


def _own_environment(gpus: int) -> dict[str, str]:
    """The node's environment, and the GPUs that Ray has given us.

    As this process was started with: Ray changes its own afterwards, and limits it to as many
    threads as processors were asked for.
    """
    entries = Path("/proc/self/environ").read_bytes().split(b"\0")
    pairs = [entry.partition(b"=") for entry in entries]
    env = {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs if name}
    for name in _GPU_VARIABLES:
        env.pop(name, None)
        if gpus and name in os.environ:
            env[name] = os.environ[name]
    if not gpus:
        env["CUDA_VISIBLE_DEVICES"] = ""  # unset, all GPUs of the node would be seen
    return env
