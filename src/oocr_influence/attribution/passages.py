"""What a model reads at once and which of it counts: pieces of documents, questions with answers.

    passage = Passage(owner=3, tokens=tokens_T, labels=labels_T)
    for places, batch in batches(passages, token_budget, device): …

Letters: B passages, T tokens. Labels are unshifted, IGNORED where the loss does not count a token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from oocr_influence.datasets.packing import IGNORED, IntArray
from oocr_influence.models.loss import WindowBatch

# Padded tokens of a forward pass; changes speed and memory alone.
TOKEN_BUDGET = {"cpu": 2048, "cuda": 16384}


@dataclass(frozen=True)
class Passage:
    """Tokens from position 0, all visible to those after them."""

    owner: int
    """The document or the query that it belongs to."""
    tokens: IntArray
    labels: IntArray
    begins: int = 0
    """Orders its owner's passages: where it begins among its owner's tokens."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def counted(self) -> IntArray:
        """Places of the tokens whose prediction counts."""
        return np.flatnonzero(self.labels != IGNORED)


def window_batch(passages: Sequence[Passage], device: torch.device) -> WindowBatch:
    """The passages as rows, padded at the end to the longest."""
    shape = (len(passages), max(map(len, passages)))
    tokens_BT = np.zeros(shape, np.int64)
    labels_BT = np.full(shape, IGNORED, np.int64)
    segments_BT = np.full(shape, -1, np.int64)
    positions_BT = np.tile(np.arange(shape[1]), (shape[0], 1))
    for row, passage in enumerate(passages):
        tokens_BT[row, : len(passage)] = passage.tokens
        labels_BT[row, : len(passage)] = passage.labels
        segments_BT[row, : len(passage)] = 0

    def there(array_BT: IntArray) -> torch.Tensor:
        return torch.from_numpy(array_BT).to(device)

    return WindowBatch(there(tokens_BT), there(labels_BT), there(positions_BT), there(segments_BT))


def batches(
    passages: Sequence[Passage], device: torch.device, token_budget: int | None = None
) -> Iterator[tuple[list[int], WindowBatch]]:
    """Batches of similar length that fit the budget together, the longest first, each passage once;
    with the places of their passages."""
    budget = token_budget or TOKEN_BUDGET.get(device.type, TOKEN_BUDGET["cuda"])
    order = sorted(range(len(passages)), key=lambda place: -len(passages[place]))
    start = 0
    while start < len(order):
        n = max(1, budget // len(passages[order[start]]))
        places = order[start : start + n]
        yield places, window_batch([passages[place] for place in places], device)
        start += n
