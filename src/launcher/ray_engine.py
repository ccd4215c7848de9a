"""Workers on a Ray cluster that is there already: one actor a worker, with `num_gpus`.

Ray ends a driver's actors with it: after a driver's death its workers are gone, and the jobs go on
from their last saved states under the next driver. Ray is told to retry nothing, since the ledger
decides that.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher import ray_guardian, ray_slot
from launcher.engine import EngineError, EngineUnreachable, WorkerRequest, WorkerState

_FIRM_SECONDS = 10.0


@dataclass
class _Worker:
    slot: Any
    """Handle of the actor; the actor lives as long as somebody holds one."""
    placed: Any
    """Reference that is ready once the actor has its GPUs."""
    ended: Any
    """Reference that is ready once the worker has ended, whatever the reason."""


class RayEngine:
    """Slots from a Ray cluster."""

    name = "ray"
    jobs_per_worker: int | None = 1

    def __init__(
        self,
        address: str = "auto",
        *,
        gpus: int = 1,
        cpus: float = 1.0,
        max_in_flight: int = 100,
        nodes_may_join: bool = False,
    ) -> None:
        """Take a head's address (host:port), or "auto": RAY_ADDRESS, or this machine's cluster.

        A worker takes `cpus` of Ray's processors beside its GPUs. `nodes_may_join`: an autoscaler
        may bring nodes that are large enough for `gpus`, so that their absence is no error.
        """
        self.address = address
        self.max_in_flight = max_in_flight
        self._gpus, self._cpus = gpus, cpus
        self._nodes_may_join = nodes_may_join
        self._workers: dict[str, _Worker] = {}
        self._connected_by_us = False

    def check(self) -> None:
        """Connect; EngineError without Ray, without a cluster, or where no node is large enough."""
        ray = self._ray()
        if self._nodes_may_join:
            return
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(
            node.get("GPU", 0) >= self._gpus and node.get("CPU", 0) >= self._cpus for node in nodes
        ):
            present = ", ".join(
                f"{n.get('GPU', 0):g} GPUs and {n.get('CPU', 0):g} CPUs" for n in nodes
            )
            raise EngineError(
                f"no node of the Ray cluster at {self.address!r} has the {self._gpus} GPUs and "
                f"{self._cpus:g} CPUs of a worker (nodes: {present}): ask for less, add a node, or "
                "allow for nodes that an autoscaler brings"
            )

    def start(self, request: WorkerRequest) -> None:
        """Ask for an actor that runs the worker; once for a token however often it is called."""
        if request.token in self._workers:
            return
        ray = self._ray()
        slots = ray.remote(ray_slot.RaySlot).options(
            num_gpus=request.gpus,
            num_cpus=self._cpus,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=4,  # `stop` is heard while `work` runs
        )
        try:
            slot = slots.remote(Path(ray_guardian.__file__).read_text(encoding="utf-8"))
            placed = slot.is_placed.remote()
            ended = slot.work.options(name=request.label or "worker").remote(
                list(request.command),
                {**request.env, "LAUNCHER_WORKER": request.token},
                gpus=request.gpus,
                log=str(request.log),
                folder=os.getcwd(),  # noqa: PTH109
            )
        except ray.exceptions.RayError as error:
            raise EngineUnreachable(f"Ray: {error}") from None
        self._workers[request.token] = _Worker(slot, placed, ended)

    def states(self, tokens: Sequence[str]) -> dict[str, WorkerState]:
        """As told to us by Ray; a worker of an earlier driver ended with it, and is `gone`."""
        known = [self._workers[token] for token in tokens if token in self._workers]
        if known:
            ray = self._ray()
            told = list(
                {reference for worker in known for reference in (worker.placed, worker.ended)}
            )
            ready, _ = ray.wait(told, num_returns=len(told), timeout=0, fetch_local=False)
            ready = set(ready)
            for token in tokens:
                worker = self._workers.get(token)
                if worker is not None and worker.ended in ready and self._has_ended(token, worker):
                    del self._workers[token]
        answer: dict[str, WorkerState] = {}
        for token in tokens:
            worker = self._workers.get(token)
            placed = worker is not None and worker.placed in ready
            answer[token] = "gone" if worker is None else "running" if placed else "queued"
        return answer

    def _has_ended(self, token: str, worker: _Worker) -> bool:
        """Read why `ended` is ready; False where Ray only does not see the node for a while."""
        ray = self._ray()
        try:
            ray.get(worker.ended, timeout=_FIRM_SECONDS)
        except ray.exceptions.ActorUnavailableError:
            # Calls wait for the actor to be back, and fail for good once it is known to be dead.
            worker.ended = worker.slot.wait.remote()
            return False
        except ray.exceptions.GetTimeoutError:
            return False
        except ray.exceptions.RayActorError:
            return True  # ended, by itself or with its node: the ledger knows more
        except ray.exceptions.RayError as error:
            line = str(error).strip().splitlines()[-1]
            print(f"warning: worker {token} could not be run: {line}", file=sys.stderr)
        ray.kill(worker.slot)
        return True

    def stop(self, tokens: Sequence[str], *, firm: bool) -> None:
        """Tell running workers to stop, or kill them; queued ones are taken back."""
        states = self.states(tokens)
        live = [token for token in tokens if states[token] != "gone"]
        if not live:
            return
        ray = self._ray()
        running = []
        for token in live:
            worker = self._workers[token]
            if states[token] == "queued":
                ray.kill(worker.slot)
            else:
                worker.slot.stop.remote(firm=firm)
                running.append(worker)
        if firm and running:
            # A slot that ends of itself takes everything with it that the worker had started.
            ends = [worker.ended for worker in running]
            ray.wait(ends, num_returns=len(ends), timeout=_FIRM_SECONDS)
            for worker in running:
                ray.kill(worker.slot)

    def close(self) -> None:
        """Leave the cluster, which ends the workers that there are."""
        self._workers.clear()
        if self._connected_by_us:
            self._connected_by_us = False
            self._ray().shutdown()

    def _ray(self) -> Any:
        """The module, connected."""
        if self.address in ("", "local") or self.address.startswith("ray://"):
            raise EngineError(
                f"ray_address {self.address!r}: give the head's host:port, or 'auto' on a machine "
                "of the cluster; `ray start --head` makes one, and the sweep's driver runs inside "
                "it (on one machine alone, --execution_mode local needs none)"
            )
        try:
            import ray
        except ImportError:
            raise EngineError(
                "Ray is not installed: pip install 'oocr-influence[ray]', in the cluster's version"
            ) from None
        if not ray.is_initialized():
            with _signal_handlers_kept():
                try:
                    ray.init(address=self.address, log_to_driver=False, logging_level="ERROR")
                except (ConnectionError, RuntimeError, ValueError, OSError) as error:
                    raise EngineError(
                        f"no Ray cluster at {self.address!r}: {error} (`ray start --head` starts "
                        "one, `ray status` shows it)"
                    ) from None
            self._connected_by_us = True
        ray.cloudpickle.register_pickle_by_value(ray_slot)
        return ray


@contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Ray's init makes SIGTERM end the driver, which has a way of its own to stop."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            if handler is not None:
                signal.signal(number, handler)
