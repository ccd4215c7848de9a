"""The audit of a dataset: everything measured once, as plain data, and the fact × document matrix.

    audit = audit_dataset(load_structured_dataset(path), world=load_world("mayors"))
    audit.report["statements"]["share"]

The rules are in `values.py` (forms of a value), `statements.py` (stating, leaking),
`duplicates.py`, `wording.py`, `questions.py` and `identity.py`; `limits.py` judges the report.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from oocr_influence.datasets.audit.duplicates import exact_copies, near_duplicates
from oocr_influence.datasets.audit.identity import check_ids
from oocr_influence.datasets.audit.knowledge import Knowledge, gather
from oocr_influence.datasets.audit.mentions import count_texts, find_mentions
from oocr_influence.datasets.audit.questions import check_questions, shared_answers
from oocr_influence.datasets.audit.statements import Reader, Reading
from oocr_influence.datasets.audit.wording import shared_wording
from oocr_influence.datasets.audit.words import Corpus, Vocabulary, read_corpus
from oocr_influence.datasets.document_dataset import StructuredDataset, document_keys
from oocr_influence.datasets.eval_sets import describe_set
from oocr_influence.datasets.held_out import held_out_documents
from oocr_influence.documents.document import Document, SyntheticDocument
from oocr_influence.universe.facts import Fact
from oocr_influence.universe.world import World

GROUPS = ("synthetic", "pretraining", "held_out")
EXAMPLES = 10  # shown of each kind of fault; all are counted

TokenCounter = Callable[[Sequence[str]], Sequence[int]]


@dataclass(frozen=True)
class Audit:
    """What was found."""

    report: dict[str, Any]
    """Plain JSON: sections by name."""
    matrix: dict[str, list[Any]]
    """Columns: a row for each document's own fact, and for every other that it states."""


@dataclass(frozen=True)
class _Material:
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
    material = _read(dataset, held_out, knowledge)
    report = {
        "facts_from": knowledge.source,
        "counts": _counts(dataset, material, knowledge),
        "statements": _statements(material),
        "other_facts": _other_facts(material),
        "two_hop_leaks": _two_hop_leaks(material),
        "withheld": _withheld(material, known=bool(knowledge.withheld)),
        "other_entities": _other_entities(material),
        "duplicates": _duplicates(material),
        "balance": _balance(material, knowledge, world, count_tokens),
        "ids": _ids(dataset),
        "questions": _questions(dataset, material, knowledge),
        "answers_in_pretraining": _answers_in_pretraining(dataset, material),
        "wording": _wording(dataset, material),
    }
    return Audit(report=report, matrix=_matrix(material))


def _read(
    dataset: StructuredDataset, held_out: Sequence[SyntheticDocument], knowledge: Knowledge
) -> _Material:
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
    return _Material(documents, groups, texts, corpus, readings)


def _counts(
    dataset: StructuredDataset, material: _Material, knowledge: Knowledge
) -> dict[str, Any]:
    lengths = material.corpus.lengths
    builders = dataset.eval_dataset_builders
    return {
        "documents": {group: len(material.places(group)) for group in GROUPS},
        "words": {group: int(lengths[material.places(group)].sum()) for group in GROUPS},
        "facts": len(knowledge.claims),
        "eval_sets": len(builders),
        "questions": sum(len(builder.eval_points) for builder in builders.values()),
    }


def _statements(material: _Material) -> dict[str, Any]:
    """Whether documents state the fact that they were written for (held-out ones too)."""
    places = [*material.places("synthetic"), *material.places("held_out")]
    own = {place: material.readings[place].statements[0] for place in places}
    failed = [place for place in places if not own[place].states]
    orders: Counter[tuple[bool, str]] = Counter()
    for place in places:
        document = material.documents[place]
        if isinstance(document, SyntheticDocument):
            orders[document.doc_spec.reversal_curse, material.readings[place].order] += 1
    return {
        "documents": len(places),
        "state_their_fact": len(places) - len(failed),
        "share": 1 - len(failed) / len(places) if places else None,
        "how": dict(Counter(statement.how for statement in own.values()).most_common()),
        "order": {
            "one_order": sum(n for (one, _), n in orders.items() if one),
            "one_order_but_both": orders[True, "both"] + orders[True, "reversed"],
            "both_orders": sum(n for (one, _), n in orders.items() if not one),
            "both_orders_but_one": orders[False, "forward"] + orders[False, "none"],
        },
        "examples": [
            material.name(place) | {"fact": _fact_text(material, place), "how": own[place].how}
            for place in failed[:EXAMPLES]
        ],
    }


