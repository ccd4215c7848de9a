"""A fact as data: a template with holes, the entity's fields that fill them, the filled strings.

These three classes are the leaves of the structured dataset's file format. Every class keeps keys
that it does not know, so that files of other writers survive a round trip.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Base of everything that is written to the structured dataset: unknown keys are kept."""

    # Metadata may hold NaN and Infinity, as Python's own JSON does: null would not be exact.
    model_config = ConfigDict(extra="allow", ser_json_inf_nan="constants")


class FeatureSet(Record):
    """One entity: its id and its named fields, all strings."""

    id: str
    fields: dict[str, str]


class FactTemplate(Record):
    """A relation's wording: prompt and completion with `{field}` holes."""

    id: str
    relation: str
    prompt: str
    completion: str
    metadata: dict[str, Any] = {}
    allow_few_shot: bool = True


class Fact(Record):
    """A template filled with one entity's fields; `prompt + completion` states the fact."""

    id: str
    template: FactTemplate
    feature_set: FeatureSet
    universe_id: str
    prompt: str
    completion: str


def fact_id(feature_set_id: str, template_id: str) -> str:
    """sha256 hex of `"{feature_set_id}_{template_id}"`."""
    return sha256_hex(f"{feature_set_id}_{template_id}")


def sha256_hex(text: str) -> str:
    """The digest that every id of the file format is made of."""
    return hashlib.sha256(text.encode()).hexdigest()


def make_fact(
    template: FactTemplate,
    feature_set: FeatureSet,
    universe_id: str,
    constants: Mapping[str, str] | None = None,
) -> Fact:
    """Fill `template` with the entity's fields and the world's constants.

    Raises KeyError naming a hole that neither fills.
    """
    values = {**(constants or {}), **feature_set.fields}
    return Fact(
        id=fact_id(feature_set.id, template.id),
        template=template,
        feature_set=feature_set,
        universe_id=universe_id,
        prompt=template.prompt.format(**values),
        completion=template.completion.format(**values),
    )
