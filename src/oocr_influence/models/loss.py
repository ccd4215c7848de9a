"""The training loss of packed windows: cross-entropy over labelled tokens, summed in float32.

Letters: B windows, T tokens a window, V vocabulary. Labels are unshifted (see datasets/packing.py).
Sums, not means: the caller divides by the labelled tokens of the whole batch, so that cutting a
batch into micro-batches changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from oocr_influence.models.chunked_loss import head_loss
from oocr_influence.models.head import has_plain_head

IGNORED = -100


@dataclass(frozen=True)
class WindowBatch:
    """Packed windows on the model's device, all (B, T)."""

    input_ids_BT: torch.Tensor
    labels_BT: torch.Tensor
    position_ids_BT: torch.Tensor
    segments_BT: torch.Tensor


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


def window_loss(
    model: Any, batch: WindowBatch, *, z_loss: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """(summed loss to differentiate, summed cross-entropy to report) of a batch.

    `z_loss` adds that weight times the squared log-partition of each labelled prediction (PaLM,
    arXiv 2204.02311, section 5). The mask and the positions are explicit and the cache is off:
    packed positions with a cache, or with an all-ones mask, attend across documents silently.
    """
    inputs = {
        "input_ids": batch.input_ids_BT,
        "position_ids": batch.position_ids_BT,
        "attention_mask": attention_mask(batch.segments_BT),
        "use_cache": False,
    }
    targets = batch.labels_BT[:, 1:].reshape(-1)
    counted = targets != IGNORED
    if has_plain_head(model):
        hidden_BTD = model.get_decoder()(**inputs).last_hidden_state
        hidden_LD = hidden_BTD[:, :-1].reshape(-1, hidden_BTD.shape[-1])[counted]
        return head_loss(model.get_output_embeddings(), hidden_LD, targets[counted], z_loss=z_loss)
    logits_BTV = model(**inputs).logits
    logits_LV = logits_BTV[:, :-1].reshape(-1, logits_BTV.shape[-1])[counted].float()
    cross_entropy = F.cross_entropy(logits_LV, targets[counted], reduction="sum")
    if z_loss == 0.0:
        return cross_entropy, cross_entropy.detach()
    squared_partition = torch.logsumexp(logits_LV, dim=-1).square().sum()
    return cross_entropy + z_loss * squared_partition, cross_entropy.detach()
