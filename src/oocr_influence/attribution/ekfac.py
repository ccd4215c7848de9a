"""Influence by EK-FAC, through kronfluence: g_q · (G + λ)⁻¹ g_d, G the curvature of the loss.

G is the Gauss-Newton matrix, in its eigenvalue-corrected Kronecker-factored approximation, layer by
layer (George et al. 2018, NeurIPS; of language models Grosse et al. 2023, arXiv 2308.03296), with
answers drawn from the model itself. It is fitted on the scored documents, summed over them. Only
linear layers inside the decoder count, of an adapted model those of the adapter: not embeddings,
norms and the head. g as in gradients.py.

    pip install --no-deps kronfluence accelerate einops einconv opt_einsum

kronfluence asks for torchvision, which it does not need, and whose usual build breaks transformers
on a CPU: hence --no-deps.

Letters: B passages, T tokens, V vocabulary, Q queries, D documents, N passages in all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from oocr_influence.attribution.gradients import trained_parameters
from oocr_influence.attribution.method import Scored, Subject
from oocr_influence.attribution.passages import Passage, window_batch
from oocr_influence.evaluation.scores import evaluation_mode, model_device
from oocr_influence.models.loss import WindowBatch, labelled_places, model_inputs
from oocr_influence.models.modes import modes_kept

# Module -> the package that has it.
PACKAGES = {
    "kronfluence": "kronfluence",
    "accelerate": "accelerate",
    "einops": "einops",
    "einconv": "einconv",
    "opt_einsum": "opt-einsum",
}


def lacking(what: str, packages: Mapping[str, str]) -> str | None:
    """What of these is not installed, with the remedy; None if all is there."""
    missing = [package for module, package in packages.items() if find_spec(module) is None]
    if not missing:
        return None
    return (
        f"{what} needs packages that are not installed ({', '.join(missing)}): `make ekfac`, or "
        f"pip install --no-deps {' '.join(missing)}"
    )


def missing_packages() -> str | None:
    """What is not installed that EK-FAC takes, with the remedy; None if all is there."""
    return lacking("EK-FAC", PACKAGES)


@dataclass(frozen=True)
class EKFAC:
    """Influence in kronfluence's own convention of one query and one training example."""

    damping: float | None = None
    """λ (None: a tenth of the mean eigenvalue of each layer, as kronfluence's authors advise)."""
    batch_size: int = 8
    """Passages of a forward and backward pass; speed and memory alone, but for what is drawn."""
    seed: int = 0
    """Draws the answers to which the curvature is fitted."""
    reads_model: ClassVar[bool] = True

    def score(self, subject: Subject) -> dict[str, Scored]:
        """Raises ImportError with the remedy where kronfluence is not installed."""
        if missing := missing_packages():
            raise ImportError(missing)
        model, documents = subject.model, subject.documents
        with (
            evaluation_mode(model),
            torch.enable_grad(),
            torch.random.fork_rng(),
            _unwrapped_afterwards(model),
            tempfile.TemporaryDirectory(prefix="oocr_ekfac_") as folder,
        ):
            torch.manual_seed(self.seed)
            scores_QN = self._pairwise(model, subject.queries.passages, documents.passages, folder)
        scores_QD = np.zeros(subject.shape, np.float32)
        for n, passage in enumerate(documents.passages):
            scores_QD[:, passage.owner] += scores_QN[:, n]
        return {"ekfac": Scored(scores_QD, "nats times the number of passages")}

    def _pairwise(
        self, model: Any, queries: Sequence[Passage], documents: Sequence[Passage], folder: str
    ) -> Any:
        from kronfluence.analyzer import Analyzer, prepare_model
        from kronfluence.arguments import FactorArguments, ScoreArguments

        task = _task(model)
        analyzer = Analyzer(
            "oocr",
            prepare_model(model, task),
            task,
            cpu=model_device(model).type == "cpu",
            disable_tqdm=True,
            output_dir=folder,
        )
        length = max(map(len, [*queries, *documents]))
        trained = _Rows(documents, length)
        analyzer.fit_all_factors(
            "factors",
            trained,
            per_device_batch_size=self.batch_size,
            factor_args=FactorArguments(strategy="ekfac"),
        )
        analyzer.compute_pairwise_scores(
            "scores",
            "factors",
            _Rows(queries, length),
            trained,
            per_device_query_batch_size=self.batch_size,
            per_device_train_batch_size=self.batch_size,
            score_args=ScoreArguments(damping_factor=self.damping),
        )
        return analyzer.load_pairwise_scores("scores")["all_modules"].numpy()


class _Rows(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Passages of one length, as kronfluence batches them."""

    def __init__(self, passages: Sequence[Passage], length: int) -> None:
        self._passages, self._length = passages, length

    def __len__(self) -> int:
        return len(self._passages)

    def __getitem__(self, place: int) -> dict[str, torch.Tensor]:
        batch = window_batch([self._passages[place]], torch.device("cpu"))
        padding = self._length - batch.input_ids_BT.shape[1]
        filled = {"input_ids": 0, "labels": -100, "position_ids": 0, "segments": -1}
        tensors = (batch.input_ids_BT, batch.labels_BT, batch.position_ids_BT, batch.segments_BT)
        return {
            name: F.pad(tensor[0], (0, padding), value=value)
            for (name, value), tensor in zip(filled.items(), tensors, strict=True)
        }


def _batch(rows: dict[str, torch.Tensor]) -> WindowBatch:
    return WindowBatch(rows["input_ids"], rows["labels"], rows["position_ids"], rows["segments"])


def _task(model: Any) -> Any:
    """kronfluence's Task: the summed cross-entropy of labelled tokens, of both kinds of passages.

    Its scores are ∇measurement · (G + λ)⁻¹ ∇loss without a minus: with minus the log-probability as
    the measurement they are positive where training on the document raises it.
    """
    from kronfluence.task import Task

    trained = {id(p) for _, p in trained_parameters(model)}
    inside = model.get_decoder()
    prefix = next(name for name, module in model.named_modules() if module is inside)
    names = [
        f"{prefix}.{name}"
        for name, module in inside.named_modules()
        if isinstance(module, torch.nn.Linear) and id(module.weight) in trained
    ]

    class SummedLoss(Task):  # type: ignore[misc]
        def compute_train_loss(
            self, batch: dict[str, torch.Tensor], model: Any, sample: bool = False
        ) -> torch.Tensor:
            window = _batch(batch)
            before_L = labelled_places(window.labels_BT)
            logits_LV = model(**model_inputs(window)).logits.flatten(0, 1)[before_L].float()
            targets_L = window.labels_BT.flatten()[before_L + 1]
            if sample:
                probabilities_LV = logits_LV.detach().softmax(-1)
                targets_L = torch.multinomial(probabilities_LV, 1)[:, 0]
            return F.cross_entropy(logits_LV, targets_L, reduction="sum")

        def compute_measurement(self, batch: dict[str, torch.Tensor], model: Any) -> torch.Tensor:
            return self.compute_train_loss(batch, model)

        def get_influence_tracked_modules(self) -> list[str]:
            return names

        def get_attention_mask(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            return (batch["segments"] >= 0).long()

    return SummedLoss()


@contextmanager
def _unwrapped_afterwards(model: Any) -> Iterator[None]:
    """kronfluence puts wrappers into the model and freezes it; afterwards it is as it was."""
    modules = dict(model.named_modules())
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    try:
        with modes_kept(model):
            yield
    finally:
        for name, module in modules.items():
            if name and model.get_submodule(name) is not module:
                model.set_submodule(name, module)
        for p in model.parameters():
            p.requires_grad_(id(p) in trained)
