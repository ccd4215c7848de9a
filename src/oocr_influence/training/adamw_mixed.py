"""AdamW for bf16 weights that loses no update: computed in float32, kept in 10 or 12 bytes.

| tensor of a bf16 parameter | stochastic | master |
|---|---|---|
| weight, gradient | bf16 | bf16 |
| `exp_avg` | bf16 | bf16 |
| `exp_avg_sq` | float32 | float32 |
| `low`: with the weight, its float32 master | – | int16 |

The first moment changes by a tenth at each update, which bf16 holds; the second by a thousandth,
which it does not. Float32 parameters are updated in float32 throughout.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch

from oocr_influence.training.bf16_rounding import (
    draw_noise,
    join_halves,
    round_stochastically,
    split_halves,
)

logger = logging.getLogger("oocr_influence")

Rounding = Literal["stochastic", "master"]
# Elements that are updated at once: temporaries are a few times four bytes of them. Another number
# draws other noise.
CHUNK = 2**23


class MixedAdamW(torch.optim.Optimizer):
    """torch.optim.AdamW's semantics; see the module for what is kept in which precision."""

    def __init__(
        self,
        params: Any,
        *,
        betas: tuple[float, float],
        eps: float,
        rounding: Rounding,
        seed: int = 0,
        lr: float = 0.0,
        weight_decay: float = 0.0,
        compiled: bool | None = None,
    ) -> None:
        """`seed` is that of the noise. `compiled`: as one kernel; None: on a GPU, where it works"""
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )
        device = next(p.device for group in self.param_groups for p in group["params"])
        self._rounding = rounding
        self._generator = torch.Generator(device).manual_seed(seed)
        self._update: Callable[..., None] | None = None
        self._compiled = device.type == "cuda" if compiled is None else compiled

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        assert closure is None, "the loss is not computed again"
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step_one(parameter, group)

    def state_dict(self) -> dict[str, Any]:
        """Also holds the state of the noise."""
        return {**super().state_dict(), "rounding": self._generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Every tensor in its own kind: torch's way would make all of them the parameter's."""
        saved, groups = state_dict["state"], state_dict["param_groups"]
        super().load_state_dict({"state": {}, "param_groups": groups})
        indices = [index for group in groups for index in group["params"]]
        parameters = [p for group in self.param_groups for p in group["params"]]
        for index, parameter in zip(indices, parameters, strict=True):
            if index in saved:
                self.state[parameter] = {
                    name: value.to(parameter.device) if isinstance(value, torch.Tensor) else value
                    for name, value in saved[index].items()
                }
        self._generator.set_state(state_dict["rounding"].cpu())

    def _step_one(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            self._begin(parameter, state)
        state["step"] += 1
        beta1, beta2 = group["betas"]
        rate, step = group["lr"], state["step"]
        # As tensors: numbers that change would have the kernel compiled again.
        changing = [
            torch.tensor(number, dtype=torch.float64)
            for number in (
                1 - rate * group["weight_decay"],
                rate / (1 - beta1**step),
                (1 - beta2**step) ** 0.5,
            )
        ]
        is_stochastic = self._rounding == "stochastic" and parameter.dtype == torch.bfloat16
        tensors = (parameter, parameter.grad, state["exp_avg"], state["exp_avg_sq"])
        for weight, gradient, exp_avg, exp_avg_sq, low in _chunks(*tensors, state.get("low")):
            noise = draw_noise(weight, self._generator) if is_stochastic else None
            given = (weight, gradient, exp_avg, exp_avg_sq, low, noise, *changing)
            settings = (beta1, beta2, group["eps"])
            if self._update is None:
                self._update = _kernel(given, settings, compiled=self._compiled)
            self._update(*given, *settings)

    def _begin(self, parameter: torch.Tensor, state: dict[str, Any]) -> None:
        state["step"] = 0
        state["exp_avg"] = torch.zeros_like(parameter)
        state["exp_avg_sq"] = torch.zeros_like(parameter, dtype=torch.float32)
        if self._rounding == "master" and parameter.dtype == torch.bfloat16:
            state["low"] = torch.zeros_like(parameter, dtype=torch.int16)


def update(
    weight: torch.Tensor,
    gradient: torch.Tensor,
    exp_avg: torch.Tensor,
    exp_avg_sq: torch.Tensor,
    low: torch.Tensor | None,
    noise: torch.Tensor | None,
    decay: torch.Tensor,
    step_size: torch.Tensor,
    correction: torch.Tensor,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    """AdamW in place, elementwise; in the order of torch's own operations, for the same bits.

    `decay` is 1 - rate * weight decay, `step_size` the rate over the first moment's bias
    correction, `correction` the root of the second one's.
    """
    value = (weight.float() if low is None else join_halves(weight, low)) * decay
    gradient = gradient.float()
    mean = exp_avg.float().lerp(gradient, 1 - beta1)
    square = (exp_avg_sq * beta2).addcmul(gradient, gradient, value=1 - beta2)
    value = value - step_size * mean / (square.sqrt() / correction + eps)
    exp_avg.copy_(mean)
    exp_avg_sq.copy_(square)
    if low is not None:
        high, rest = split_halves(value)
        weight.copy_(high)
        low.copy_(rest)
    elif noise is not None:
        weight.copy_(round_stochastically(value, noise))
    else:
        weight.copy_(value)


def _kernel(
    given: tuple[torch.Tensor | None, ...], settings: tuple[float, ...], *, compiled: bool
) -> Callable[..., None]:
    """`update`, as one kernel if asked, tried out on zeros of the given kinds beforehand."""
    if not compiled:
        return update
    kernel: Callable[..., None] = torch.compile(update, dynamic=True, fullgraph=True)
    tensors = [
        value if value is None or value.ndim == 0 else torch.zeros_like(value.reshape(-1)[:4096])
        for value in given
    ]
    try:
        kernel(*tensors, *settings)
    except Exception as error:  # no compiler, no triton, a driver too old: each raises its own
        logger.info("the optimizer is not compiled, and slower (%s)", type(error).__name__)
        return update
    return kernel


def _chunks(*tensors: torch.Tensor | None) -> Iterator[tuple[Any, ...]]:
    """Views of the same elements of all tensors, CHUNK at a time; None stays None."""
    if not all(tensor is None or tensor.is_contiguous() for tensor in tensors):
        yield tensors
        return
    flat = [None if tensor is None else tensor.view(-1) for tensor in tensors]
    n = next(tensor.numel() for tensor in flat if tensor is not None)
    for start in range(0, n, CHUNK):
        yield tuple(None if one is None else one[start : start + CHUNK] for one in flat)
