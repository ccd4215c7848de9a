"""One model over several processes: each holds a share of every tensor (FSDP2, `fully_shard`).

    sharded = ShardedModel(model, team)          # `model` now holds shares
    loss, cross_entropy = sharded.loss(batch, z_loss=0.0, divisor=1)     # all at the same time
    sharded.fill(); ask(sharded.whole); sharded.release()     # a plain model of the same weights

A layer's weights are whole while it computes; gradients are summed over the processes, where FSDP
would average them. What is not training (questions, checkpoints) has to do with `whole` alone, a
model without any hook. It takes the memory of all weights on each device while it is filled.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from oocr_influence.models.head import has_plain_head
from oocr_influence.models.loss import WindowBatch, window_loss
from oocr_influence.models.team import Team


def can_shard() -> bool:
    """Whether this torch's FSDP2 can add gradients up over processes."""
    return hasattr(FSDPModule, "set_force_sum_reduction_for_comms")


class ShardedModel:
    """A causal LM whose parameters are shared out over a team's processes."""

    def __init__(self, model: Any, team: Team) -> None:
        self.model, self.team = model, team
        has_plain_head(model)  # asked by passes of the model's own, which none are from now on
        self.whole = _without_weights(model)
        self._device = next(model.parameters()).device
        mesh = init_device_mesh(self._device.type, (team.size,))
        policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
        self._loss = _WindowLoss(model)
        parts = [*_layers(model), self._loss]
        for part in parts:  # the whole comes last, and takes what no layer has
            fully_shard(part, mesh=mesh, mp_policy=policy)
        for part in parts:
            # The default is the mean over processes; losses are divided by all labels already.
            part.set_gradient_divide_factor(1.0)  # type: ignore[operator]
            part.set_force_sum_reduction_for_comms(True)  # type: ignore[operator]

    def loss(
        self, batch: WindowBatch, *, z_loss: float, divisor: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`window_loss` of this process's windows; the others must ask for theirs, too."""
        result: tuple[torch.Tensor, torch.Tensor] = self._loss(batch, z_loss, divisor)
        return result

    @torch.no_grad()
    def fill(self) -> None:
        """Put the weights of this moment into `whole`, on every process."""
        shares = dict(self.model.named_parameters())
        for name, parameter in self.whole.named_parameters():
            parameter.data = _full(shares[name])

    def release(self) -> None:
        """Take the weights out of `whole` again."""
        for parameter in self.whole.parameters():
            parameter.data = parameter.data.new_empty(0)

    @torch.no_grad()
    def gathered(self, value: Any) -> Any:
        """The same dicts and lists with every share made whole, on the leader's CPU.

        Shares become None elsewhere. All processes must ask with values of the same form.
        """
        if isinstance(value, DTensor):
            full = _full(value)
            return full.cpu() if self.team.leads else None
        if isinstance(value, dict):
            return {key: self.gathered(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.gathered(part) for part in value)
        return value

    @torch.no_grad()
    def share_of(self, full: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """This process's share of a whole tensor that every process has, cut as `like` is."""
        if not isinstance(like, DTensor):
            return full
        # Without a source rank each process cuts its own copy, and nothing is sent.
        return distribute_tensor(
            full.to(self._device), like.device_mesh, like.placements, src_data_rank=None
        )


class _WindowLoss(nn.Module):
    """The loss as a module: within its forward pass embeddings, last norm and head are whole."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, batch: WindowBatch, z_loss: float, divisor: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return window_loss(self.model, batch, z_loss=z_loss, divisor=divisor)


def _layers(model: Any) -> list[nn.Module]:
    """The decoder's layers, which transformers names for those who split models."""
    names = set(getattr(model, "_no_split_modules", None) or ())
    return [module for module in model.modules() if type(module).__name__ in names]


def _without_weights(model: Any) -> Any:
    """A copy of a model in all but its parameters, which are empty and need no gradient."""
    empty = {
        id(parameter): nn.Parameter(parameter.data.new_empty(0), requires_grad=False)
        for parameter in model.parameters()
    }
    return copy.deepcopy(model, empty)


def _full(tensor: torch.Tensor) -> torch.Tensor:
    if isinstance(tensor, DTensor):
        return tensor.full_tensor().detach()
    return tensor.detach()
