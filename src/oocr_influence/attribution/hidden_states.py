"""Similarity of what the model makes of a document and of a query: one forward pass of each.

`embedding`: the mean of the last layer's states over the tokens read, documents and queries alike
(a BOS and the token that a cut repeats are not counted). `activation_layer_<n>`: the state behind
layer n at the document's last token (EOS) and at the last token of the query's answer. Scores are
cosines. They know nothing of training: they say what the model finds alike, and what is alike may
teach nothing.

Letters: B passages, T tokens, L layers kept, H hidden size, Q queries, D documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from oocr_influence.attribution.method import Progress, Scored, Subject
from oocr_influence.attribution.passages import Passage, batches
from oocr_influence.evaluation.scores import evaluation_mode, model_device
from oocr_influence.models.loss import model_inputs


@dataclass(frozen=True)
class HiddenStates:
    """Both similarities; documents pass by batch by batch, queries are held."""

    layers: tuple[int, ...] | None = None
    """Layers of `activation_layer_<n>`, from 1 (None: all)."""
    token_budget: int | None = None
    """Padded tokens of a forward pass; speed and memory alone (None: by device)."""
    reads_model: ClassVar[bool] = True

    def score(self, subject: Subject) -> dict[str, Scored]:
        """Raises ValueError for a layer that the model does not have."""
        layers = self.chosen_layers(int(subject.model.config.num_hidden_layers))
        queries = [_all_but_first(passage) for passage in subject.queries.passages]
        documents = subject.documents.passages
        with evaluation_mode(subject.model):
            of_queries = _States(len(queries), len(layers), subject.model)
            self._read(subject.model, queries, layers, of_queries, subject.progress)
            of_documents = _States(len(subject.documents.rows), len(layers), subject.model)
            self._read(subject.model, documents, layers, of_documents, subject.progress)
        mean = of_queries.mean() @ of_documents.mean().T
        found = {"embedding": Scored(mean.cpu().numpy(), "cosine of mean last states, -1 to 1")}
        for place, layer in enumerate(layers):
            one, other = (
                F.normalize(s.last_NLH[:, place], dim=-1) for s in (of_queries, of_documents)
            )
            found[f"activation_layer_{layer}"] = Scored(
                (one @ other.T).cpu().numpy(), "cosine of states at the last tokens, -1 to 1"
            )
        return found

    def chosen_layers(self, n_layers: int) -> tuple[int, ...]:
        """The layers asked for; ValueError names one that a model of so many does not have."""
        layers = tuple(range(1, n_layers + 1)) if self.layers is None else self.layers
        wrong = [layer for layer in layers if not 1 <= layer <= n_layers]
        if wrong:
            raise ValueError(f"layer {wrong[0]}: the model has layers 1 to {n_layers}")
        return layers

    def _read(
        self,
        model: Any,
        passages: Sequence[Passage],
        layers: tuple[int, ...],
        into: _States,
        progress: Progress,
    ) -> None:
        done = 0
        for places, batch in batches(passages, model_device(model), self.token_budget):
            output = model.get_decoder()(**model_inputs(batch), output_hidden_states=True)
            states = output.hidden_states
            for row, place in enumerate(places):
                passage = passages[place]
                last_LH = torch.stack([states[n][row, len(passage) - 1] for n in layers])
                counted = torch.from_numpy(passage.counted).to(states[-1].device)
                into.add(passage, last_LH, states[-1][row].index_select(0, counted))
            done += len(places)
            progress("hidden states", done, len(passages))


class _States:
    """Of each document or query: the sum of its tokens' last states, and its last token's."""

    def __init__(self, n: int, n_layers: int, model: Any) -> None:
        H, device = int(model.config.hidden_size), model_device(model)
        self._sum_NH = torch.zeros(n, H, device=device)
        self.last_NLH = torch.zeros(n, n_layers, H, device=device)
        self._begins_N = np.full(n, -1)

    def add(self, passage: Passage, last_LH: torch.Tensor, counted_TH: torch.Tensor) -> None:
        self._sum_NH[passage.owner] += counted_TH.float().sum(0)
        # The last piece of a document is the one that ends in its last token.
        if passage.begins > self._begins_N[passage.owner]:
            self._begins_N[passage.owner] = passage.begins
            self.last_NLH[passage.owner] = last_LH.float()

    def mean(self) -> torch.Tensor:
        """(N, H) directions of the means, of length 1."""
        return F.normalize(self._sum_NH, dim=-1)


def _all_but_first(passage: Passage) -> Passage:
    """A query that counts every token but the first, as a document's labels do."""
    labels_T = passage.tokens.copy()
    labels_T[0] = -100
    return Passage(passage.owner, passage.tokens, labels_T)
