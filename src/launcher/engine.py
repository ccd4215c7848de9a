"""What gives slots to workers: one interface, a small class each for this machine, Slurm and Ray.

The ledger on disk is the truth. An engine starts workers, says whether they still exist, and stops
them; a worker is known by its token alone, so that nothing else has to survive the driver's death.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

WorkerState = Literal["queued", "running", "gone"]


class EngineError(Exception):
    """What is missing or wrong with an engine, and the remedy."""


class EngineUnreachable(EngineError):
    """The engine does not answer just now: nothing is known of its workers; ask again later."""


@dataclass(frozen=True)
class WorkerRequest:
    """A worker to be started."""

    token: str
    """32 hexadecimal digits, never used before (`uuid4().hex`)."""
    command: tuple[str, ...]
    """Program and arguments; paths may hold spaces, quotes, newlines and unicode."""
    env: Mapping[str, str]
    """Added to the environment; `LAUNCHER_WORKER` is the token."""
    gpus: int
    """GPUs that its one job needs; 0: none, and it must see none."""
    log: Path
    """Standard output and error of the worker itself, appended to."""
    label: str
    """For people: what squeue and Ray's dashboard show."""


class Engine(Protocol):
    """Slots for workers somewhere."""

    name: str
    """`local`, `slurm` or `ray`."""
    jobs_per_worker: int | None
    """Jobs that a worker takes before it ends; None: all that it can get."""
    max_in_flight: int
    """Workers that may be queued or running at once."""

    def check(self) -> None:
        """Raise EngineError with what is missing and the remedy, before anything is written."""

    def start(self, request: WorkerRequest) -> None:
        """Ask for a worker.

        Raises EngineUnreachable where it is not known whether the worker was taken: the same
        request may then be given again, and is started once.
        """

    def states(self, tokens: Sequence[str]) -> dict[str, WorkerState]:
        """The state of every token asked for; what the engine does not know is `gone`.

        Raises EngineUnreachable where it cannot be told now.
        """

    def stop(self, tokens: Sequence[str], *, firm: bool) -> None:
        """Send workers SIGTERM, after which they save and exit 75; firm: kill all they are."""

    def close(self) -> None:
        """The driver ends; its workers live on where the engine allows it."""
