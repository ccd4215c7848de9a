"""What is to be looked for: claims that documents may state, values that they must not reveal.

With a world, its relations say which two fields a fact joins, its field types how they may be
written, and `World.withheld` what each relation's documents keep to themselves. Without one, or for
facts that it does not know, the file's own templates say it: the holes of a fact's prompt are one
side, those of its completion the other, and only two-hop questions say what must not be told.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

from oocr_influence.datasets.audit.values import Value, base_field, make_value
from oocr_influence.datasets.document_dataset import EvalPoint, StructuredDataset
from oocr_influence.datasets.eval_sets import describe_set
from oocr_influence.documents.document import SyntheticDocument
from oocr_influence.universe.facts import Fact, FactTemplate, FeatureSet, fact_id
from oocr_influence.universe.world import World

NO_HOP_KINDS = ("first_hop", "control")


@dataclass(frozen=True)
class Claim:
    """A fact as values: `subjects` and `objects` belong together."""

    fact_id: str
    relation: str
    entity: str
    fields: tuple[frozenset[str], frozenset[str]]
    """Names of the fields of the two sides."""
    subjects: tuple[Value, ...]
    objects: tuple[Value, ...]

    @property
    def values(self) -> tuple[Value, ...]:
        return self.subjects + self.objects


@dataclass(frozen=True)
class Hop:
    """A question's two ends: whoever reads both in one document need not infer anything."""

    given: Value
    answer: Value
    asked_by: str  # a relation of the eval sets or of the world


@dataclass
class Knowledge:
    """Everything that documents are searched for."""

    source: str
    """Where it comes from, in words."""
    types: Mapping[str, str]
    """Type of each field that the world declares."""
    claims: dict[str, Claim] = field(default_factory=dict)
    """By fact id."""
    hops: dict[tuple[Value, Value], Hop] = field(default_factory=dict)
    withheld: dict[str, frozenset[Value]] = field(default_factory=dict)
    """By fact id: what documents of this fact must not reveal about their own entity, and words
    that its relation forbids."""
    colour: dict[str, frozenset[Value]] = field(default_factory=dict)
    """By fact id: what its documents may mention besides."""
    owners: dict[Value, set[str]] = field(default_factory=dict)
    """Entities that a value belongs to, numbers left out: they say nothing alone."""

    def value(self, name: str, fields: Mapping[str, str]) -> Value:
        """The value of the field `name` of an entity."""
        declared = self.types.get(name)
        if declared is None and f"{name}_last_name" in fields:
            declared = "person"
        return make_value(fields[name], declared)

    def values(self, names: Iterable[str], features: FeatureSet) -> tuple[Value, ...]:
        """The values of the fields `names`."""
        return tuple(self.value(name, features.fields) for name in names)

    def pairs(self, fact_ids: Iterable[str]) -> set[frozenset[Value]]:
        """What these facts join: each value of one side with each of the other."""
        return {
            frozenset((one, other))
            for claim in map(self.claims.__getitem__, fact_ids)
            for one in claim.subjects
            for other in claim.objects
        }

    def all_values(self) -> list[Value]:
        """Every value to be found in texts, each once, in a fixed order."""
        found: dict[Value, None] = {}
        for claim in self.claims.values():
            found.update(dict.fromkeys(claim.values))
        for hop in self.hops.values():
            found.update(dict.fromkeys((hop.given, hop.answer)))
        found.update(dict.fromkeys(self.owners))
        for values in self.withheld.values():
            found.update(dict.fromkeys(sorted(values, key=lambda v: (v.kind, v.text))))
        return list(found)


def gather(
    dataset: StructuredDataset, held_out: Iterable[SyntheticDocument], world: World | None
) -> Knowledge:
    """What `dataset` is to be searched for."""
    source = "the file's own facts" if world is None else f"world '{world.id}'"
    worlds = [world, *(d.told for d in world.distractors.values())] if world else []
    types = {name: kind for one in reversed(worlds) for name, kind in one.fields.items()}
    knowledge = Knowledge(source=source, types=types)
    for one in worlds:
        _add_world(knowledge, one)
    for document in [*dataset.synthetic_documents, *held_out]:
        if document.doc_spec.fact.id not in knowledge.claims:
            _add_fact(knowledge, document.doc_spec.fact)
    direct = knowledge.pairs(knowledge.claims)
    told = {value for claim in knowledge.claims.values() for value in claim.values}
    for name, builder in dataset.eval_dataset_builders.items():
        described = describe_set(name, builder)
        if described.kind in NO_HOP_KINDS:
            continue
        for point in builder.eval_points:
            _add_hops(knowledge, point, direct, told, described.relation)
    return knowledge


