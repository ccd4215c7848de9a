"""AdamW with weight decay on matrices, but not on embeddings, head, norms and biases.

| precision | weights, gradients | first moment | second | beside them | bytes |
|---|---|---|---|---|---|
| fp32 | float32 | float32 | float32 | – | 16 |
| bf16 | bf16 | bf16 | bf16 | – | 8 |
| bf16_stochastic | bf16 | bf16 | float32 | – | 10 |
| fp32_master | bf16 | bf16 | float32 | int16, the lower half of the master | 12 |

fp32 and bf16 are torch's own optimizer, the others that of `adamw_mixed.py`; `low_bit.py` has
moments of 8 and 4 bits. The kind of the weights is that of `models/load.py`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch

from oocr_influence.models.load import Precision
from oocr_influence.training.adamw_mixed import MixedAdamW
from oocr_influence.training.low_bit import OptimizerKind, make_low_bit


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101) and clipping by the global gradient norm."""

    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    max_grad_norm: float | None = 1.0
    """gradients of a larger norm are scaled down to it; None: never"""
    z_loss: float = 0.0
    precision: Precision = "auto"
    """of the moments and of the update; that of the weights is the model's own"""
    kind: OptimizerKind = "adamw"


def make_optimizer(
    model: Any, settings: OptimizerSettings, *, seed: int = 0
) -> torch.optim.Optimizer:
    """The optimizer at rate 0; the loop sets the rate of every step.

    `seed` is that of stochastic rounding. Raises ImportError where torchao is needed and missing.
    """
    groups = _groups(model, settings)
    betas = (settings.beta1, settings.beta2)
    if settings.kind != "adamw":
        assert settings.precision != "fp32_master", "low-bit moments have no master"
        return make_low_bit(
            settings.kind,
            groups,
            betas=betas,
            eps=settings.eps,
            stochastic_rounding=settings.precision == "bf16_stochastic",
        )
    if settings.precision in ("bf16_stochastic", "fp32_master"):
        return MixedAdamW(
            groups,
            betas=betas,
            eps=settings.eps,
            rounding="stochastic" if settings.precision == "bf16_stochastic" else "master",
            seed=_noise_seed(seed),
        )
    return torch.optim.AdamW(
        groups,
        lr=0.0,
        betas=betas,
        eps=settings.eps,
        fused=next(model.parameters()).device.type in ("cuda", "cpu"),
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of the next update."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):  # torchao's, which refuses a plain number
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def _noise_seed(seed: int) -> int:
    """Another stream than that of torch's global generator, which the run seeds by `seed`."""
    return int(hashlib.sha256(f"stochastic_rounding:{seed}".encode()).hexdigest()[:15], 16)


def _groups(model: Any, settings: OptimizerSettings) -> list[dict[str, Any]]:
    undecayed = {
        id(parameter)
        for embedding in (model.get_input_embeddings(), model.get_output_embeddings())
        if embedding is not None
        for parameter in embedding.parameters()
    }
    decayed: list[tuple[str, torch.nn.Parameter]] = []
    others: list[tuple[str, torch.nn.Parameter]] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_matrix = parameter.ndim >= 2 and id(parameter) not in undecayed
            (decayed if is_matrix else others).append((name, parameter))
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]  # an adapter has matrices alone
