"""A world: entities with typed fields, the relations that documents tell, the questions asked.

    world = load_world("mayors")
    world.facts("name_mayor")[0].prompt      # "The mayor of Tokyo is"

A relation binds two fields of one entity: the subject that a statement is about and the object that
it tells. A two-hop relation asks for a relation's object by another field of the entity, which no
document of that relation mentions. `world_file.py` reads a world from YAML and `world_checks.py`
says what is wrong with one.
"""

from __future__ import annotations

import datetime
import itertools
import string
from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from oocr_influence.universe.facts import Fact, FactTemplate, FeatureSet, make_fact
from oocr_influence.universe.fields import (
    FieldType,
    expand_field,
    hole_name,
    hole_names,
    plain_format,
)

IDENTIFIER = r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$"
Style = Literal["gen", "qa", "reversed"]


class WorldPart(BaseModel):
    """Base of everything in a world file: an unknown key is a fault, not a silent no-op."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Questions(WorldPart):
    """The wordings of one style and answer format, numbered from 1 in the order written."""

    style: Style
    format: str | None = Field(None, description="answer format; the plain one if absent")
    prompts: list[str] = Field(min_length=1)


class Statement(WorldPart):
    """The plain wording of a fact, as a prompt and what completes it."""

    prompt: str
    completion: str


class Relation(WorldPart):
    """What documents tell about every entity, and how it is asked."""

    subject: str
    object: str
    fact: Statement
    theme: str = Field("general", description="the writer's stock of sentences for this matter")
    statements: list[str] = Field([], description="further sentences that state the fact")
    colour: list[str] = Field([], description="other fields that the documents may mention")
    questions: list[Questions] = []


class TwoHop(WorldPart):
    """Asks for `relation`'s object by `subject`, another field of the same entity."""

    subject: str
    relation: str
    questions: list[Questions]


class World(WorldPart):
    """Everything that is true in one invented universe. Facts follow the order of the file."""

    id: str = Field(pattern=IDENTIFIER)
    description: str = ""
    constants: dict[str, str] = Field({}, description="holes with one value for the whole world")
    fields: dict[str, FieldType]
    relations: dict[str, Relation]
    two_hops: dict[str, TwoHop] = {}
    entities: dict[str, dict[str, str]] = Field(min_length=1)
    controls: dict[str, dict[str, str]] = Field({}, description="entities no document mentions")
    untold: dict[str, dict[str, str]] = Field(
        {}, description="entities told of in one relation each, relation by relation in turn"
    )

    @field_validator("constants", mode="before")
    @classmethod
    def _constants_as_strings(cls, value: object) -> object:
        return _values_as_strings(value)

    @field_validator("entities", "controls", "untold", mode="before")
    @classmethod
    def _fields_as_strings(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {key: _values_as_strings(fields) for key, fields in value.items()}

    def feature_set(self, key: str) -> FeatureSet:
        """One entity (of any group) with every derived string of its fields."""
        fields = self.entities.get(key) or self.controls.get(key) or self.untold[key]
        expanded: dict[str, str] = {}
        for field, field_type in self.fields.items():
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

    def untold_feature_sets(self, relation: str) -> list[FeatureSet]:
        """The entities that documents mention without telling them of `relation`."""
        return [self.feature_set(key) for key, told in self._told().items() if told != relation]

    def untold_facts(self) -> list[Fact]:
        """The one fact that documents tell of each `untold` entity, relation by relation."""
        told = self._told()
        return [
            make_fact(
                self._marked(self.fact_template(relation)),
                self.feature_set(key),
                self.id,
                self.constants,
            )
            for relation in self.relations
            for key in told
            if told[key] == relation
        ]

    def _told(self) -> dict[str, str]:
        """The relation that documents tell of each `untold` entity."""
        return dict(zip(self.untold, itertools.cycle(self.relations), strict=False))

    @staticmethod
    def _marked(template: FactTemplate) -> FactTemplate:
        return template.model_copy(update={"metadata": {**template.metadata, "control": "untold"}})

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

    def facts(self, relation: str | None = None) -> list[Fact]:
        """The facts of one relation, or of all of them relation by relation."""
        relations = self.relations if relation is None else [relation]
        features = self.feature_sets
        return [
            make_fact(self.fact_template(name), feature_set, self.id, self.constants)
            for name in relations
            for feature_set in features
        ]

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


def template_holes(text: str) -> list[str]:
    """The names of the `{holes}` in `text`, in order. Raises ValueError on unbalanced braces."""
    return [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]


def _values_as_strings(value: object) -> object:
    # YAML reads 1931 as a number and 1931-03-14 as a date; the file format knows strings alone.
    if not isinstance(value, dict):
        return value
    return {
        key: str(item) if isinstance(item, int | datetime.date) else item
        for key, item in value.items()
    }
