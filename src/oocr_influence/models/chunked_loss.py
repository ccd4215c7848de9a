"""Cross-entropy from hidden states, without ever holding all logits.

    loss, cross_entropy = head_loss(model.get_output_embeddings(), hidden_LD, targets_L)

A few rows at a time are multiplied by the head, and their gradients are taken at once, so that what
is kept for the backward pass is the size of the hidden states and of the head, not rows ×
vocabulary (the idea of Liger Kernel's fused linear cross-entropy, arXiv 2410.10989, section 3.2).
Logits are float32, whatever the weights are.

Letters: L labelled rows, R rows of a chunk, V vocabulary, D hidden size.
"""

from __future__ import annotations

from typing import Any

import torch

from oocr_influence.models.head import float32_linear, on_tensor_cores

# Float32 logits held at once. Small models' batches fit into one chunk.
CHUNK_BYTES = {"cpu": 2**26, "cuda": 2**29}


def head_loss(
    head: Any,
    hidden_LD: torch.Tensor,
    targets_L: torch.Tensor,
    *,
    z_loss: float = 0.0,
    divisor: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(summed loss to differentiate, summed cross-entropy to report) of these rows.

    `z_loss` weighs the squared log-partition of each row. The loss is divided by `divisor`, its
    gradients while they are float32: a factor that comes later is rounded to the type of the
    weights on a GPU, where it is a tensor. Autocast does not reach in here.
    """
    hidden_LD = hidden_LD.to(head.weight.dtype)  # they differ under autocast alone
    chunk_bytes = CHUNK_BYTES.get(hidden_LD.device.type, CHUNK_BYTES["cuda"])
    rows = max(1, chunk_bytes // (4 * head.weight.shape[0]))
    with torch.autocast(hidden_LD.device.type, enabled=False):
        loss, cross_entropy = _HeadLoss.apply(  # type: ignore[no-untyped-call]
            hidden_LD, head.weight, getattr(head, "bias", None), targets_L, z_loss, divisor, rows
        )
    return loss, cross_entropy


class _HeadLoss(torch.autograd.Function):
    """Gradients are computed in the forward pass, for a loss whose own gradient is a factor."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_LD: torch.Tensor,
        weight_VD: torch.Tensor,
        bias_V: torch.Tensor | None,
        targets_L: torch.Tensor,
        z_loss: float,
        divisor: float,
        rows: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        wanted = ctx.needs_input_grad[:3]
        like = hidden_LD.new_zeros((), dtype=torch.float32)
        cross_entropy, squared_partition = like.clone(), like.clone()
        grad_hidden = torch.empty_like(hidden_LD) if wanted[0] else None
        grad_weight: torch.Tensor | None = None
        grad_bias = like.new_zeros(len(weight_VD)) if wanted[2] else None
        for first in range(0, len(hidden_LD), rows):
            hidden_RD, targets_R = hidden_LD[first : first + rows], targets_L[first : first + rows]
            logits_RV = float32_linear(hidden_RD, weight_VD, bias_V)
            right_R = logits_RV.gather(1, targets_R[:, None])[:, 0]
            # In place: a second matrix of this size takes as long as its arithmetic.
            largest_R = logits_RV.amax(-1)
            exp_RV = logits_RV.sub_(largest_R[:, None]).exp_()
            sum_R = exp_RV.sum(-1)
            partition_R = largest_R + sum_R.log()
            cross_entropy += (partition_R - right_R).sum()
            if z_loss:
                squared_partition += partition_R.square().sum()
            if not any(wanted):
                continue
            # d loss / d logits = softmax * (1 + 2 z log-partition), minus one at the target;
            # all of it divided.
            scale_R = (1 / divisor) / sum_R
            if z_loss:
                scale_R *= 1 + 2 * z_loss * partition_R
            grad_RV = exp_RV.mul_(scale_R[:, None])
            grad_RV[torch.arange(len(targets_R), device=grad_RV.device), targets_R] -= 1 / divisor
            if grad_bias is not None:
                grad_bias += grad_RV.sum(0)
            factor_RV = grad_RV.to(weight_VD.dtype)
            if grad_hidden is not None:
                torch.mm(factor_RV, weight_VD, out=grad_hidden[first : first + rows])
            if wanted[1]:
                grad_weight = _with_product(grad_weight, factor_RV, hidden_RD)
        ctx.bias_dtype = None if bias_V is None else bias_V.dtype
        if wanted[1]:
            total_VD = torch.zeros_like(weight_VD) if grad_weight is None else grad_weight
            grad_weight = total_VD.to(weight_VD.dtype)
        ctx.gradients = grad_hidden, grad_weight, grad_bias
        ctx.mark_non_differentiable(cross_entropy)
        return (cross_entropy + z_loss * squared_partition) / divisor, cross_entropy

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("the gradients of this loss were given away by an earlier backward")
        # In place, and held by nobody else, so that they become the parameters' own without a copy.
        hidden, weight, bias = (
            None if gradient is None else gradient.mul_(grads[0]) for gradient in gradients
        )
        del gradients
        return hidden, weight, None if bias is None else bias.to(ctx.bias_dtype), *[None] * 4


def _with_product(
    total_VD: torch.Tensor | None, factor_RV: torch.Tensor, hidden_RD: torch.Tensor
) -> torch.Tensor:
    """factorᵀ hidden with float32 sums, added in place to what there is."""
    if on_tensor_cores(hidden_RD):
        product_VD = torch.mm(factor_RV.t(), hidden_RD, out_dtype=torch.float32)
        return product_VD if total_VD is None else total_VD.add_(product_VD)
    factor_VR, hidden_RD = factor_RV.float().t(), hidden_RD.float()
    return factor_VR @ hidden_RD if total_VD is None else total_VD.addmm_(factor_VR, hidden_RD)
