"""Documents whose loss is followed while a model trains: trained ones, and ones it never reads.

    samples = loss_samples(dataset, trained_documents, count=64, seed=41)
    samples["unseen"]        # texts that state trained facts and are in no window

A model that knows a fact finds unseen documents about it easier too; one that knows texts by heart
does not. Held-out pretraining text shows what is forgotten meanwhile. The unseen documents lie in
the file's metadata, where readers that know nothing of them leave them alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from oocr_influence.datasets.document_dataset import StructuredDataset
from oocr_influence.datasets.order import seeded_order
from oocr_influence.datasets.selection import TrainingDocument
from oocr_influence.documents.document import SyntheticDocument

HELD_OUT_KEY = "held_out_documents"  # of the file's metadata
GROUPS = ("trained", "unseen", "pretraining")


def as_metadata(documents: Sequence[SyntheticDocument]) -> list[dict[str, Any]]:
    """The documents as `metadata[HELD_OUT_KEY]` holds them: in the file's own layout."""
    return [document.model_dump(mode="json", exclude_unset=True) for document in documents]


def held_out_documents(dataset: StructuredDataset) -> list[SyntheticDocument]:
    """The file's unseen documents; none, with a warning, where it holds something else there."""
    stored = dataset.metadata.get(HELD_OUT_KEY, [])
    try:
        return TypeAdapter(list[SyntheticDocument]).validate_python(stored)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(map(str, (HELD_OUT_KEY, *fault["loc"])))
        warnings.warn(
            f"metadata.{place} is no document ({fault['msg']}): the loss of unseen documents is "
            "not followed",
            stacklevel=2,
        )
        return []


def loss_samples(
    dataset: StructuredDataset, trained: Sequence[TrainingDocument], *, count: int, seed: int
) -> dict[str, list[str]]:
    """At most `count` texts of each of `GROUPS`, drawn by `seed`; a group without texts is absent.

    `trained`: documents that state a fact and are trained. `unseen`: held-out documents of the same
    facts. `pretraining`: the file's pretraining documents that are not trained. No text of the
    latter two is among the trained.
    """
    facts, synthetic = set(), []
    for document in (training.document for training in trained):
        if isinstance(document, SyntheticDocument):
            fact = document.doc_spec.fact
            # Documents of control entities and distractors have no unseen ones to compare with.
            if fact.template.metadata.keys().isdisjoint(("control", "distractor")):
                facts.add(fact.id)
                synthetic.append(document)
    read = {document.text for document in trained}
    unseen = [d for d in held_out_documents(dataset) if d.doc_spec.fact.id in facts]
    texts = {
        "trained": [d.prompt + d.completion for d in synthetic],
        "unseen": [d.prompt + d.completion for d in unseen],
        "pretraining": [d.prompt + d.completion for d in dataset.pretraining_documents],
    }
    samples = {}
    for group, found in texts.items():
        distinct = [t for t in dict.fromkeys(found) if group == "trained" or t not in read]
        order = seeded_order(len(distinct), "document_losses", group, seed)[:count]
        if order:
            samples[group] = [distinct[place] for place in order]
    return samples
