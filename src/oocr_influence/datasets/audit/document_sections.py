"""The parts of an audit's report that are about documents: what they say, give away and repeat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from oocr_influence.datasets.audit.duplicates import exact_copies, near_duplicates
from oocr_influence.datasets.audit.material import EXAMPLES, GROUPS, Material, by_group
from oocr_influence.documents.document import SyntheticDocument


def statements(material: Material) -> dict[str, Any]:
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
        "ids": list(dict.fromkeys(material.documents[place].id for place in failed)),
        "examples": [
            material.name(place) | {"fact": _fact_text(material, place), "how": own[place].how}
            for place in failed[:EXAMPLES]
        ],
    }


def other_facts(material: Material) -> dict[str, Any]:
    """Documents that state facts other than their own; pretraining text has none of its own."""
    found = {
        place: [s.claim for s in reading.statements if not s.own]
        for place, reading in enumerate(material.readings)
        if any(not s.own for s in reading.statements)
    }
    return by_group(material, found) | {
        "examples": [
            material.name(place)
            | {"states": [" – ".join(v.text for v in claim.values) for claim in claims[:3]]}
            for place, claims in list(found.items())[:EXAMPLES]
        ]
    }


def two_hop_leaks(material: Material) -> dict[str, Any]:
    """Documents that hold both ends of a two-hop question, and by which relation it is asked."""
    found = {p: reading.hops for p, reading in enumerate(material.readings) if reading.hops}
    relations = Counter(name for hops in found.values() for name in {h.asked_by for h in hops})
    return by_group(material, found) | {
        "by_relation": dict(relations.most_common()),
        "examples": [
            material.name(place) | {"names": [hops[0].given.text, hops[0].answer.text]}
            for place, hops in list(found.items())[:EXAMPLES]
        ],
    }


def withheld(material: Material, *, known: bool) -> dict[str, Any]:
    """Documents that reveal a withheld value; `known`: whether a world says what is withheld."""
    found = {p: r.revealed for p, r in enumerate(material.readings) if r.revealed}
    return {"known": known} | by_group(material, found) | {"examples": _naming(material, found)}


def other_entities(material: Material) -> dict[str, Any]:
    """Documents that name values which belong to other entities alone."""
    found = {p: r.others for p, r in enumerate(material.readings) if r.others}
    return by_group(material, found) | {"examples": _naming(material, found)}


def _naming(material: Material, found: Mapping[int, Sequence[Any]]) -> list[dict[str, Any]]:
    return [
        material.name(place) | {"names": [value.text for value in values[:3]]}
        for place, values in list(found.items())[:EXAMPLES]
    ]


def duplicates(material: Material) -> dict[str, Any]:
    """Documents that repeat an earlier one, by the group of the later."""
    copies = exact_copies(material.texts)
    pairs = near_duplicates(material.corpus, set(copies))
    near = {pair.second: pair for pair in reversed(pairs)}
    sizes = {group: len(material.places(group)) for group in GROUPS}
    repeated, resembling = by_group(material, copies), by_group(material, near)
    counts = resembling["documents"]
    exact = [(place, first, 1.0) for place, first in copies.items()]
    close = [(pair.second, pair.first, pair.jaccard) for pair in near.values()]
    shown = sorted(exact)[:EXAMPLES] + sorted(close, key=lambda row: -row[2])[:EXAMPLES]
    return {
        "exact": repeated["documents"],
        "near": counts,
        "near_share": {g: counts[g] / sizes[g] if sizes[g] else 0.0 for g in GROUPS},
        "exact_ids": repeated["ids"],
        "near_ids": resembling["ids"],
        "examples": [
            material.name(place) | {"repeats": material.documents[first].id, "jaccard": jaccard}
            for place, first, jaccard in shown
        ],
    }


def _fact_text(material: Material, place: int) -> str:
    document = material.documents[place]
    assert isinstance(document, SyntheticDocument)
    return document.doc_spec.fact.prompt + document.doc_spec.fact.completion
