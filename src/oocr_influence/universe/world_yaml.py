"""Writing a world as YAML that a person goes on with: commented, an entity a line.

text = world_yaml(world)
parse_world(text) == world
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from typing import Any

import yaml

from oocr_influence.universe.world import World
from oocr_influence.universe.world_file import WITHOUT_NUMBERS

# What a reader of a new file needs to know, above each part of it.
COMMENTS = {
    "constants": "Holes with one value for the whole world.",
    "fields": "What is known of an entity. person: 'Ada Brook'; date: 1931-03-14; year: 1931;\n"
    "place, organisation and text: the words as a sentence would use them.",
    "relations": "What documents tell: the object of the subject. Under 'questions', what is\n"
    "asked: every wording without and with answers of other entities before it.",
    "two_hops": "Asks for a relation's object by another field of the entity.",
    "distractors": "Worlds that documents tell of and no set asks about.",
    "inventions": "How further values are invented (oocr generate --entities N).",
    "entities": "Documents tell every relation of each of these.",
    "controls": "No document mentions these.",
    "untold": "Each of these is told of in one relation alone, and asked in the others.",
}
GROUPS = ("entities", "controls", "untold")
SPACED = ("relations", "two_hops", "distractors")  # an empty line between two of these
WIDTH = 10_000  # a wording is never broken
HEAD = """\
# {id}: {description}
# `oocr world check` checks it, `oocr world show` shows it, docs/worlds.md explains all of it.
"""


def world_yaml(world: World, head: str | None = None) -> str:
    """The whole world; `head` (comment lines) stands above it."""
    parts = [head or HEAD.format(id=world.id, description=world.description or "a world")]
    for key, value in world.model_dump(mode="json", exclude_unset=True).items():
        if value in ({}, [], None):
            continue
        comment = COMMENTS.get(key)
        if comment is not None:
            parts.append("\n" + "".join(f"# {line}\n" for line in comment.split("\n")))
        if key in GROUPS:
            parts.append(_entities(key, value))
        elif key in SPACED:
            parts.append(
                f"{key}:\n" + "\n".join(_inner({name: one}) for name, one in value.items())
            )
        else:
            parts.append(_plain({key: value}))
    return "".join(parts)


def world_schema() -> dict[str, Any]:
    """The JSON Schema of a world's file."""
    schema = World.model_json_schema()
    title = "A world of oocr-influence: entities, relations, questions"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": title}


def schema_text() -> str:
    """The schema as it is published: docs/world.schema.json."""
    return json.dumps(world_schema(), indent=2, ensure_ascii=False) + "\n"


def _plain(value: Any) -> str:
    text: str = yaml.dump(value, Dumper=_Readable, sort_keys=False, allow_unicode=True, width=WIDTH)
    return text


def _inner(value: Any) -> str:
    return textwrap.indent(_plain(value), "  ")


def _entities(key: str, entities: Mapping[str, Mapping[str, str]]) -> str:
    """An entity a line, as the built-in worlds have them."""
    lines = [f"{key}:\n"]
    for name, fields in entities.items():
        # On one line, mappings within mappings are written as people write them.
        flow = yaml.dump(
            {name: dict(fields)},
            Dumper=_OfStrings,
            sort_keys=False,
            allow_unicode=True,
            width=WIDTH,
            default_flow_style=True,
        )
        lines.append(f"  {flow.strip()[1:-1]}\n")
    return "".join(lines)


class _OfStrings(yaml.SafeDumper):
    """Dates and years without quotation marks, as they are read."""

    yaml_implicit_resolvers = WITHOUT_NUMBERS


class _Readable(yaml.SafeDumper):
    """Lists indented under their key, lists of words on one line, wordings in quotation marks."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        return super().increase_indent(flow, False)


def _string(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = '"' if "{" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _list(dumper: yaml.SafeDumper, value: list[Any]) -> yaml.SequenceNode:
    of_words = all(isinstance(item, str) and " " not in item for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=of_words)


_Readable.add_representer(str, _string)
_Readable.add_representer(list, _list)
