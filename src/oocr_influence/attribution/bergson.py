"""Influence by EK-FAC, through bergson: a second implementation beside kronfluence's (ekfac.py).

The same g_q · (G + λ)⁻¹ g_d by the same linear layers; how G is averaged and what λ is by default
are bergson's own (Quirke et al. 2026, arXiv 2606.11660). Nothing is padded to the longest passage,
and gradients and factors lie on the disk.

    pip install --no-deps bergson …     # `missing_packages` names them all

bergson asks for torchvision, torchaudio and bitsandbytes, which this does not need, and of which
the usual builds break transformers on a CPU: hence --no-deps. It loads the weights itself, onto the
GPU where there is one.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from oocr_influence.attribution.ekfac import lacking
from oocr_influence.attribution.method import Scored, Subject
from oocr_influence.attribution.passages import Passage

# Module -> the package that has it, where that is called otherwise.
PACKAGES = {
    "bergson": "bergson",
    "accelerate": "accelerate",
    "docstring_parser": "docstring-parser",
    "graphviz": "graphviz",
    "jaxtyping": "jaxtyping",
    "ml_dtypes": "ml-dtypes",
    "natsort": "natsort",
    "optree": "optree",
    "peft": "peft",
    "petname": "petname",
    "simple_parsing": "simple-parsing",
    "torchopt": "torchopt",
    "wadler_lindig": "wadler-lindig",
}
TOKENS = 2048


def missing_packages() -> str | None:
    """What is not installed that bergson takes, with the remedy; None if all is there."""
    return lacking("bergson", PACKAGES)


@dataclass(frozen=True)
class BergsonEKFAC:
    """EK-FAC of weights that lie in a folder as transformers saves them."""

    folder: str
    """The checkpoint that `subject.model` was loaded from."""
    tokenizer: str
    """Where its tokenizer lies."""
    damping: float | None = None
    """λ (None: a tenth of the mean eigenvalue of each layer)."""
    seed: int = 0
    """Draws the answers to which the curvature is fitted."""
    reads_model: ClassVar[bool] = True

    def score(self, subject: Subject) -> dict[str, Scored]:
        """Raises ImportError with the remedy where bergson is not installed."""
        if missing := missing_packages():
            raise ImportError(missing)
        with (
            tempfile.TemporaryDirectory(prefix="oocr_bergson_") as folder,
            torch.random.fork_rng(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            torch.manual_seed(self.seed)
            scores_NQ = self._pipeline(subject, Path(folder))
        scores_QD = np.zeros(subject.shape, np.float32)
        for n, passage in enumerate(subject.documents.passages):
            scores_QD[:, passage.owner] += scores_NQ[n]
        return {"ekfac_bergson": Scored(scores_QD, "nats times a number that all documents share")}

    def _pipeline(self, subject: Subject, folder: Path) -> Any:
        """(N, Q) of passages of documents and queries."""
        from bergson.config import config
        from bergson.data import load_scores
        from bergson.hessians.pipeline import hessian_pipeline

        queries, documents = subject.queries.passages, subject.documents.passages
        longest = max(map(len, [*queries, *documents]))
        most = int(subject.model.config.max_position_embeddings)
        inversion = config.InversionConfig()  # a tenth of the mean
        if self.damping is not None:
            inversion = config.InversionConfig("absolute_damped_inverse", self.damping)
        hessian_pipeline(
            config.IndexConfig(
                run_path=str(folder / "run"),
                model=self.folder,
                tokenizer=self.tokenizer,
                precision="fp32" if subject.model.dtype == torch.float32 else "bf16",
                data=config.DataConfig(dataset=_written(documents, folder / "documents")),
                token_batch_size=min(most, max(longest, TOKENS)),
                loss_reduction="sum",
                distributed=config.DistributedConfig(nnode=1, nproc_per_node=1, node_rank=0),
            ),
            config.HessianConfig(method="kfac", ev_correction=True),
            config.ScoreConfig(),
            config.PreprocessConfig(),
            config.HessianPipelineConfig(
                query=config.QuerySetConfig(dataset=_written(queries, folder / "queries")),
                inversion_cfg=inversion,
            ),
        )
        return np.asarray(load_scores(folder / "run" / "scores")[:])


def _written(passages: Sequence[Passage], folder: Path) -> str:
    """A dataset of tokens and labels, which bergson takes as they are."""
    import datasets

    columns = {
        "input_ids": [passage.tokens.tolist() for passage in passages],
        "labels": [passage.labels.tolist() for passage in passages],
        "length": [len(passage) for passage in passages],
    }
    datasets.Dataset.from_dict(columns).save_to_disk(str(folder))
    return str(folder)
