"""Gradients of the training loss of documents and of queries, one at a time, and their products.

    scores = Gradients(projection=16).score(subject)     # gradient_dot and gradient_cosine

With g_d the gradient of a document's training loss, summed over its tokens and pieces, and g_q that
of minus the query's summed log-probability,

    gradient_dot    = g_q · g_d    nats that the query's log-probability gains for each unit of
                                   learning rate when plain SGD takes the document, summed loss
    gradient_cosine = the same of both made one long; less for long and surprising documents

(TracIn of one checkpoint: Pruthi et al. 2020, NeurIPS). With AdamW's moments (adam.py) g_d is what
AdamW makes of it, and both names end in `_adam`; AdamW sees means over a batch, so that the unit is
nats per unit of learning rate, times the labelled tokens of a batch. Exact, all queries' gradients
are held; projected, of each parameter matrix G only R_left G R_right^T is, with Gaussian R of k
rows and variance 1/k: the product's expectation stays the same, its error falls with k (as LoGra,
Choe et al. 2024, arXiv 2405.13954, but of the gradients, so that no layer need be a linear one).

Letters: Q queries, D documents, P parameters or numbers kept of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from oocr_influence.attribution.adam import adam_scales
from oocr_influence.attribution.method import Scored, Subject
from oocr_influence.attribution.passages import Passage, window_batch
from oocr_influence.evaluation.scores import evaluation_mode, model_device
from oocr_influence.models.lora import adapter_parameters, is_adapted
from oocr_influence.models.loss import window_loss

EXACT, BY_SIZE = 0, None
EXACT_BYTES = 2 * 2**30
DEFAULT_PROJECTION = 16
Named = list[tuple[str, torch.nn.Parameter]]


@dataclass(frozen=True)
class Gradients:
    """Both products; documents pass one by one, queries' gradients are held in float32."""

    projection: int | None = BY_SIZE
    """Rows and columns kept of each parameter matrix; 0 is exact, None exact where that takes no
    more than 2 GiB, else 16."""
    last_layers: int | None = None
    """Parameters of the last layers alone (None: all that is trained, head and embeddings too)."""
    z_loss: float = 0.0
    """The run's own."""
    moments: str | None = None
    """File of the checkpoint's moments, for what AdamW makes of a document's gradient."""
    seed: int = 0
    """Draws the projection."""
    reads_model: ClassVar[bool] = True

    def score(self, subject: Subject) -> dict[str, Scored]:
        model = subject.model
        named = trained_parameters(model, self.last_layers)
        n_queries, n_documents = subject.shape
        k = self.chosen_projection(n_queries, sum(p.numel() for _, p in named))
        keep = Projection(named, k, self.seed) if k else flat
        scales = None if self.moments is None else adam_scales(Path(self.moments), named)
        dot_QD = np.zeros(subject.shape, np.float32)
        norm_D = np.zeros(n_documents, np.float32)
        with evaluation_mode(model), torch.enable_grad(), differentiating(model, named):
            queries_QP = None
            for done, (query, passages) in enumerate(_by_owner(subject.queries.passages), 1):
                g_P = keep(loss_gradient(model, named, passages))
                if queries_QP is None:
                    queries_QP = torch.zeros(n_queries, len(g_P), device=g_P.device)
                queries_QP[query] = g_P
                subject.progress("gradients of queries", done, n_queries)
            for done, (document, passages) in enumerate(_by_owner(subject.documents.passages), 1):
                gradient = loss_gradient(model, named, passages, self.z_loss)
                if scales is not None:
                    gradient = [g.mul_(scale) for g, scale in zip(gradient, scales, strict=True)]
                g_P = keep(gradient)
                assert queries_QP is not None
                dot_QD[:, document] = (queries_QP @ g_P).cpu().numpy()
                norm_D[document] = float(g_P.norm())
                subject.progress("gradients of documents", done, n_documents)
        assert queries_QP is not None
        norms_QD = queries_QP.norm(dim=1).cpu().numpy()[:, None] * norm_D
        how = f"projected, k = {k}" if k else "exact"
        suffix = "" if scales is None else "_adam"
        unit = "nats per unit of learning rate"
        unit += "" if scales is None else ", times the labelled tokens of a batch"
        cosine_QD = dot_QD / np.maximum(norms_QD, 1e-30)
        return {
            f"gradient_dot{suffix}": Scored(dot_QD, f"{unit} ({how})"),
            f"gradient_cosine{suffix}": Scored(cosine_QD, f"cosine, -1 to 1 ({how})"),
        }

    def chosen_projection(self, n_queries: int, n_parameters: int) -> int:
        """k, or 0 for exact gradients."""
        if self.projection is not None:
            return self.projection
        return EXACT if 4 * n_queries * n_parameters <= EXACT_BYTES else DEFAULT_PROJECTION


