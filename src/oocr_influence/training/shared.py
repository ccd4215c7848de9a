"""The loop's steps for a model that is shared out over several processes.

    train(model, windows, …, shared=SharedTraining(sharded))

A batch is cut into micro-batches as one process cuts it; they are dealt out to the processes in
turn. The loss is divided by the labels of the whole batch, and gradients are summed, so that only
the order of sums differs from one process. A process that has nothing left in the last turn
computes two tokens without labels, for the layers' weights are gathered by all together.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import torch
from torch.distributed.tensor import DTensor

from oocr_influence.datasets.packing import IGNORED, PackedWindows
from oocr_influence.models.loss import WindowBatch
from oocr_influence.models.sharding import ShardedModel
from oocr_influence.training.clipping import scale_down, total_norm
from oocr_influence.training.loop import Attention, to_device
from oocr_influence.training.state import State

_RANDOM = "random"  # the state's generators are called so, and with what follows
_RANDOM_OF_ALL = "processes_random"


class SharedTraining:
    """What `train` does otherwise where the model's parameters are shares."""

    def __init__(self, sharded: ShardedModel) -> None:
        self._sharded, self._team = sharded, sharded.team

    def seed(self, seed: int) -> int:
        """Of this process's generator: dropout must not be alike in windows of several.

        Within 32 bits, since the CPU's generator takes no more of a seed.
        """
        if self._team.leads:
            return seed
        return int(sha256(f"process:{self._team.rank}:{seed}".encode()).hexdigest()[:8], 16)

    def accumulate_gradients(
        self,
        windows: PackedWindows,
        batch: Sequence[int],
        *,
        micro_batch_size: int,
        attention: Attention = "dense",
        z_loss: float = 0.0,
    ) -> tuple[float, int]:
        """Add the gradient of the batch's token-mean loss; (mean cross-entropy, labels) of all."""
        device = next(self._sharded.model.parameters()).device
        labelled = int((windows.labels[list(batch), 1:] != IGNORED).sum())
        total = torch.zeros((), dtype=torch.float32, device=device)
        cuts = range(0, len(batch), micro_batch_size)
        for turn in range(0, len(cuts), self._team.size):
            micro = _nothing(device)
            if (mine := turn + self._team.rank) < len(cuts):
                first = cuts[mine]
                rows = batch[first : first + micro_batch_size]
                micro = to_device(windows, rows, device, attention)
            loss, cross_entropy = self._sharded.loss(micro, z_loss=z_loss, divisor=max(labelled, 1))
            torch.autograd.backward(loss)
            total += cross_entropy
        return float(self._team.sum(total)) / max(labelled, 1), labelled

    @torch.no_grad()
    def clip(self, max_norm: float | None) -> tuple[float, float]:
        """Clip the gradients by the norm of all shares; (the norm before, the factor)."""
        shares = [p.grad for p in self._sharded.model.parameters() if p.grad is not None]
        # Within no_grad a local tensor is the share's own.
        own = [one.to_local() if isinstance(one, DTensor) else one for one in shares]
        norm = self._team.sum(total_norm(own).square()).sqrt()
        return float(norm), scale_down(own, norm, max_norm)

    def gathered(self, state: State) -> State:
        """A captured state as one process has it, on the leader's CPU; and all the generators."""
        own = {name: part for name, part in state.items() if name.startswith(_RANDOM)}
        gathered: State = self._sharded.gathered(state)
        gathered[_RANDOM_OF_ALL] = self._team.gather(own)
        return gathered

    def spread(self, state: State, optimizer: torch.optim.Optimizer) -> State:
        """This process's shares of a state that any number of processes has left."""
        shares = self._sharded.model.state_dict()
        model = {
            name: self._sharded.share_of(tensor, shares[name])
            for name, tensor in state["model"].items()
        }
        kept = {**state, "model": model, "optimizer": self._spread(state["optimizer"], optimizer)}
        generators = kept.pop(_RANDOM_OF_ALL, [])
        if len(generators) == self._team.size:
            kept.update(generators[self._team.rank])
        elif not self._team.leads:
            # As seeded: no process stood here before.
            kept |= {_RANDOM: torch.get_rng_state(), f"{_RANDOM}_gpu": None}
        return kept

    def _spread(self, state: State, optimizer: torch.optim.Optimizer) -> State:
        moments = dict(state["state"])
        for saved, own in zip(state["param_groups"], optimizer.param_groups, strict=True):
            for index, parameter in zip(saved["params"], own["params"], strict=True):
                moments[index] = {
                    name: self._sharded.share_of(value, parameter)
                    if isinstance(value, torch.Tensor) and value.shape == parameter.shape
                    else value
                    for name, value in state["state"].get(index, {}).items()
                }
        return {**state, "state": {index: part for index, part in moments.items() if part}}


def _nothing(device: torch.device) -> WindowBatch:
    """Two tokens without a label."""
    tokens_BT = torch.zeros(1, 2, dtype=torch.int64, device=device)
    return WindowBatch(
        input_ids_BT=tokens_BT,
        labels_BT=torch.full_like(tokens_BT, IGNORED),
        position_ids_BT=torch.arange(2, device=device)[None],
        segments_BT=tokens_BT,
    )
