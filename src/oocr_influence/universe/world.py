"""A world: entities with typed fields, the relations that documents tell, the questions asked.

    world = load_world("mayors")
    world.facts("name_mayor")[0].prompt      # "The mayor of Tokyo is"

A relation binds two fields of one entity: the subject that a statement is about and the object that
it tells. A two-hop relation asks for a relation's object by another field of the entity, which no
document of that relation mentions. Documents may also tell what nobody asks: a relation can be a
distractor, and whole worlds can be told beside this one. `world_file.py` reads a world from YAML,
`merging.py` joins distractors and `world_checks.py` says what is wrong with one.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Mapping

from pydantic import Field

from oocr_influence.universe.facts import Fact, FactTemplate, FeatureSet, make_fact
from oocr_influence.universe.fields import (
    FieldType,
    expand_field,
    hole_name,
    hole_names,
    plain_format,
)
from oocr_influence.universe.world_parts import (
    IDENTIFIER,
    Recipe,
    Relation,
    TwoHop,
    Value,
    WorldPart,
)

Entities = dict[str, dict[str, Value]]


class Distractor(WorldPart):
    """Another world that documents tell of and no set asks about."""

    file: str | None = Field(
        None, description="a built-in world, or a YAML file, from the folder of this one"
    )
    world: World | None = Field(None, description="the world itself, instead of a file")
    merge_on: str | None = Field(
        None,
        description="the field by whose value its entities are entities of this world, which its "
        "documents then tell more of; without it, it stands alone",
    )

    @property
    def told(self) -> World:
        """The world, once its file has been read."""
        assert self.world is not None
        return self.world


class World(WorldPart):
    """Everything that is true in one invented universe. Facts follow the order of the file."""

    id: str = Field(pattern=IDENTIFIER)
    description: str = ""
    constants: dict[str, Value] = Field({}, description="holes with one value for the whole world")
    fields: dict[str, FieldType] = Field(min_length=1)
    relations: dict[str, Relation]
    two_hops: dict[str, TwoHop] = {}
    distractors: dict[str, Distractor] = Field(
        {}, description="worlds told beside this one", exclude_if=operator.not_
    )
    inventions: dict[str, Recipe] = Field(
        {}, description="how values of a field are invented", exclude_if=operator.not_
    )
    entities: Entities = Field(min_length=1)
    controls: Entities = Field({}, description="entities no document mentions")
    untold: Entities = Field(
        {}, description="entities told of in one relation each, relation by relation in turn"
    )

    @property
    def groups(self) -> dict[str, Mapping[str, dict[str, str]]]:
        """The three groups of entities by name, in the order of the file."""
        return {"entities": self.entities, "controls": self.controls, "untold": self.untold}

    def feature_set(self, key: str) -> FeatureSet:
        """One entity (of any group) with every derived string of its fields."""
        fields = next(group[key] for group in self.groups.values() if key in group)
        expanded: dict[str, str] = {}
        for field, field_type in self.fields.items():
            # Only what distractors alone tell can be missing.
            if field in fields:
                expanded |= expand_field(field, field_type, fields[field])
        return FeatureSet(id=f"{self.id}_{key}", fields=expanded)

    @property
    def feature_sets(self) -> list[FeatureSet]:
        """The entities that documents tell of, in the order of the file."""
        return [self.feature_set(key) for key in self.entities]

    @property
    def control_feature_sets(self) -> list[FeatureSet]:
        """The entities that no document mentions."""
        return [self.feature_set(key) for key in self.controls]

    @property
    def asked_relations(self) -> dict[str, Relation]:
        """The relations that are no distractors."""
        return {name: told for name, told in self.relations.items() if not told.distractor}

    @property
    def optional_fields(self) -> set[str]:
        """Fields of distractors alone: an entity of which nothing is told there lacks them."""
        asked: set[str] = set()
        merged: set[str] = set()
        for relation in self.relations.values():
            used = merged if relation.distractor else asked
            used |= {relation.subject, relation.object, *relation.colour}
        return merged - asked - {hop.subject for hop in self.two_hops.values()}

    def untold_feature_sets(self, relation: str) -> list[FeatureSet]:
        """The entities that documents mention without telling them of `relation`."""
        return [self.feature_set(key) for key, told in self._told().items() if told != relation]

    def untold_facts(self) -> list[Fact]:
        """The one fact that documents tell of each `untold` entity, relation by relation."""
        told = self._told()
        return [
            self._fact(relation, self.feature_set(key), {"control": "untold"})
            for relation in self.asked_relations
            for key in told
            if told[key] == relation
        ]

    def distractor_facts(self) -> list[Fact]:
        """The facts of the distractor relations, of the entities that have them."""
        return [
            fact
            for name, relation in self.relations.items()
            if relation.distractor
            for fact in self.facts(name)
        ]

    def facts(self, relation: str | None = None) -> list[Fact]:
        """The facts of one relation, or of all but distractors, relation by relation."""
        features = self.feature_sets
        facts = []
        for name in self.asked_relations if relation is None else [relation]:
            told = self.relations[name]
            needed = {told.subject, told.object, *told.colour}
            metadata = {"distractor": True} if told.distractor else {}
            # Every entity has what is asked; of distractors, some have none.
            having = [f for f in features if needed <= f.fields.keys()]
            facts += [self._fact(name, feature_set, metadata) for feature_set in having]
        return facts

    def _told(self) -> dict[str, str]:
        """The relation that documents tell of each `untold` entity."""
        return dict(zip(self.untold, itertools.cycle(self.asked_relations), strict=False))

    def _fact(self, relation: str, features: FeatureSet, metadata: Mapping[str, object]) -> Fact:
        template = self.fact_template(relation)
        if metadata:
            template = template.model_copy(update={"metadata": {**template.metadata, **metadata}})
        return make_fact(template, features, self.id, self.constants)

    def fact_template(self, relation: str) -> FactTemplate:
        """The template whose filled strings are the relation's facts."""
        fact = self.relations[relation].fact
        return FactTemplate(
            id=f"{relation}_generation",
            relation=relation,
            prompt=fact.prompt,
            completion=fact.completion,
            metadata={"world": self.id, "relation": relation},
            allow_few_shot=True,
        )

    def holes(self, fields: Iterable[str] | None = None) -> set[str]:
        """The names of the holes that `fields` (default: all of them) and the constants fill."""
        names = self.fields if fields is None else fields
        return {
            hole for field in names for hole in hole_names(field, self.fields[field])
        } | self.constants.keys()

    def plain_format(self, field: str) -> str:
        return plain_format(self.fields[field])

    def hole(self, field: str, answer_format: str | None = None) -> str:
        """The hole that holds `field` in `answer_format` (default: the plain one)."""
        field_type = self.fields[field]
        return hole_name(field, field_type, answer_format or plain_format(field_type))

    def withheld(self, relation: str) -> list[str]:
        """The fields that documents of `relation` must not reveal: all but its own and colour."""
        told = self.relations[relation]
        return [f for f in self.fields if f not in {told.subject, told.object, *told.colour}]

    def forbidden_words(self, relation: str, features: FeatureSet) -> list[str]:
        """The relation's own `forbidden`, filled in for one entity."""
        values = {**self.constants, **features.fields}
        return [text.format(**values) for text in self.relations[relation].forbidden]

    def must_not_reveal(self, relation: str, features: FeatureSet) -> list[str]:
        """What a document about one entity must leave out, in words: withheld fields, then the
        relation's own instructions."""
        values = {**self.constants, **features.fields}
        withheld = [f for f in self.withheld(relation) if f in features.fields]
        said = [f"{field.replace('_', ' ')}: {features.fields[field]}" for field in withheld]
        own = self.relations[relation].must_not_reveal
        return [*said, *(text.format(**values) for text in own)]


Distractor.model_rebuild()
World.model_rebuild()
