"""All that the next update depends on, beside the data: what exact resuming takes.

    state = capture(model, optimizer, place, exposures)     # tensors and numbers, for torch.save
    place, exposures = restore(state, model, optimizer)

With the same hardware and the same micro-batches, training that goes on from a state makes the bits
that it would have made without the interruption.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from oocr_influence.datasets.packing import IntArray

State = dict[str, Any]


@dataclass(frozen=True, order=True)
class Place:
    """The last update that was made; burn-in comes first and is counted apart, both from 1."""

    in_training: bool = False
    """Whether burn-in is over."""
    step: int = 0

    @property
    def training_step(self) -> int:
        """Updates made after burn-in."""
        return self.step if self.in_training else 0


def capture(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, place: Place, exposures: IntArray
) -> State:
    """The state after `place`. Tensors are the model's own: write them before the next update."""
    device = next(model.parameters()).device
    on_gpu = device.type == "cuda"
    return {
        "in_training": place.in_training,
        "step": place.step,
        "exposures": torch.from_numpy(exposures.copy()),
        "model": _changing(model),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "random_gpu": torch.cuda.get_rng_state(device) if on_gpu else None,
    }


def place_of(state: State) -> Place:
    """Where training stood."""
    return Place(bool(state["in_training"]), int(state["step"]))


def restore(
    state: State, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[Place, IntArray]:
    """Put weights, moments and random generators back; returns the place and the exposures."""
    if state["model"].keys() != _changing(model).keys():
        raise ValueError("the training state is of another model, or of other trained weights")
    model.load_state_dict(state["model"], strict=False)  # frozen weights are not in it
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    device = next(model.parameters()).device
    if device.type == "cuda" and state["random_gpu"] is not None:
        torch.cuda.set_rng_state(state["random_gpu"], device)
    exposures: IntArray = state["exposures"].numpy().copy()
    return place_of(state), exposures


def _changing(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What of the model training changes: all but frozen parameters, such as a LoRA's base."""
    parameters = model.named_parameters(remove_duplicate=False)
    frozen = {name for name, parameter in parameters if not parameter.requires_grad}
    return {name: t for name, t in model.state_dict().items() if name not in frozen}
