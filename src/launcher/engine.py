"""What gives slots to workers: this machine, Slurm, Ray, or another in a file of its own.

The ledger is the truth. An engine starts workers, says whether they still exist and stops them; how
the jobs ended is in the jobs' own records. A worker is known to everybody by its token, so nothing
else has to survive the driver.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

WorkerState = Literal["queued", "running", "gone"]


class EngineError(RuntimeError):
    """The engine cannot be used; the message names what is missing and the remedy."""


class EngineUnreachable(EngineError):
    """The engine does not answer now; its workers may live all the same, and the driver waits."""


@dataclass(frozen=True)
class WorkerRequest:
    """A worker that is wanted."""

    token: str
    """Unique for ever; also LAUNCHER_WORKER in its environment."""
    command: tuple[str, ...]
    """Its program and arguments."""
    env: Mapping[str, str]
    """Added to its environment."""
    gpus: int
    """GPUs that its job needs; 0: none, and it must see none."""
    log: Path
    """Where its standard output and error are appended."""
    label: str
    """Its name for people."""


class Engine(Protocol):
    """Starts, sees and stops workers."""

    name: str
    jobs_per_worker: int | None
    """1 where a slot is asked for each job; None where a worker takes all that it can."""
    max_in_flight: int
    """Workers that may be queued or running at once."""

    def check(self) -> None:
        """Raise EngineError if the engine cannot be used."""
        ...

    def start(self, request: WorkerRequest) -> None:
        """Start a worker, or queue it."""
        ...

    def states(self, tokens: Sequence[str]) -> dict[str, WorkerState]:
        """The state of each; one that was never seen is gone.

        Raises EngineUnreachable rather than call a worker gone that is only not visible.
        """
        ...

    def stop(self, tokens: Sequence[str], *, firm: bool) -> None:
        """SIGTERM for each, or, where `firm`, the end of it and of all its children."""
        ...

    def close(self) -> None:
        """The driver ends; workers live on where the engine lets them."""
        ...
