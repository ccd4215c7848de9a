"""The output layer in float32 whatever the weights are: bf16 logits tie where the model does not.

Letters: R rows, V vocabulary, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from oocr_influence.models.head import float32_linear, on_tensor_cores

# Float32 logits held at once: on a CPU few enough to stay in its cache (6 % faster than 2**25).
LOGIT_BYTES = {"cpu": 2**23, "cuda": 2**28}


class Float32Head:
    """The model's output layer, applied in float32 to a few rows at a time."""

    def __init__(self, model: Any) -> None:
        layer = model.get_output_embeddings()
        bias = getattr(layer, "bias", None)
        weight = layer.weight.detach()
        self.weight_VD: torch.Tensor = weight if on_tensor_cores(weight) else weight.float()
        self.bias_V: torch.Tensor | None = None if bias is None else bias.detach().float()
        logit_bytes = LOGIT_BYTES.get(weight.device.type, LOGIT_BYTES["cuda"])
        self.rows_at_once = max(1, logit_bytes // (4 * weight.shape[0]))

    def logits(self, hidden_RD: torch.Tensor) -> torch.Tensor:
        """Float32 logits (R, V)."""
        return float32_linear(hidden_RD.to(self.weight_VD.device), self.weight_VD, self.bias_V)


@contextmanager
def float32_head(model: Any) -> Iterator[None]:
    """Within, the model's own forward pass computes its head in float32.

    What the model does to its logits afterwards (scaling, capping) stays in force.
    """

    def in_float32(head: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> Any:
        return float32_linear(inputs[0], head.weight, getattr(head, "bias", None))

    head = model.get_output_embeddings()
    if not isinstance(head, torch.nn.Linear) or head.weight.dtype == torch.float32:
        yield
        return
    handle = head.register_forward_hook(in_float32)
    try:
        yield
    finally:
        handle.remove()
