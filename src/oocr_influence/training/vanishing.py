"""How much of an update is lost to rounding, measured on a fixed sample of the trained elements.

    sample = UpdateSample(optimizer, seed)
    lost = sample.measure(optimizer.step)       # makes the update, and looks before and after

The update that AdamW would make in exact arithmetic is computed in float64 from the state before it
and compared with what became of weights and moments. bf16 holds 8 bits: an update below half of a
weight's last bit changes nothing, and a second moment that should fall by a thousandth stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from oocr_influence.training.bf16_rounding import join_halves

LIMIT = 2**16  # a share is then known to 0.2 %, one standard error


@dataclass(frozen=True)
class UpdateLosses:
    """Shares of the sampled elements of one update; None where there was nothing to lose."""

    weight_updates_vanished: float | None
    """Of the weights that should have changed, those that did not."""
    update_realised: float | None
    """The change that was made, projected onto the exact one: 1 where nothing is lost on average,
    as under stochastic rounding, which leaves many weights in place and moves others further."""
    second_moments_stuck: float | None
    """Of the second moments that should have fallen, those that did not."""


@dataclass
class _Numbers:
    """float64 values of the sampled elements, before or after an update, or as they should be."""

    weight: list[torch.Tensor]
    square: list[torch.Tensor]


class UpdateSample:
    """Up to `limit` elements over all parameters of an optimizer, in proportion to their sizes."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, seed: int = 0, *, limit: int = LIMIT
    ) -> None:
        self._optimizer = optimizer
        self._places: list[torch.Tensor | None] = []
        sizes = [parameter.numel() for parameter, _ in self._parameters()]
        generator = torch.Generator().manual_seed(seed)
        for (parameter, _), size in zip(self._parameters(), sizes, strict=True):
            places = None
            if sum(sizes) > limit:
                count = max(1, limit * size // sum(sizes))
                places = torch.randint(size, (count,), generator=generator).to(parameter.device)
            self._places.append(places)

    @torch.no_grad()
    def measure(self, step: Callable[[], Any]) -> UpdateLosses:
        """Call `step`, which makes one update from the gradients that are there."""
        before, exact = _Numbers([], []), _Numbers([], [])
        sampled = []
        for (parameter, group), places in zip(self._parameters(), self._places, strict=True):
            if parameter.grad is None:
                continue
            sampled.append((parameter, places))
            weight, mean, square = self._read(parameter, places)
            before.weight.append(weight)
            before.square.append(square)
            gradient = _at(parameter.grad, places)
            made = float(self._optimizer.state[parameter].get("step", 0))
            new_weight, new_square = _adamw(weight, mean, square, gradient, made + 1, group)
            exact.weight.append(new_weight)
            exact.square.append(new_square)
        step()
        after = _Numbers([], [])
        for parameter, places in sampled:
            weight, _, square = self._read(parameter, places)
            after.weight.append(weight)
            after.square.append(square)
        return _compare(before, exact, after)

    def _parameters(self) -> Iterator[tuple[torch.Tensor, dict[str, Any]]]:
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                yield parameter, group

    def _read(
        self, parameter: torch.Tensor, places: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Weight, the master where there is one, and both moments."""
        state = self._optimizer.state[parameter]
        weight = _at(parameter, places)
        if "low" in state:
            low = _at(state["low"], places)
            weight = join_halves(weight.to(torch.bfloat16), low.to(torch.int16)).double()
        if "exp_avg" not in state:
            return weight, torch.zeros_like(weight), torch.zeros_like(weight)
        return weight, _at(state["exp_avg"], places), _at(state["exp_avg_sq"], places)


def _at(tensor: torch.Tensor, places: torch.Tensor | None) -> torch.Tensor:
    """Some elements as float64, never the tensor's own."""
    if type(tensor) is not torch.Tensor and not isinstance(tensor, torch.nn.Parameter):
        tensor = tensor.dequantize()  # torchao's moments
    flat = tensor.detach().reshape(-1)
    return (flat if places is None else flat[places]).to(torch.float64, copy=True)


def _adamw(
    weight: torch.Tensor,
    mean: torch.Tensor,
    square: torch.Tensor,
    gradient: torch.Tensor,
    step: float,
    group: dict[str, Any],
) -> tuple[torch.Tensor, torch.Tensor]:
    """(weight, second moment) after an update of Loshchilov and Hutter, arXiv 1711.05101."""
    (beta1, beta2), rate = group["betas"], float(group["lr"])
    mean = beta1 * mean + (1 - beta1) * gradient
    new_square = beta2 * square + (1 - beta2) * gradient**2
    ratio = mean / (1 - beta1**step) / ((new_square / (1 - beta2**step)).sqrt() + group["eps"])
    return weight * (1 - rate * group["weight_decay"]) - rate * ratio, new_square


def _compare(before: _Numbers, exact: _Numbers, after: _Numbers) -> UpdateLosses:
    if not before.weight:
        return UpdateLosses(None, None, None)
    old, wanted, new = (torch.cat(numbers.weight) for numbers in (before, exact, after))
    update = wanted - old
    should_move = update != 0
    length = float(update.square().sum())
    old_square, wanted_square, new_square = (
        torch.cat(numbers.square) for numbers in (before, exact, after)
    )
    should_fall = wanted_square < old_square
    return UpdateLosses(
        weight_updates_vanished=_share((new == old) & should_move, should_move),
        update_realised=float((update * (new - old)).sum()) / length if length else None,
        second_moments_stuck=_share((new_square >= old_square) & should_fall, should_fall),
    )


def _share(part: torch.Tensor, whole: torch.Tensor) -> float | None:
    n = int(whole.sum())
    return int(part.sum()) / n if n else None
