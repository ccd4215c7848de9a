"""Workers as processes of this machine, which end with the driver."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence

from launcher.engine import WorkerRequest, WorkerState
from launcher.lost import STOPPED_LIMIT, StoppedWatch
from launcher.processes import WORKER_VARIABLE, end_processes

_ENDING = 5.0  # seconds that a process may take to end once it has been killed


class LocalEngine:
    """One worker takes all jobs that fit on this machine at once."""

    name = "local"
    jobs_per_worker: int | None = None
    max_in_flight = 1

    def __init__(self, *, stopped_limit: float = STOPPED_LIMIT) -> None:
        self._workers: dict[str, subprocess.Popen[bytes]] = {}
        self._stopped = StoppedWatch(stopped_limit)

    def check(self) -> None:
        """This machine is always there."""

    def start(self, request: WorkerRequest) -> None:
        """Start the worker's process."""
        with request.log.open("ab") as log:
            self._workers[request.token] = subprocess.Popen(
                request.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **request.env, WORKER_VARIABLE: request.token},
                # Out of the terminal's foreground group: Ctrl-C reaches the driver alone.
                process_group=0,
            )

    def states(self, tokens: Sequence[str]) -> dict[str, WorkerState]:
        """Those that have been stopped (SIGSTOP) for too long are ended here."""
        return {token: self._state(token) for token in tokens}

    def _state(self, token: str) -> WorkerState:
        worker = self._workers.get(token)
        if worker is None:
            return "gone"
        if worker.poll() is None and self._stopped.too_long(worker.pid):
            self.stop([token], firm=True)
        if worker.poll() is None:
            return "running"
        # Its jobs die with it; what they started is looked for before anybody takes their GPUs.
        end_processes([token])
        del self._workers[token]
        return "gone"

    def stop(self, tokens: Sequence[str], *, firm: bool) -> None:
        """SIGTERM, or the end of the worker, its jobs and all that carries its token."""
        for token in tokens:
            worker = self._workers.get(token)
            if worker is None:
                continue
            with contextlib.suppress(ProcessLookupError):
                worker.send_signal(signal.SIGKILL if firm else signal.SIGTERM)
            if firm:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    worker.wait(_ENDING)
                end_processes([token])

    def close(self) -> None:
        """End what is left of an orderly driver."""
        self.stop(list(self._workers), firm=True)
