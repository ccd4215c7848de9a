"""Ids: unique, and what the file format makes them of."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from oocr_influence.documents.document import (
    Document,
    SyntheticDocument,
    document_id,
    make_pretraining_document,
)
from oocr_influence.universe.facts import fact_id

# Numbers that are tried beyond those of the documents that a fact has here: a file may hold a part.
NUMBERS_BEYOND = 200

Fault = Literal["repeated", "document", "spec", "fact"]


@dataclass(frozen=True)
class IdFault:
    """One id that is not what it should be."""

    fault: Fault
    id: str
    what: str


def check_ids(documents: Sequence[Document]) -> list[IdFault]:
    """Every id that occurs again, and every one that its formula does not give.

    A fact's id is made of entity and template, a pretraining document's of its text, a synthetic
    document's of fact, kind, idea and a number that the file does not hold: any small number will
    do. `doc_spec.id` is the document's own.
    """
    return [*_repeated(documents), *_wrong(documents)]


def _repeated(documents: Sequence[Document]) -> Iterator[IdFault]:
    for doc_id, times in Counter(document.id for document in documents).items():
        if times > 1:
            yield IdFault("repeated", doc_id, f"{times} documents have this id")


def _wrong(documents: Sequence[Document]) -> Iterator[IdFault]:
    seen: dict[str, int] = defaultdict(int)
    synthetic = [d for d in documents if isinstance(d, SyntheticDocument)]
    counts = Counter(document.doc_spec.fact.id for document in synthetic)
    facts = {document.doc_spec.fact.id: document.doc_spec.fact for document in synthetic}
    for fact in facts.values():
        if fact_id(fact.feature_set.id, fact.template.id) != fact.id:
            what = f"not of entity '{fact.feature_set.id}' and template '{fact.template.id}'"
            yield IdFault("fact", fact.id, what)
    for document in documents:
        if not isinstance(document, SyntheticDocument):
            if make_pretraining_document(document.completion, document.prompt).id != document.id:
                yield IdFault("document", document.id, "not of the document's text")
            continue
        spec = document.doc_spec
        if spec.id != document.id:
            yield IdFault("spec", document.id, f"its doc_spec has the id {spec.id}")
        place = seen[spec.fact.id]
        seen[spec.fact.id] += 1
        numbers = itertools.chain([place], range(counts[spec.fact.id] + NUMBERS_BEYOND))
        if not any(
            document_id(spec.fact.id, spec.doc_type, spec.doc_idea, n) == document.id
            for n in numbers
        ):
            yield IdFault("document", document.id, "not of its fact, kind and idea")