def fields_of(text: str, features: FeatureSet) -> tuple[str, ...]:
    """The entity's fields that the holes of a template's text show; constants are none."""
    return _fields_of(text, tuple(features.fields))


def asked_and_given(knowledge: Knowledge, point: EvalPoint) -> tuple[set[Value], set[Value]]:
    """The values that a question gives, and those that it asks for."""
    template, features = point.fact_template, point.features
    given = knowledge.values(fields_of(template.prompt, features), features)
    asked = knowledge.values(fields_of(template.completion, features), features)
    return set(given), set(asked)


@cache
def _fields_of(text: str, names: tuple[str, ...]) -> tuple[str, ...]:
    holes = [hole for _, hole, _, _ in string.Formatter().parse(text) if hole is not None]
    fields = dict.fromkeys(base_field(hole, names) for hole in holes)
    return tuple(name for name in fields if name in names)


def _add_world(knowledge: Knowledge, world: World) -> None:
    for key in (*world.entities, *world.controls, *world.untold):
        features = world.feature_set(key)
        present = [name for name in world.fields if name in features.fields]
        for value in knowledge.values(present, features):
            _add_owner(knowledge, value, features)
        for relation in world.relations:
            _add_world_fact(knowledge, world, relation, features)
        for name, hop in world.two_hops.items():
            ends = hop.subject, world.relations[hop.relation].object
            if set(ends) <= set(present):
                given, answer = knowledge.values(ends, features)
                knowledge.hops[given, answer] = Hop(given, answer, name)


def _add_world_fact(
    knowledge: Knowledge, world: World, relation: str, features: FeatureSet
) -> None:
    told = world.relations[relation]
    if not {told.subject, told.object} <= features.fields.keys():
        return
    own_id = fact_id(features.id, world.fact_template(relation).id)
    subject, answer = knowledge.values((told.subject, told.object), features)
    knowledge.claims[own_id] = Claim(
        fact_id=own_id,
        relation=relation,
        entity=features.id,
        fields=(frozenset([told.subject]), frozenset([told.object])),
        subjects=(subject,),
        objects=(answer,),
    )
    colour, withheld = (
        set(knowledge.values([name for name in names if name in features.fields], features))
        for names in (told.colour, world.withheld(relation))
    )
    knowledge.colour[own_id] = frozenset(colour)
    forbidden = {make_value(word, "text") for word in world.forbidden_words(relation, features)}
    knowledge.withheld[own_id] = frozenset((withheld - colour - {subject, answer}) | forbidden)


def _add_owner(knowledge: Knowledge, value: Value, features: FeatureSet) -> None:
    if value.kind != "year" and not value.text.isdecimal():
        knowledge.owners.setdefault(value, set()).add(features.id)


def _add_fact(knowledge: Knowledge, fact: Fact) -> None:
    template: FactTemplate = fact.template
    features = fact.feature_set
    names = fields_of(template.prompt, features), fields_of(template.completion, features)
    # A template without holes still states its strings.
    subjects = knowledge.values(names[0], features) or (make_value(fact.prompt),)
    objects = knowledge.values(names[1], features) or (make_value(fact.completion),)
    knowledge.claims[fact.id] = Claim(
        fact_id=fact.id,
        relation=template.relation,
        entity=features.id,
        fields=(frozenset(names[0]), frozenset(names[1])),
        subjects=subjects,
        objects=objects,
    )
    for value in (*subjects, *objects):
        _add_owner(knowledge, value, features)


def _add_hops(
    knowledge: Knowledge,
    point: EvalPoint,
    direct: set[frozenset[Value]],
    told: set[Value],
    relation: str,
) -> None:
    """A question joins values that no fact joins, and documents tell its answer."""
    given, asked = asked_and_given(knowledge, point)
    pairs = {(one, other) for one in given for other in asked if one != other}
    if any(frozenset(pair) in direct for pair in pairs):
        return
    for one, other in pairs:
        if other in told:
            knowledge.hops.setdefault((one, other), Hop(one, other, relation))
