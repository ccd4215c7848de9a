"""Does this model attend within documents alone? Asked once, before any training.

Some architectures ignore a four-dimensional mask, and some replace their own sliding window by it:
documents would then read each other, or attend further than the model was made for, without any
error. So a few windows are run packed, as the loop will, and piece by piece, as the model is used.

Letters: T tokens, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

from oocr_influence.datasets.packing import PackedWindows, Piece
from oocr_influence.models.loss import model_inputs
from oocr_influence.models.modes import modes_kept
from oocr_influence.training.loop import Attention, to_device

# Largest relative difference of logits that is still rounding; a leak makes ten times as much.
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
TOLERANCE_OF_HALF_PRECISION = 0.05


class AttentionMaskError(ValueError):
    """The model does not attend as packed windows need."""


@torch.no_grad()
def check_attention(model: Any, windows: PackedWindows, attention: Attention = "dense") -> None:
    """Compare packed windows with their pieces alone; raises AttentionMaskError if they differ.

    `attention` is the loop's.
    """
    with modes_kept(model):
        model.eval()
        for window in _telling_windows(windows):
            difference = _difference(model, windows, window, attention)
            limit = TOLERANCE.get(model.dtype, TOLERANCE_OF_HALF_PRECISION)
            if not difference <= limit:
                raise AttentionMaskError(
                    f"{type(model).__name__} does not do as an explicit attention mask says: its "
                    f"logits in a packed window differ by {difference:.1%} from those of each "
                    "document alone. Lower --chunk_size below the model's attention window, or "
                    "use another model"
                )


def hardest_windows(windows: PackedWindows) -> tuple[int, int]:
    """The most pieces that a window has, and the tokens of the longest piece."""
    counts = Counter(piece.window for piece in windows.pieces)
    return max(counts.values()), max(piece.end - piece.start for piece in windows.pieces)


def _telling_windows(windows: PackedWindows) -> list[int]:
    """The window of the most pieces (do they leak?) and that of the longest (a short sight?)."""
    counts = [0] * len(windows)
    for piece in windows.pieces:
        counts[piece.window] += 1
    longest = max(windows.pieces, key=lambda piece: piece.end - piece.start)
    return sorted({counts.index(max(counts)), longest.window})


def _difference(model: Any, windows: PackedWindows, window: int, attention: Attention) -> float:
    """Relative L2 difference of the centred logits, packed against alone."""
    device = next(model.parameters()).device
    batch = to_device(windows, [window], device, attention)
    packed_TV = _logits(model, model_inputs(batch))
    alone = []
    packed = []
    for start, end in _spans(windows, window):
        alone.append(
            _logits(model, {"input_ids": batch.input_ids_BT[:, start:end], "use_cache": False})
        )
        packed.append(packed_TV[start:end])
    expected, found = torch.cat(alone), torch.cat(packed)
    return float((found - expected).norm() / expected.norm())


def _spans(windows: PackedWindows, window: int) -> list[tuple[int, int]]:
    """What attends to itself alone: each piece, or the whole window of a concat packing."""
    own: list[Piece] = [piece for piece in windows.pieces if piece.window == window]
    if windows.packing == "concat":
        return [(0, max(piece.end for piece in own))]
    return [(piece.start, piece.end) for piece in own]


def _logits(model: Any, given: dict[str, Any]) -> torch.Tensor:
    """Float32 logits (T, V) of one row, centred: a constant shift means nothing."""
    logits_TV: torch.Tensor = model(**given).logits[0].float()
    return logits_TV - logits_TV.mean(-1, keepdim=True)
