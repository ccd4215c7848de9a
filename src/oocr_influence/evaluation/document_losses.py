"""The token loss of whole documents: what is memorised, what carries over, what is forgotten.

    losses = DocumentLosses(samples, tokenizer, packing="masked", chunk_size=2048)
    losses.measure(model)        # {"trained": {"n": 64, "tokens": 48312, "mean_loss": 1.93}, …}

Every document stands alone, as masked packing trains it: BOS where there is one, the text, EOS, cut
where training would cut it. For `concat`, where a document follows another's EOS, it is read behind
one EOS. Losses are float32, whatever the weights are, and means are over tokens.

Letters: N pieces of documents, B pieces of a batch, T tokens.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from oocr_influence.datasets.packing import IntArray, PackedWindows, Packing, pack
from oocr_influence.datasets.packing import tokenize_documents as tokenize
from oocr_influence.evaluation.float32_head import float32_head
from oocr_influence.evaluation.scores import NonFiniteScoreError, evaluation_mode, model_device
from oocr_influence.models.loss import WindowBatch, window_loss
from oocr_influence.models.team import ALONE, Team

# Padded tokens of a forward pass. CPU: 512 and 1,024 are equally fast, 4,096 is 40 % slower (1.7 M
# parameters, one thread); on a GPU, a large vocabulary's logits take 4 bytes each.
TOKEN_BUDGET = {"cpu": 1024, "cuda": 4096}


@dataclass(frozen=True)
class _Sample:
    """One group's documents as pieces, a piece a row."""

    n_documents: int
    windows: PackedWindows


class DocumentLosses:
    """Measures the same documents on any number of models.

    `samples` holds the texts of each group; the other arguments are those of the training run.
    """

    def __init__(
        self,
        samples: Mapping[str, Sequence[str]],
        tokenizer: Any,
        *,
        packing: Packing,
        chunk_size: int,
        overlap_cuts: bool = True,
        token_budget: int | None = None,
    ) -> None:
        self.token_budget = token_budget
        self._samples = {}
        for group, texts in samples.items():
            documents = tokenize(texts, tokenizer, packing)
            if packing == "concat":
                behind = np.array([tokenizer.eos_token_id], dtype=np.int64)
                documents = [np.concatenate([behind, tokens]) for tokens in documents]
            windows = pack(
                documents,
                chunk_size=min(chunk_size, max(2, *map(len, documents))),
                packing="separate",
                pad_id=int(tokenizer.eos_token_id),
                overlap_cuts=overlap_cuts,
            )
            self._samples[group] = _Sample(len(texts), windows)

    @property
    def digest(self) -> str:
        """sha256 hex over the groups and their tokens: equal ones measure the same."""
        hasher = hashlib.sha256()
        for group, sample in self._samples.items():
            hasher.update(f"{group}:{sample.n_documents}:{sample.windows.digest()}\n".encode())
        return hasher.hexdigest()

    @property
    def n_tokens(self) -> int:
        """Tokens that are read, BOS and EOS included."""
        return sum(sample.windows.n_tokens for sample in self._samples.values())

    def measure(self, model: Any, team: Team = ALONE) -> dict[str, dict[str, int | float]]:
        """`n` documents, scored `tokens` and `mean_loss` in nats a token, of each group.

        The model leaves as it came. Processes of a team each take a share of the batches, and all
        return the losses of all. Raises NonFiniteScoreError naming the group whose loss is no
        finite number.
        """
        with evaluation_mode(model), float32_head(model):
            return {group: self._measure(model, group, team) for group in self._samples}

    def _measure(self, model: Any, group: str, team: Team) -> dict[str, int | float]:
        sample = self._samples[group]
        device = model_device(model)
        budget = self.token_budget or TOKEN_BUDGET.get(device.type, TOKEN_BUDGET["cuda"])
        own = []
        for rows, length in team.share(list(_batches(sample.windows, budget))):
            _, loss = window_loss(model, _batch(sample.windows, rows, length, device))
            own.append(float(loss))
        total = 0.0
        for batch_loss in team.in_order(own):
            total += batch_loss  # one by one: `sum` rounds otherwise from Python 3.12 on
        if not math.isfinite(total):
            raise NonFiniteScoreError(
                f"the loss of the {group} documents is {total}: the model's weights or activations "
                "are not finite"
            )
        tokens = sample.windows.n_labels
        return {"n": sample.n_documents, "tokens": tokens, "mean_loss": total / max(1, tokens)}


def _batches(windows: PackedWindows, token_budget: int) -> Iterator[tuple[list[int], int]]:
    """Rows of similar length that fit the budget together, and the longest one's length."""
    lengths_N = (windows.segments >= 0).sum(1)
    rows: list[int] = []
    for row in np.argsort(-lengths_N, kind="stable").tolist():
        if rows and (len(rows) + 1) * int(lengths_N[rows[0]]) > token_budget:
            yield rows, int(lengths_N[rows[0]])
            rows = []
        rows.append(row)
    if rows:
        yield rows, int(lengths_N[rows[0]])


def _batch(
    windows: PackedWindows, rows: list[int], length: int, device: torch.device
) -> WindowBatch:
    def cut(array_NT: IntArray) -> torch.Tensor:
        return torch.from_numpy(array_NT[rows, :length]).to(device)

    return WindowBatch(
        cut(windows.input_ids),
        cut(windows.labels),
        cut(windows.position_ids),
        cut(windows.segments),
    )
