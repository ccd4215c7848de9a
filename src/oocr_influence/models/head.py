"""The output layer with float32 results, whatever its weights are.

    logits_RV = float32_linear(hidden_RD, weight_VD)

On a GPU a layer of 16 bits multiplies on the tensor cores and sums in float32: the products of two
bf16 numbers are exact there, so the logits are those of a float32 layer up to the order of the sum,
many times as fast and without a float32 copy of the weights (1.5 GiB of OLMo-2-7B's).

Letters: R rows, V vocabulary, D hidden size.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F

from oocr_influence.models.modes import modes_kept

# torch 2.8 and later; earlier ones take the float32 copy.
_MIXED_PRODUCT = hasattr(torch.ops.aten.mm, "dtype")
_PLAIN: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
_ALLOWED = 1e-3  # between two passes of the same four tokens


def float32_linear(
    hidden: torch.Tensor, weight_VD: torch.Tensor, bias_V: torch.Tensor | None = None
) -> torch.Tensor:
    """`torch.nn.functional.linear` with float32 results; `hidden` is (..., D)."""
    if not (on_tensor_cores(weight_VD) and hidden.dtype == weight_VD.dtype):
        return F.linear(
            hidden.float(), weight_VD.float(), None if bias_V is None else bias_V.float()
        )
    flat_RD = hidden.reshape(-1, hidden.shape[-1])
    logits_RV = torch.mm(flat_RD, weight_VD.t(), out_dtype=torch.float32)
    if bias_V is not None:
        logits_RV += bias_V
    return logits_RV.view(*hidden.shape[:-1], -1)


def on_tensor_cores(weight: torch.Tensor) -> bool:
    """Whether a product with this matrix can have 16-bit factors and float32 sums."""
    return _MIXED_PRODUCT and weight.is_cuda and weight.dtype in (torch.bfloat16, torch.float16)


def has_plain_head(model: Any) -> bool:
    """Whether the model's logits are its output layer applied to its decoder's hidden states.

    Some models scale or cap their logits behind the head. Asked of a few tokens, once a model.
    """
    if model not in _PLAIN:
        with modes_kept(model):
            _PLAIN[model] = _try_head(model)
    return _PLAIN[model]


@torch.no_grad()
def _try_head(model: Any) -> bool:
    """The head's input must be the decoder's output, and what it gives the model's logits.

    The head is made to give numbers from -50 to 50: on the logits of a model that
    knows nothing yet, a cap hardly shows, and would be lost unseen.
    """
    seen: dict[str, torch.Tensor] = {}

    def replaced(_: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        seen["input"] = inputs[0]
        ladder_V = torch.linspace(-50, 50, output.shape[-1], device=output.device)
        seen["output"] = ladder_V.to(output.dtype).expand_as(output)
        return seen["output"]

    handle = None
    try:
        model.eval()  # dropout would draw random numbers
        handle = model.get_output_embeddings().register_forward_hook(replaced)
        ids_1T = torch.arange(4, device=model.get_input_embeddings().weight.device)[None]
        logits = model(input_ids=ids_1T, use_cache=False).logits
        hidden = model.get_decoder()(input_ids=ids_1T, use_cache=False).last_hidden_state
        return torch.equal(logits.float(), seen["output"].float()) and torch.allclose(
            hidden, seen["input"], rtol=_ALLOWED, atol=_ALLOWED
        )
    except torch.OutOfMemoryError:
        raise
    except (
        AttributeError,
        IndexError,
        KeyError,
        NotImplementedError,
        RuntimeError,
        TypeError,
        ValueError,
    ):
        return False
    finally:
        if handle is not None:
            handle.remove()
