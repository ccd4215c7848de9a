"""Can this model be trained with attention by segments? Asked of a few tokens, before training.

    reason = refuse_packed(model, "padded")     # None: yes, and the model is switched to it

The answer is yes only if, on two short windows, the hidden states of the real tokens are those of
the dense mask, every layer's attention was told of the segments, none asks for anything else in
training (dropout, a sliding window, a cap), and the kernel's values and gradients are those of
`scaled_dot_product_attention` with the mask.

Letters: B windows, T tokens, H heads, D head size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from oocr_influence.models.loss import WindowBatch, attention_mask, model_inputs
from oocr_influence.models.modes import modes_kept
from oocr_influence.models.packed_attention import (
    NAME,
    Kernel,
    SegmentLayout,
    lay_out,
    use_packed_attention,
    within_segments,
)

# Largest relative difference that is still rounding; what is seen across documents makes far more.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
TOLERANCE_OF_HALF_PRECISION = 0.05
# Documents of two windows: of one token, of more than a kernel's block, and padding.
LENGTHS = ((7, 1, 150, 1, 12), (80, 30))


def refuse_packed(model: Any, kernel: Kernel) -> str | None:
    """Why `model` cannot take layouts for `kernel`; None if it can, and it then does.

    If it cannot, its attention is transformers' SDPA. Raises torch.OutOfMemoryError.
    """
    before = model.config._attn_implementation
    if before not in ("sdpa", NAME):
        return f"its attention is {before}"
    weight = model.get_input_embeddings().weight
    if kernel == "varlen" and not (
        weight.is_cuda and weight.dtype in (torch.bfloat16, torch.float16)
    ):
        return "flash attention takes 16 bits on a GPU alone"
    before = model.config._attn_implementation
    reason: str | None = "it was not asked"
    try:
        with modes_kept(model):
            reason = _try(model, kernel, weight.device)
    except torch.OutOfMemoryError:
        raise
    except (
        AttributeError,
        ImportError,
        IndexError,
        KeyError,
        NotImplementedError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        reason = f"{type(error).__name__}: {error}"
    finally:
        if reason is not None:
            model.set_attn_implementation(before)
    return reason


def _try(model: Any, kernel: Kernel, device: torch.device) -> str | None:
    batch, layout = _short_windows(model, kernel, device)
    allowed = TOLERANCE.get(model.dtype, TOLERANCE_OF_HALF_PRECISION)
    real_BT = batch.segments_BT >= 0
    model.eval()
    with torch.no_grad():
        expected = _hidden(model, batch)[real_BT]
        use_packed_attention(model)
        packed = WindowBatch(**{**vars(batch), "layout": layout})
        calls: list[tuple[Any, ...]] = []
        found = _hidden(model, packed, attention_calls=calls)[real_BT]
        # Dropout shows in training alone, and draws random numbers.
        model.train()
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            _hidden(model, packed)
    difference = _relative(found, expected)
    if not difference <= allowed:
        return f"its hidden states differ from those of the mask by {difference:.2g}"
    if not calls:
        return "its layers are not told of the segments"
    for name, apart in _kernel_differences(calls[0], batch, layout).items():
        if not apart <= allowed:
            return f"the kernel's {name} differ from those of the mask by {apart:.2g}"
    return None


def _short_windows(
    model: Any, kernel: Kernel, device: torch.device
) -> tuple[WindowBatch, SegmentLayout]:
    """Two windows of a few documents, no longer than the model can read, and their layout."""
    limit = getattr(model.config, "max_position_embeddings", None) or max(map(max, LENGTHS))
    T = max(map(sum, LENGTHS))
    vocabulary = model.get_input_embeddings().weight.shape[0]
    segments_BT = np.full((len(LENGTHS), T), -1, dtype=np.int64)
    positions_BT = np.zeros_like(segments_BT)
    for row, lengths in enumerate(LENGTHS):
        at = 0
        for number, length in enumerate(lengths):
            segments_BT[row, at : at + length] = number
            positions_BT[row, at : at + length] = np.arange(length) % limit
            at += length
    ids_BT = np.arange(segments_BT.size).reshape(segments_BT.shape) * 7 % vocabulary
    ids, positions, segments = (
        torch.from_numpy(array).to(device) for array in (ids_BT, positions_BT, segments_BT)
    )
    return WindowBatch(ids, ids, positions, segments), lay_out(segments_BT, kernel, device)


def _hidden(model: Any, batch: WindowBatch, **more: Any) -> torch.Tensor:
    output = model.get_decoder()(**model_inputs(batch), **more)
    hidden_BTD: torch.Tensor = output.last_hidden_state
    return hidden_BTD


def _kernel_differences(
    call: tuple[Any, ...], batch: WindowBatch, layout: SegmentLayout
) -> dict[str, float]:
    """Relative differences of values and gradients on what a layer gave its attention."""
    *tensors, scaling = call
    shared = tensors[0].shape[1] // tensors[1].shape[1]
    real_BT = batch.segments_BT >= 0
    generator = torch.Generator().manual_seed(0)
    results = []
    for dense in (True, False):
        query, key, value = (x.detach().clone().requires_grad_() for x in tensors)
        with torch.enable_grad():
            if dense:
                keys, values = (x.repeat_interleave(shared, dim=1) for x in (key, value))
                mask = attention_mask(batch.segments_BT)
                out = F.scaled_dot_product_attention(query, keys, values, mask, scale=scaling)
                out = out.transpose(1, 2)
                upstream = torch.randn(out.shape, generator=generator).to(out)
                upstream = upstream * real_BT[:, :, None, None]
            else:
                out = within_segments(query, key, value, layout, scaling)
            grads = torch.autograd.grad(out, (query, key, value), upstream)
        results.append((out[real_BT], torch.cat([grad.flatten() for grad in grads])))
    (values_a, grads_a), (values_b, grads_b) = results
    return {"values": _relative(values_b, values_a), "gradients": _relative(grads_b, grads_a)}


def _relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    found, expected = found.detach().float(), expected.detach().float()
    return float(((found - expected).norm() / expected.norm()).detach())
