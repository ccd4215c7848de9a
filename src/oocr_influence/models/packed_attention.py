"""Attention within documents alone: of packed windows, nothing is computed across documents.

    layout = lay_out(segments_BT, "padded", device)     # on the host, before the step
    use_packed_attention(model)                         # a name in transformers' AttentionInterface
    model(input_ids=…, attention_mask=UNUSED_MASK, segment_layout=layout)

A dense mask costs T² in time and memory, and on a GPU keeps attention off the flash kernels. Here
each segment is causal attention of its own. `varlen` is torch's flash attention over sequences of
unequal length (`torch.nn.attention.varlen`: a GPU, 16 bits). `padded` runs anywhere and in any
precision: segments of similar length are a batch for `scaled_dot_product_attention`, whose padding
comes last and is therefore seen by none. Which of them a model can take, `attention_probe.py` asks.

Without a layout the function is transformers' own SDPA: evaluation, which has masks of its own, is
not changed by it.

Letters: B windows, T tokens, S segments of a batch, L the longest of them, H heads, D head size.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

NAME = "packed_segments"
Kernel = Literal["varlen", "padded"]
# Shapes a batch of segments: a segment joins one whose longest it fills to this share, or nearly.
_FILLED, _NEARLY = 0.75, 16
# What attention may be told by a layer and this one does not do.
_UNKNOWN = ("softcap", "sliding_window", "s_aux", "position_bias", "cache", "head_mask")


class UnfitAttentionError(ValueError):
    """A layer asks for more than causal attention within segments."""


@dataclass(frozen=True)
class SegmentLayout:
    """Where the segments of a batch of windows lie, for one of the kernels, on the device.

    Places count along the windows laid end to end, b * T + t.
    """

    shape: tuple[int, int]
    kernel: Kernel
    longest: int
    whole: bool
    """every window is one segment, without padding"""
    groups_SL: tuple[torch.Tensor, ...] = ()
    """padded: the places of each batch of segments; behind a segment's end its last place"""
    where_N: torch.Tensor | None = None
    """padded: each place's own place in the groups laid end to end; padding is one behind them"""
    cumulative: torch.Tensor | None = None
    """varlen: the first place of each segment (padding is one too), and the end; int32"""


def lay_out(
    segments_BT: npt.NDArray[np.int64], kernel: Kernel, device: torch.device
) -> SegmentLayout:
    """The layout of windows whose tokens are numbered by segment, -1 for padding.

    A segment lies in one piece, as packing makes them.
    """
    B, T = segments_BT.shape
    changes_BT = np.ones((B, T), dtype=bool)
    changes_BT[:, 1:] = segments_BT[:, 1:] != segments_BT[:, :-1]
    runs = int(changes_BT.sum())
    assert runs == sum(len(np.unique(row)) for row in segments_BT), "a segment lies in pieces"
    starts = np.flatnonzero(changes_BT)
    ends = np.append(starts[1:], B * T)
    longest = int((ends - starts).max())
    whole = runs == B and bool((segments_BT >= 0).all())
    if kernel == "varlen":
        cumulative = torch.from_numpy(np.append(starts, B * T).astype(np.int32))
        return SegmentLayout((B, T), kernel, longest, whole, cumulative=sent(cumulative, device))
    if whole:
        return SegmentLayout((B, T), kernel, longest, whole)
    real = segments_BT.reshape(-1)[starts] >= 0
    groups_SL, where_N = _batches(starts[real], ends[real], B * T)
    return SegmentLayout(
        (B, T),
        kernel,
        longest,
        whole,
        groups_SL=tuple(sent(torch.from_numpy(group), device) for group in groups_SL),
        where_N=sent(torch.from_numpy(where_N), device),
    )


