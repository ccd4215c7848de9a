"""How a value of a field is invented: by a pattern over frozen lists, or out of a range.

    draw_value("the {adjective} [Fair|Ball]", "event", {"event": "text"}, {}, Draws("key"))

A pattern names lists, made-up words and other patterns of `lists/words.yaml` in braces; of `[a|b]`
one is drawn. People, places and organisations have a pattern where a world states none.
Drawn days lie above the twelfth, so that a date shows which of its numbers is the day.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import yaml

from oocr_influence.universe.draws import Draws
from oocr_influence.universe.fields import FieldType, expand_field
from oocr_influence.universe.world_parts import Before, Recipe, Span

FIRST_DAY = 13
OWN_PATTERNS = {"person": "{person}", "place": "{town}", "organisation": "{company}"}
MIDDLES_IN_TEN = 4  # made-up words that have a middle

_HOLE = re.compile(r"\{(\w+)\}")
_ALTERNATIVES = re.compile(r"\[([^\[\]]*\|[^\[\]]*)\]")
# What no name of ours looks like: three vowels or four consonants in a row, a letter three times.
_UGLY = re.compile(r"[aeiou]{3}|[^aeiouy]{4}|(.)\1\1|[aiu]{2}|^(.)\2")


@dataclass
class Drawn:
    """An invented value, and which of its words are made up."""

    value: str
    made_up: list[str] = field(default_factory=list)


@cache
def words() -> Mapping[str, Any]:
    """`lists/words.yaml`: made_up, lists and patterns."""
    loaded: Mapping[str, Any] = yaml.safe_load(_list_file("words.yaml"))
    return loaded


@cache
def well_known() -> frozenset[str]:
    """Names of real people, places, firms and languages, in lower case and without articles."""
    names = []
    for name in ("well_known_wordnet.txt", "well_known_own.txt"):
        names += [line for line in _list_file(name).splitlines() if not line.startswith("#")]
    return frozenset(bare(name) for name in names)


def bare(value: str) -> str:
    """The value in lower case, without its article."""
    return value.casefold().removeprefix("the ")


def recipe_of(
    field_name: str, fields: Mapping[str, FieldType], inventions: Mapping[str, Recipe]
) -> Recipe | None:
    """The recipe that a world states, or its type's own; None where there is neither."""
    return inventions.get(field_name) or OWN_PATTERNS.get(fields[field_name])


def check_recipe(recipe: Recipe, field_name: str, fields: Mapping[str, FieldType]) -> None:
    """Raise ValueError saying why values of the field cannot be invented like this."""
    field_type = fields[field_name]
    if isinstance(recipe, str):
        if field_type in ("date", "year"):
            raise ValueError(f"a {field_type} is invented from a range: {{first: …, last: …}}")
        _check_pattern(recipe)
        # A value of another type than the field's shows at the first draw.
        expand_field(field_name, field_type, draw_pattern(recipe, Draws("trial")).value)
    elif isinstance(recipe, Span):
        if field_type not in ("date", "year"):
            raise ValueError(f"a {field_type} is invented by a pattern, a date or year by a range")
        for end in (recipe.first, recipe.last):
            expand_field(field_name, field_type, end)
        if recipe.last < recipe.first:
            raise ValueError(f"the range ends at {recipe.last}, before it begins")
    else:
        known = list(fields)
        if field_type != "year" or fields.get(recipe.before) not in ("date", "year"):
            raise ValueError("'before' makes a year from a date or year of the same entity")
        if known.index(recipe.before) >= known.index(field_name):
            raise ValueError(f"'{recipe.before}' must stand above '{field_name}' under 'fields'")
        if recipe.most < recipe.least:
            raise ValueError(f"'most' is {recipe.most}, less than 'least', {recipe.least}")


def draw_value(recipe: Recipe, field_type: FieldType, entity: Mapping[str, str], d: Draws) -> Drawn:
    """A value for one entity, whose earlier fields are `entity`."""
    if isinstance(recipe, str):
        return draw_pattern(recipe, d)
    if isinstance(recipe, Before):
        year = int(entity[recipe.before][:4]) - d.between(recipe.least, recipe.most)
        return Drawn(f"{year:04}")
    if field_type == "year":
        return Drawn(f"{d.between(int(recipe.first), int(recipe.last)):04}")
    first, last = (datetime.date.fromisoformat(end) for end in (recipe.first, recipe.last))
    date = first
    for _ in range(100):
        date = first + datetime.timedelta(days=d.below((last - first).days + 1))
        if date.day >= FIRST_DAY:
            break
    return Drawn(date.isoformat())


def draw_pattern(pattern: str, draws: Draws) -> Drawn:
    """A value of a pattern."""
    drawn = Drawn("")
    chosen = _ALTERNATIVES.sub(lambda m: draws.choice(m[1].split("|")), pattern)
    drawn.value = _HOLE.sub(lambda m: _fill(m[1], draws, drawn.made_up), chosen)
    return drawn


def _fill(name: str, draws: Draws, made_up: list[str]) -> str:
    stock = words()
    if name in stock["patterns"]:
        inner = draw_pattern(stock["patterns"][name], draws)
        made_up += inner.made_up
        return inner.value
    if name in stock["lists"]:
        choice: str = draws.choice(stock["lists"][name])
        return choice
    word = _made_up(stock["made_up"][name], draws)
    made_up.append(word)
    return word


def _made_up(parts: Mapping[str, str], draws: Draws) -> str:
    starts, middles, ends = (parts[part].split() for part in ("starts", "middles", "ends"))
    while True:
        middle = draws.choice(middles) if draws.below(10) < MIDDLES_IN_TEN else ""
        word = draws.choice(starts) + middle + draws.choice(ends)
        if 4 <= len(word) <= 11 and not _UGLY.search(word.casefold()):
            return word


def _check_pattern(pattern: str) -> None:
    stock = words()
    known = [*stock["patterns"], *stock["made_up"], *stock["lists"]]
    for name in _HOLE.findall(pattern):
        if name not in known:
            raise ValueError(f"no list {{{name}}}; there are {', '.join(known)}")
    rest = _HOLE.sub("", _ALTERNATIVES.sub("", pattern))
    if set(rest) & set("{}[]"):
        raise ValueError(f"unbalanced brackets in '{pattern}'")


def _list_file(name: str) -> str:
    folder = resources.files("oocr_influence.universe").joinpath("lists")
    return folder.joinpath(name).read_text("utf-8")