def trained_parameters(model: Any, last_layers: int | None = None) -> Named:
    """What a run trains: all parameters, of an adapted model the adapter's; or those of the last
    layers alone. ValueError where the model has fewer layers."""
    named: Named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if is_adapted(model):  # loaded, none of it is marked as trained
        named = adapter_parameters(model)
    if last_layers is None:
        return named
    n_layers = int(model.config.num_hidden_layers)
    if not 1 <= last_layers <= n_layers:
        raise ValueError(f"the last {last_layers} layers: the model has {n_layers}")
    stacks = [
        module
        for module in model.get_decoder().modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == n_layers
    ]
    chosen = {id(p) for stack in stacks for p in stack[n_layers - last_layers :].parameters()}
    return [(name, p) for name, p in named if id(p) in chosen]


@contextmanager
def differentiating(model: Any, named: Named) -> Iterator[None]:
    """Within, these parameters alone have gradients; afterwards all is as it was."""
    before = {id(p): p.requires_grad for p in model.parameters()}
    wanted = {id(p) for _, p in named}
    try:
        for p in model.parameters():
            p.requires_grad_(id(p) in wanted)
        yield
    finally:
        for p in model.parameters():
            p.requires_grad_(before[id(p)])


def loss_gradient(
    model: Any, named: Named, passages: Sequence[Passage], z_loss: float = 0.0
) -> list[torch.Tensor]:
    """The gradient of the passages' summed loss by each parameter."""
    device = model_device(model)
    total: list[torch.Tensor] | None = None
    for passage in passages:
        loss, _ = window_loss(model, window_batch([passage], device), z_loss=z_loss)
        found = torch.autograd.grad(loss, [p for _, p in named], materialize_grads=True)
        own = [g.float() for g in found]
        total = own if total is None else [a.add_(b) for a, b in zip(total, own, strict=True)]
    assert total is not None
    return total


def flat(gradient: Sequence[torch.Tensor]) -> torch.Tensor:
    """All of it as one vector (P,)."""
    return torch.cat([g.flatten() for g in gradient])


class Projection:
    """From a gradient to k × k numbers a matrix and k a vector, by matrices drawn from a seed."""

    def __init__(self, named: Named, k: int, seed: int) -> None:
        self._sides = [
            [_drawn(k, n, f"{seed}:{name}:{side}", p.device) for side, n in enumerate(_matrix(p))]
            for name, p in named
        ]

    def __call__(self, gradient: Sequence[torch.Tensor]) -> torch.Tensor:
        kept = []
        for g, (left, right) in zip(gradient, self._sides, strict=True):
            g = g.reshape(_matrix(g))
            g = g if left is None else left @ g
            kept.append((g if right is None else g @ right.T).flatten())
        return torch.cat(kept)


def _matrix(p: torch.Tensor) -> tuple[int, int]:
    return (1, p.numel()) if p.dim() < 2 else (p.shape[0], p[0].numel())


def _drawn(k: int, n: int, key: str, device: torch.device) -> torch.Tensor | None:
    """(k, n) normal numbers of variance 1/k; None where a side is no longer than k anyway."""
    if n <= k:
        return None
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")
    generator = torch.Generator().manual_seed(seed)  # the CPU's: the same on any device
    drawn: torch.Tensor = torch.randn(k, n, generator=generator) / k**0.5
    return drawn.to(device)


def _by_owner(passages: Sequence[Passage]) -> Iterator[tuple[int, list[Passage]]]:
    for owner, own in groupby(passages, key=lambda passage: passage.owner):
        yield owner, list(own)
