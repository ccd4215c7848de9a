"""The parts that a world's file is made of, each key with what it means.

`world.py` puts them together; `oocr world schema` prints them all as a JSON Schema. Keys that came
after the first worlds are left out of what is dumped where a file does not use them, so that a
world's digest does not change with the project.
"""

from __future__ import annotations

import datetime
import operator
import string
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from oocr_influence.universe.fields import FieldType, format_words, plain_format

IDENTIFIER = r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$"
ANSWER_FORMAT = "answer_format"  # the hole that says which format a question wants
Style = Literal["gen", "qa", "reversed"]


def as_string(value: object) -> object:
    """YAML's numbers and dates as the strings that they were written as."""
    # YAML reads 1931 as a number and 1931-03-14 as a date; the file format knows strings alone.
    is_plain = isinstance(value, int | datetime.date) and not isinstance(value, bool)
    return str(value) if is_plain else value


Value = Annotated[str, BeforeValidator(as_string), WithJsonSchema({"type": ["string", "integer"]})]


class WorldPart(BaseModel):
    """Base of everything in a world file: an unknown key is a fault, not a silent no-op."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Questions(WorldPart):
    """The wordings of one style, numbered from 1 in the order written."""

    style: Style = Field(
        description="gen: a sentence to complete; qa: a question; reversed: asks for the subject"
    )
    format: str | None = Field(None, description="answer format; the plain one if absent")
    formats: list[str] = Field(
        [],
        description="several answer formats, each asked in all the wordings; the hole "
        "{answer_format} says in a wording which one is wanted",
        exclude_if=operator.not_,
    )
    few_shot: bool = Field(
        True,
        description="whether sets with answers of other entities before the question are made too",
        exclude_if=bool,
    )
    prompts: list[str] = Field(min_length=1)

    def by_format(self, field_type: FieldType) -> dict[str, list[str]]:
        """The wordings of each answer format, {answer_format} filled in."""
        asked = self.formats or [self.format or plain_format(field_type)]
        return {
            name: [
                prompt.replace(f"{{{ANSWER_FORMAT}}}", format_words(field_type, name))
                for prompt in self.prompts
            ]
            for name in asked
        }


class Statement(WorldPart):
    """The plain wording of a fact, as a prompt and what completes it."""

    prompt: str
    completion: str


class Relation(WorldPart):
    """What documents tell about every entity, and how it is asked."""

    subject: str = Field(description="the field that statements are about")
    object: str = Field(description="the field that they tell")
    fact: Statement
    theme: str = Field("general", description="the writer's stock of sentences for this matter")
    statements: list[str] = Field([], description="further sentences that state the fact")
    colour: list[str] = Field([], description="other fields that the documents may mention")
    forbidden: list[str] = Field(
        [],
        description="words that no document of the relation may contain, beside the values of all "
        "other fields and entities, which none may anyway; any hole of the entity's fields",
        exclude_if=operator.not_,
    )
    must_not_reveal: list[str] = Field(
        [],
        description="the same in words, for a language model that writes documents; any hole",
        exclude_if=operator.not_,
    )
    distractor: bool = Field(
        False,
        description="documents tell it, and no set asks for it",
        exclude_if=operator.not_,
    )
    questions: list[Questions] = []


class TwoHop(WorldPart):
    """Asks for `relation`'s object by `subject`, another field of the same entity."""

    subject: str
    relation: str
    questions: list[Questions]
    first_hop: list[Questions] = Field(
        [],
        description="asks for the relation's subject by the same field: does the model know what "
        "joins the two facts?",
        exclude_if=operator.not_,
    )


class Span(WorldPart):
    """A date or a year is drawn between two, both included; of dates, days above the twelfth."""

    first: Value
    last: Value


class Before(WorldPart):
    """A year is drawn so many years before a date or year of the same entity."""

    before: str = Field(description="the field of the date or year")
    least: int = Field(ge=0, description="years")
    most: int = Field(ge=0, description="years")


# How values of a field are invented: a pattern (see invention.py), or a range.
Recipe = str | Span | Before


def template_holes(text: str) -> list[str]:
    """The names of the `{holes}` in `text`, in order. Raises ValueError on unbalanced braces."""
    return [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