def _batches(
    starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], n_places: int
) -> tuple[list[npt.NDArray[np.int64]], npt.NDArray[np.int64]]:
    """Segments of similar length together: their places (S, L), and where each place went."""
    lengths = ends - starts
    order = np.argsort(-lengths, kind="stable")
    groups_SL: list[npt.NDArray[np.int64]] = []
    where_N = np.full(n_places, -1, dtype=np.int64)
    first = filled = 0
    while first < len(order):
        longest = int(lengths[order[first]])
        least = min(longest * _FILLED, longest - _NEARLY)
        own = order[first:][lengths[order[first:]] >= least]
        along_L = np.arange(longest)
        places_SL = np.minimum(starts[own, None] + along_L, ends[own, None] - 1)
        inside_SL = along_L < lengths[own, None]
        where_N[places_SL[inside_SL]] = filled + np.flatnonzero(inside_SL)
        groups_SL.append(places_SL)
        first, filled = first + len(own), filled + places_SL.size
    where_N[where_N < 0] = filled
    return groups_SL, where_N


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`tensor` on `device`; to a GPU out of pinned memory, so that the host need not wait."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def use_packed_attention(model: Any) -> None:
    """Let `model` take layouts; raises UnfitAttentionError where its attention cannot be set."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if NAME not in AttentionInterface().valid_keys():
        AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
    if model.config._attn_implementation != NAME:
        raise UnfitAttentionError(f"{type(model).__name__} does not let its attention be set")


def stay_out_of_compilation() -> None:
    """Let compiled layers call this attention as it is: its shapes change with every batch."""
    from transformers import AttentionInterface

    function = torch.compiler.disable(packed_attention)  # type: ignore[no-untyped-call]
    AttentionInterface.register(NAME, function)


def unused_mask(device: torch.device) -> torch.Tensor:
    """What is given as the mask beside a layout: of four dimensions, so that nobody makes one."""
    return torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)


def packed_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    segment_layout: SegmentLayout | None = None,
    attention_calls: list[tuple[Any, ...]] | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers calls it: (B, H, T, D) in, (B, T, H, D) out.

    Raises UnfitAttentionError if, beside a layout, the layer asks for dropout, a window, a cap or
    anything else that is not causal attention. `attention_calls` is told what came in.
    """
    if segment_layout is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        result: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return result
    asked = [name for name in _UNKNOWN if kwargs.get(name) is not None]
    if dropout:
        asked.append("dropout")
    causal = kwargs.get("is_causal")
    if not (getattr(module, "is_causal", True) if causal is None else causal):
        asked.append("sight of later tokens")
    if asked:
        raise UnfitAttentionError(f"{type(module).__name__} asks for {', '.join(asked)}")
    if (query.shape[0], query.shape[2]) != segment_layout.shape or query.shape[2] != key.shape[2]:
        raise UnfitAttentionError(
            f"{type(module).__name__} attends from {query.shape[2]} to {key.shape[2]} tokens"
        )
    if attention_calls is not None:
        attention_calls.append((query, key, value, scaling))
    return within_segments(query, key, value, segment_layout, scaling), None


def within_segments(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: SegmentLayout,
    scaling: float | None,
) -> torch.Tensor:
    """Causal attention within each segment: (B, H, T, D) in, (B, T, H, D) out.

    Keys and values may have fewer heads. What padding gives is finite and means nothing.
    """
    if layout.kernel == "padded" and layout.whole:
        return _causal(query, key, value, scaling).transpose(1, 2)
    B, T = layout.shape
    flat = [x.transpose(1, 2).reshape(B * T, x.shape[1], x.shape[3]) for x in (query, key, value)]
    if layout.kernel == "varlen":
        return _varlen(flat, layout, scaling).view(B, T, *flat[0].shape[1:])
    results = []
    for places_SL in layout.groups_SL:
        S, L = places_SL.shape
        own = (x.index_select(0, places_SL.view(-1)) for x in flat)
        q, k, v = (x.view(S, L, *x.shape[1:]).transpose(1, 2) for x in own)
        results.append(_causal(q, k, v, scaling).transpose(1, 2).flatten(0, 1))
    results.append(results[0].new_zeros(1, *results[0].shape[1:]))
    assert layout.where_N is not None
    ordered = torch.cat(results).index_select(0, layout.where_N)
    return ordered.view(B, T, *ordered.shape[1:])


def _causal(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    shared = query.shape[1] // key.shape[1]
    if shared > 1:
        key, value = (x.repeat_interleave(shared, dim=1) for x in (key, value))
    return F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)


def _varlen(flat: list[torch.Tensor], layout: SegmentLayout, scaling: float | None) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = flat
    shared = query.shape[1] // key.shape[1]
    options: dict[str, Any] = {"scale": scaling, "window_size": (-1, 0)}
    if shared > 1 and "enable_gqa" in inspect.signature(varlen_attn).parameters:
        options["enable_gqa"] = True
    elif shared > 1:
        key, value = (x.repeat_interleave(shared, dim=1) for x in (key, value))
    ends, longest = layout.cumulative, layout.longest
    assert ends is not None
    result: Any = varlen_attn(query, key, value, ends, ends, longest, longest, **options)
    assert isinstance(result, torch.Tensor)
    return result
