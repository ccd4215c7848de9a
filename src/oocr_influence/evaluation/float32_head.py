"""The output layer in float32 whatever the weights are: bf16 logits tie where the model does not.

On a GPU a head of 16 bits multiplies on the tensor cores and sums in float32: the products of two
bf16 numbers are exact there, so the logits are those of a float32 head up to the order of the sum,
about ten times as fast and without a float32 copy of the weights (1.5 GiB of OLMo-2-7B's).

Letters: R rows, V vocabulary, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F

# Float32 logits held at once: on a CPU few enough to stay in its cache (6 % faster than 2**25).
LOGIT_BYTES = {"cpu": 2**23, "cuda": 2**28}
# torch 2.8 and later; earlier ones take the float32 copy.
_MIXED_PRODUCT = hasattr(torch.ops.aten.mm, "dtype")


class Float32Head:
    """The model's output layer, applied in float32 to a few rows at a time."""

    def __init__(self, model: Any) -> None:
        layer = model.get_output_embeddings()
        bias = getattr(layer, "bias", None)
        weight = layer.weight.detach()
        self.weight_VD: torch.Tensor = weight if _on_tensor_cores(weight) else weight.float()
        self.bias_V: torch.Tensor | None = None if bias is None else bias.detach().float()
        logit_bytes = LOGIT_BYTES.get(weight.device.type, LOGIT_BYTES["cuda"])
        self.rows_at_once = max(1, logit_bytes // (4 * weight.shape[0]))

    def logits(self, hidden_RD: torch.Tensor) -> torch.Tensor:
        """Float32 logits (R, V)."""
        return _float32_linear(hidden_RD.to(self.weight_VD.device), self.weight_VD, self.bias_V)


@contextmanager
def float32_head(model: Any) -> Iterator[None]:
    """Within, the model's own forward pass computes its head in float32.

    What the model does to its logits afterwards (scaling, capping) stays in force.
    """

    def in_float32(head: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> Any:
        bias = getattr(head, "bias", None)
        return _float32_linear(inputs[0], head.weight, None if bias is None else bias.float())

    head = model.get_output_embeddings()
    if not isinstance(head, torch.nn.Linear) or head.weight.dtype == torch.float32:
        yield
        return
    handle = head.register_forward_hook(in_float32)
    try:
        yield
    finally:
        handle.remove()


def _on_tensor_cores(weight: torch.Tensor) -> bool:
    return _MIXED_PRODUCT and weight.is_cuda and weight.dtype in (torch.bfloat16, torch.float16)


def _float32_linear(
    hidden: torch.Tensor, weight_VD: torch.Tensor, bias_V: torch.Tensor | None
) -> torch.Tensor:
    """`F.linear` with float32 logits; `hidden` is (..., D)."""
    if not (_on_tensor_cores(weight_VD) and hidden.dtype == weight_VD.dtype):
        return F.linear(hidden.float(), weight_VD.float(), bias_V)
    flat_RD = hidden.reshape(-1, hidden.shape[-1])
    logits_RV = torch.mm(flat_RD, weight_VD.t(), out_dtype=torch.float32)
    if bias_V is not None:
        logits_RV += bias_V
    return logits_RV.view(*hidden.shape[:-1], -1)
