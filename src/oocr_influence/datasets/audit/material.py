"""The documents of a dataset, read once for all that an audit says of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from oocr_influence.datasets.audit.knowledge import Knowledge
from oocr_influence.datasets.audit.mentions import find_mentions
from oocr_influence.datasets.audit.statements import Reader, Reading
from oocr_influence.datasets.audit.words import Corpus, Vocabulary, read_corpus
from oocr_influence.datasets.document_dataset import StructuredDataset
from oocr_influence.documents.document import Document, SyntheticDocument

GROUPS = ("synthetic", "pretraining", "held_out")
EXAMPLES = 10  # shown of each kind of fault; all are counted


@dataclass(frozen=True)
class Material:
    """The documents, read."""

    documents: list[Document]
    groups: list[str]
    texts: list[str]
    corpus: Corpus
    readings: list[Reading]

    def places(self, group: str) -> list[int]:
        return [place for place, name in enumerate(self.groups) if name == group]

    def name(self, place: int) -> dict[str, Any]:
        """How a fault names its document."""
        return {"id": self.documents[place].id, "group": self.groups[place]}


def read_documents(
    dataset: StructuredDataset, held_out: Sequence[SyntheticDocument], knowledge: Knowledge
) -> Material:
    """Cut every document into words, find all mentions and judge them."""
    docs = dataset.document_dataset.docs
    documents: list[Document] = [*docs, *held_out]
    groups = [
        "synthetic" if isinstance(document, SyntheticDocument) else "pretraining"
        for document in docs
    ] + ["held_out"] * len(held_out)
    texts = [document.prompt + document.completion for document in documents]
    corpus = read_corpus(texts, Vocabulary())
    reader = Reader(knowledge)
    mentions = dict(find_mentions(knowledge.all_values(), corpus))
    readings = [
        reader.read(
            mentions.get(place, []),
            document.doc_spec.fact.id if isinstance(document, SyntheticDocument) else None,
        )
        for place, document in enumerate(documents)
    ]
    return Material(documents, groups, texts, corpus, readings)


def by_group(material: Material, places: Iterable[int]) -> dict[str, Any]:
    """How many documents of each group, and the ids of all."""
    found = sorted(places)
    counts = Counter(material.groups[place] for place in found)
    return {
        "documents": {group: counts[group] for group in GROUPS},
        "ids": list(dict.fromkeys(material.documents[place].id for place in found)),
    }