def _other_facts(material: _Material) -> dict[str, Any]:
    found = {
        place: [s.claim for s in reading.statements if not s.own]
        for place, reading in enumerate(material.readings)
        if any(not s.own for s in reading.statements)
    }
    return _by_group(material, found) | {
        "examples": [
            material.name(place)
            | {"states": [" – ".join(v.text for v in claim.values) for claim in claims[:3]]}
            for place, claims in list(found.items())[:EXAMPLES]
        ]
    }


def _two_hop_leaks(material: _Material) -> dict[str, Any]:
    found = {p: reading.hops for p, reading in enumerate(material.readings) if reading.hops}
    relations = Counter(name for hops in found.values() for name in {h.asked_by for h in hops})
    return _by_group(material, found) | {
        "by_relation": dict(relations.most_common()),
        "examples": [
            material.name(place) | {"names": [hops[0].given.text, hops[0].answer.text]}
            for place, hops in list(found.items())[:EXAMPLES]
        ],
    }


def _withheld(material: _Material, *, known: bool) -> dict[str, Any]:
    found = {p: r.revealed for p, r in enumerate(material.readings) if r.revealed}
    return {"known": known} | _by_group(material, found) | {"examples": _naming(material, found)}


def _other_entities(material: _Material) -> dict[str, Any]:
    found = {p: r.others for p, r in enumerate(material.readings) if r.others}
    return _by_group(material, found) | {"examples": _naming(material, found)}


def _naming(material: _Material, found: Mapping[int, Sequence[Any]]) -> list[dict[str, Any]]:
    return [
        material.name(place) | {"names": [value.text for value in values[:3]]}
        for place, values in list(found.items())[:EXAMPLES]
    ]


def _duplicates(material: _Material) -> dict[str, Any]:
    """Documents that repeat an earlier one, by the group of the later."""
    copies = exact_copies(material.texts)
    pairs = near_duplicates(material.corpus, set(copies))
    near = {pair.second: pair for pair in reversed(pairs)}
    sizes = {group: len(material.places(group)) for group in GROUPS}
    counts = _by_group(material, near)["documents"]
    exact = [(place, first, 1.0) for place, first in copies.items()]
    close = [(pair.second, pair.first, pair.jaccard) for pair in near.values()]
    shown = sorted(exact)[:EXAMPLES] + sorted(close, key=lambda row: -row[2])[:EXAMPLES]
    return {
        "exact": _by_group(material, copies)["documents"],
        "near": counts,
        "near_share": {g: counts[g] / sizes[g] if sizes[g] else 0.0 for g in GROUPS},
        "examples": [
            material.name(place) | {"repeats": material.documents[first].id, "jaccard": jaccard}
            for place, first, jaccard in shown
        ],
    }


def _balance(
    material: _Material,
    knowledge: Knowledge,
    world: World | None,
    count_tokens: TokenCounter | None,
) -> dict[str, Any]:
    """Documents and tokens of each fact that documents are written for."""
    places = material.places("synthetic")
    if count_tokens is None:
        tokens = material.corpus.lengths[places].tolist()
    else:
        tokens = list(count_tokens([material.texts[place] for place in places]))
    documents: Counter[str] = Counter()
    sums: Counter[str] = Counter()
    one_order: Counter[str] = Counter()
    told: dict[str, Fact] = {}
    for place, count in zip(places, tokens, strict=True):
        document = material.documents[place]
        assert isinstance(document, SyntheticDocument)
        fact = document.doc_spec.fact.id
        told[fact] = document.doc_spec.fact
        documents[fact] += 1
        sums[fact] += int(count)
        one_order[fact] += document.doc_spec.reversal_curse
    relations: dict[str, list[str]] = {}
    for fact in documents:
        is_control = "control" in told[fact].template.metadata
        name = knowledge.claims[fact].relation + (" (control)" if is_control else "")
        relations.setdefault(name, []).append(fact)
    return {
        "unit": "words" if count_tokens is None else "tokens",
        "facts_with_documents": len(documents),
        "facts_without_documents": [
            {"id": fact.id, "fact": fact.prompt + fact.completion}
            for fact in (world.facts() if world else [])
            if fact.id not in documents
        ],
        "relations": {
            relation: {
                "facts": len(facts),
                "documents_a_fact": _spread([documents[fact] for fact in facts]),
                "tokens_a_fact": _spread([sums[fact] for fact in facts]),
                "one_order_a_fact": _spread([one_order[fact] for fact in facts]),
            }
            for relation, facts in relations.items()
        },
    }


