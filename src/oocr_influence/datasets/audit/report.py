"""The audit of a dataset: everything measured once, as plain data, and the fact × document matrix.

    audit = audit_dataset(load_structured_dataset(path), world=load_world("mayors"))
    audit.report["statements"]["share"]

The rules are in `values.py` (forms of a value), `statements.py` (stating, leaking),
`duplicates.py`, `wording.py`, `questions.py` and `identity.py`; `limits.py` judges the report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from oocr_influence.datasets.audit.document_sections import (
    duplicates,
    other_entities,
    other_facts,
    statements,
    two_hop_leaks,
    withheld,
)
from oocr_influence.datasets.audit.fact_sections import TokenCounter, balance, counts
from oocr_influence.datasets.audit.knowledge import gather
from oocr_influence.datasets.audit.material import Material, read_documents
from oocr_influence.datasets.audit.question_sections import (
    answers_in_pretraining,
    ids,
    questions,
    wording,
)
from oocr_influence.datasets.document_dataset import StructuredDataset, document_keys
from oocr_influence.datasets.held_out import held_out_documents
from oocr_influence.universe.world import World


@dataclass(frozen=True)
class Audit:
    """What was found."""

    report: dict[str, Any]
    """Plain JSON: sections by name."""
    matrix: dict[str, list[Any]]
    """Columns: a row for each document's own fact, and for every other that it states."""


def audit_dataset(
    dataset: StructuredDataset,
    *,
    world: World | None = None,
    count_tokens: TokenCounter | None = None,
) -> Audit:
    """Read every document and question of `dataset` and say what is in them.

    Without `world` the facts are those that the file's documents are written for. `count_tokens`
    gives the tokens of texts; without it, words are counted. Held-out documents are read too.
    """
    held_out = held_out_documents(dataset)
    knowledge = gather(dataset, held_out, world)
    material = read_documents(dataset, held_out, knowledge)
    report = {
        "facts_from": knowledge.source,
        "counts": counts(dataset, material, knowledge),
        "statements": statements(material),
        "other_facts": other_facts(material),
        "two_hop_leaks": two_hop_leaks(material),
        "withheld": withheld(material, known=bool(knowledge.withheld)),
        "other_entities": other_entities(material),
        "duplicates": duplicates(material),
        "balance": balance(material, knowledge, world, count_tokens),
        "ids": ids(dataset),
        "questions": questions(dataset, material, knowledge),
        "answers_in_pretraining": answers_in_pretraining(dataset, material),
        "wording": wording(dataset, material),
    }
    return Audit(report=report, matrix=_matrix(material))


def _matrix(material: Material) -> dict[str, list[Any]]:
    trained = [
        document
        for document, group in zip(material.documents, material.groups, strict=True)
        if group != "held_out"
    ]
    keys = document_keys(trained) + [(d.id, 0) for d in material.documents[len(trained) :]]
    names = ("id", "occurrence", "group", "fact_id", "relation", "entity", "own", "states", "how")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for place, reading in enumerate(material.readings):
        for statement in reading.statements:
            claim = statement.claim
            row = (
                *keys[place],
                material.groups[place],
                claim.fact_id,
                claim.relation,
                claim.entity,
                statement.own,
                statement.states,
                statement.how,
            )
            for name, value in zip(names, row, strict=True):
                columns[name].append(value)
    return columns
