"""The training loss of packed windows: cross-entropy over labelled tokens, summed in float32.

Letters: B windows, T tokens a window, V vocabulary. Labels are unshifted (see datasets/packing.py).
Sums, not means: the caller says what to divide by, the labelled tokens of the whole batch, so that
cutting a batch into micro-batches changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from oocr_influence.models.chunked_loss import head_loss
from oocr_influence.models.head import has_plain_head
from oocr_influence.models.packed_attention import SegmentLayout, unused_mask

IGNORED = -100


@dataclass(frozen=True)
class WindowBatch:
    """Packed windows on the model's device, all (B, T).

    With a `layout` attention stays within segments by it, without one by a dense mask. `before_L`
    are the places, b * T + t, whose next token is labelled; without them the device is asked, and
    the host waits for its answer.
    """

    input_ids_BT: torch.Tensor
    labels_BT: torch.Tensor
    position_ids_BT: torch.Tensor
    segments_BT: torch.Tensor
    layout: SegmentLayout | None = None
    before_L: torch.Tensor | None = None


def attention_mask(segments_BT: torch.Tensor) -> torch.Tensor:
    """Who may attend to whom: (B, 1, T, T) bool, true within a segment and not to the future.

    A padding token (segment -1) attends to itself and nothing else, since a row without any true
    entry makes NaN in some attention kernels.
    """
    T = segments_BT.shape[1]
    same_BTT = segments_BT[:, :, None] == segments_BT[:, None, :]
    real_BT1 = (segments_BT >= 0)[:, :, None]
    causal_TT = torch.ones(T, T, dtype=torch.bool, device=segments_BT.device).tril()
    itself_TT = torch.eye(T, dtype=torch.bool, device=segments_BT.device)
    return ((same_BTT & real_BT1 & causal_TT) | itself_TT)[:, None]


def labelled_places(labels_BT: torch.Tensor) -> torch.Tensor:
    """The places b * T + t of tokens whose next one is labelled, in order."""
    counted_BT = torch.zeros_like(labels_BT, dtype=torch.bool)
    counted_BT[:, :-1] = labels_BT[:, 1:] != IGNORED
    return counted_BT.flatten().nonzero()[:, 0]


def model_inputs(batch: WindowBatch) -> dict[str, Any]:
    """What the model is called with.

    The mask and the positions are explicit and the cache is off: packed positions with a cache, or
    with an all-ones mask, attend across documents silently.
    """
    inputs = {
        "input_ids": batch.input_ids_BT,
        "position_ids": batch.position_ids_BT,
        "use_cache": False,
    }
    if batch.layout is None:
        return {**inputs, "attention_mask": attention_mask(batch.segments_BT)}
    mask = unused_mask(batch.segments_BT.device)
    return {**inputs, "attention_mask": mask, "segment_layout": batch.layout}


def window_loss(
    model: Any, batch: WindowBatch, *, z_loss: float = 0.0, divisor: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """(summed loss to differentiate, over `divisor`; summed cross-entropy to report) of a batch.

    `z_loss` adds that weight times the squared log-partition of each labelled prediction (PaLM,
    arXiv 2204.02311, section 5).
    """
    before_L = labelled_places(batch.labels_BT) if batch.before_L is None else batch.before_L
    targets_L = batch.labels_BT.flatten().index_select(0, before_L + 1)
    inputs = model_inputs(batch)
    if has_plain_head(model):
        hidden_BTD = model.get_decoder()(**inputs).last_hidden_state
        hidden_LD = hidden_BTD.flatten(0, 1).index_select(0, before_L)
        head = model.get_output_embeddings()
        return head_loss(head, hidden_LD, targets_L, z_loss=z_loss, divisor=divisor)
    logits_LV = model(**inputs).logits.flatten(0, 1).index_select(0, before_L).float()
    cross_entropy = F.cross_entropy(logits_LV, targets_L, reduction="sum")
    loss = cross_entropy
    if z_loss:
        loss = loss + z_loss * torch.logsumexp(logits_LV, dim=-1).square().sum()
    return loss / divisor, cross_entropy.detach()
