"""AdamW with weight decay on matrices, but not on embeddings, head, norms and biases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


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


def make_optimizer(model: Any, settings: OptimizerSettings) -> torch.optim.AdamW:
    """The optimizer at rate 0; the loop sets the rate of every step."""
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
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": settings.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=0.0,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        fused=next(model.parameters()).device.type == "cuda",
    )
