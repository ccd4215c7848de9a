"""Several processes that work on one model, and one process alone, seen alike.

    with connected(rank, size, meeting) as team:
        own = team.share(batches)                  # every size-th one
        results = team.in_order([score(batch) for batch in own])      # those of all, as of one

The first process leads: it `tell`s, and the others `hear`. Everything else is for all of them
at the same time. `ALONE` is a team of one, for which nothing of this does anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")

# Nobody waits in vain: who started the processes ends them all when one is gone. The leader may
# well wait for hours, where another run asks the same model.
_TIMEOUT = timedelta(days=7)


class TeamDisagreesError(RuntimeError):
    """The processes of one run do not have the same before them."""


@dataclass(frozen=True)
class Team:
    """This process's place, from 0, and how many there are."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part of what all of them have."""
        return items[self.rank :: self.size]

    def gather(self, value: T) -> list[T]:
        """Everybody's value, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def in_order(self, own: Sequence[T]) -> list[T]:
        """What all have made of their shares, in the order of the whole."""
        parts = self.gather(list(own))
        whole: list[Any] = [None] * sum(map(len, parts))
        for rank, part in enumerate(parts):
            whole[rank :: self.size] = part
        return whole

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Everybody's tensors added up, in place; the same bits for all."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def tell(self, *message: Any) -> None:
        """Send the others a message; for the leader."""
        if self.size > 1:
            dist.broadcast_object_list([message], src=0)

    def hear(self) -> tuple[Any, ...]:
        """Wait for the leader's next message."""
        received: list[Any] = [None]
        dist.broadcast_object_list(received, src=0)
        message: tuple[Any, ...] = received[0]
        return message

    def agree(self, what: str, value: object) -> None:
        """Raise TeamDisagreesError, everywhere, unless all have the same value."""
        values = self.gather(value)
        if any(other != values[0] for other in values):
            raise TeamDisagreesError(
                f"the processes of this run differ in their {what}: "
                f"{', '.join(str(other)[:16] for other in values)}"
            )


ALONE = Team()


@contextmanager
def connected(rank: int, size: int, meeting: Path) -> Iterator[Team]:
    """Be one of `size` processes of this machine that meet through the file `meeting`.

    Tensors on GPUs go through NCCL, all else through gloo. On an error the connection is left as it
    is: to close it in order takes all the others.
    """
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(
        backend, init_method=f"file://{meeting}", rank=rank, world_size=size, timeout=_TIMEOUT
    )
    yield Team(rank, size)
    dist.destroy_process_group()
