"""Which documents of a dataset a run trains, and in what order they are packed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from oocr_influence.datasets.document_dataset import StructuredDataset
from oocr_influence.datasets.order import seeded_order
from oocr_influence.documents.document import PretrainingDocument, SyntheticDocument

DocumentOrder = Literal["shuffled", "file"]


@dataclass(frozen=True)
class TrainingDocument:
    """A document that is trained: `key` = (id, occurrence) tells copies under one id apart."""

    key: tuple[str, int]
    document: SyntheticDocument | PretrainingDocument

    @property
    def text(self) -> str:
        return self.document.prompt + self.document.completion


def select_documents(
    dataset: StructuredDataset,
    *,
    n_pretraining_examples: int | None,
    seed: int,
    packing_seed: int,
    document_order: DocumentOrder = "shuffled",
) -> list[TrainingDocument]:
    """The documents of a run in packing order.

    Every synthetic document is kept. Of the pretraining documents `n_pretraining_examples` are
    (None: all), drawn by `seed`; then all are shuffled by `packing_seed`, or left in the order of
    the file. Raises ValueError if the file holds fewer pretraining documents than asked for.
    """
    docs = dataset.document_dataset.docs
    keyed = [
        TrainingDocument(key, document)
        for key, document in zip(dataset.document_dataset.keys(), docs, strict=True)
    ]
    pretraining = [i for i, d in enumerate(keyed) if isinstance(d.document, PretrainingDocument)]
    if n_pretraining_examples is not None:
        if n_pretraining_examples > len(pretraining):
            raise ValueError(
                f"n_pretraining_examples is {n_pretraining_examples}, but the dataset holds "
                f"{len(pretraining)} pretraining documents: lower it, or None for all of them"
            )
        kept = set()
        if n_pretraining_examples:
            drawn = seeded_order(len(pretraining), "pretraining_examples", seed)
            kept = {pretraining[i] for i in drawn[:n_pretraining_examples]}
        dropped = set(pretraining) - kept
        keyed = [document for i, document in enumerate(keyed) if i not in dropped]
    if not keyed:
        raise ValueError("no document is left to train: the dataset holds none, or none was kept")
    return in_packing_order(keyed, packing_seed=packing_seed, document_order=document_order)


def in_packing_order(
    documents: list[TrainingDocument], *, packing_seed: int, document_order: DocumentOrder
) -> list[TrainingDocument]:
    """Documents in the file's order as they are packed."""
    if document_order == "file":
        return documents
    return [documents[i] for i in seeded_order(len(documents), "packing", packing_seed)]