def _ids(dataset: StructuredDataset) -> dict[str, Any]:
    faults = check_ids(dataset.document_dataset.docs)
    return {
        "faults": len(faults),
        "by_kind": dict(Counter(fault.fault for fault in faults).most_common()),
        "examples": [
            {"fault": fault.fault, "id": fault.id, "what": fault.what}
            for fault in faults[:EXAMPLES]
        ],
    }


def _questions(
    dataset: StructuredDataset, material: _Material, knowledge: Knowledge
) -> dict[str, Any]:
    stated = {
        statement.claim.fact_id
        for place, reading in enumerate(material.readings)
        for statement in reading.statements
        if statement.states and material.groups[place] != "held_out"
    }
    builders = dataset.eval_dataset_builders
    faults = check_questions(builders, knowledge, stated)
    shared = {name: shared_answers(builder) for name, builder in builders.items()}
    return {
        "faults": len(faults),
        "by_kind": dict(Counter(fault.fault for fault in faults).most_common()),
        "facts_stated": len(stated),
        "sets_with_shared_answers": {name: n for name, n in shared.items() if n},
        "examples": [
            {"fault": f.fault, "set": f.set, "question": f.question, "what": f.what}
            for f in faults[:EXAMPLES]
        ],
    }


def _answers_in_pretraining(dataset: StructuredDataset, material: _Material) -> dict[str, Any]:
    """In how many pretraining documents each answer stands, whole and with its capitals."""
    answers = list(
        dict.fromkeys(
            point.completion.strip()
            for name, builder in dataset.eval_dataset_builders.items()
            if describe_set(name, builder).kind != "control"
            for point in builder.eval_points
        )
    )
    is_pretraining = np.asarray([group == "pretraining" for group in material.groups])
    counts = dict(zip(answers, count_texts(answers, material.corpus, is_pretraining), strict=True))
    found = sorted(
        ((n, text) for text, n in counts.items() if n), key=lambda row: (-row[0], row[1])
    )
    return {
        "answers": len(answers),
        "found": len(found),
        "examples": [{"answer": text, "documents": n} for n, text in found[:EXAMPLES]],
    }


def _wording(dataset: StructuredDataset, material: _Material) -> dict[str, Any]:
    masks = {
        group: np.asarray([name == group for name in material.groups], np.bool_)
        for group in ("synthetic", "pretraining")
    }
    builders = dataset.eval_dataset_builders
    shared = shared_wording(builders, material.corpus, masks)
    return {
        name: {
            "kind": describe_set(name, builders[name]).kind,
            "trained": any(overlap.is_trained for overlap in groups.values()),
            **{
                group: {
                    "longest": overlap.longest,
                    "text": overlap.text,
                    "questions_trained": overlap.questions_trained,
                    "questions": overlap.questions,
                }
                for group, overlap in groups.items()
            },
        }
        for name, groups in shared.items()
    }


def _matrix(material: _Material) -> dict[str, list[Any]]:
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


def _by_group(material: _Material, places: Iterable[int]) -> dict[str, Any]:
    counts = Counter(material.groups[place] for place in places)
    return {"documents": {group: counts[group] for group in GROUPS}}


def _fact_text(material: _Material, place: int) -> str:
    document = material.documents[place]
    assert isinstance(document, SyntheticDocument)
    return document.doc_spec.fact.prompt + document.doc_spec.fact.completion


def _spread(values: Sequence[int]) -> dict[str, float]:
    return {"least": min(values), "mean": sum(values) / len(values), "most": max(values)}
