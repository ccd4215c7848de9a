"""Gradients scaled down to a norm, by exactly the factor that is written down.

    norm = total_norm(gradients)                       # float32, whatever the gradients are
    factor = scale_down(gradients, norm, max_norm)     # what they were multiplied by

torch.nn.utils.clip_grad_norm_ takes the norm and the factor in the gradients' own type: of bf16
gradients both keep 8 bits, and what was multiplied by is not what anyone computes from the norm.
In float32 both ways give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch


@torch.no_grad()
def total_norm(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """The norm of all gradients as one vector, 0-d, in float32 or what is wider."""
    kind = reduce(torch.promote_types, {g.dtype for g in gradients}, torch.float32)
    norms = torch._foreach_norm(list(gradients), 2, kind)
    norm: torch.Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return norm


@torch.no_grad()
def scale_down(
    gradients: Sequence[torch.Tensor], norm: torch.Tensor, max_norm: float | None
) -> float:
    """Multiply the gradients, in place, by what brings `norm` down to `max_norm`; returns it.

    As in torch 1e-6 is added to the norm. 1 where nothing is changed, as where it is no number.
    """
    if max_norm is None:
        return 1.0
    factor = float(torch.clamp(max_norm / (norm + 1e-6), max=1.0))
    if not factor < 1:
        return 1.0
    for gradient in gradients:
        # A Python number keeps its bits; a tensor's, or that of torch._foreach_mul_, are rounded.
        gradient.mul_(factor)
    return factor
