"""Worlds of any size: entities invented from a seed, beside those that a person wrote.

    world = with_invented(load_world("companies"), entities=100, seed=1)

The same seed gives the same entities on every machine, for as long as the frozen lists are the
same, and a larger world begins with the entities of a smaller one. No two entities share a made-up
word or a value (but for years that nobody asks for, where there are too few), none is hidden inside
another, and none is a well-known name (`lists/README.md`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from oocr_influence.universe.draws import Draws
from oocr_influence.universe.recipes import (
    Drawn,
    bare,
    draw_value,
    recipe_of,
    well_known,
)
from oocr_influence.universe.world import World

ATTEMPTS = 200
YEAR_ATTEMPTS = 20


class InventionError(ValueError):
    """A world whose entities cannot be invented as asked; the message says what to change."""


def with_invented(world: World, *, entities: int, seed: int, keep: bool = True) -> World:
    """`world` with `entities` entities: its own first (with `keep`), then invented ones.

    There are as many controls, and so many `untold` entities that each relation withholds from as
    many again, where the world has any of these. Two-hop questions whose joining fact no document
    tells are left out: nobody knows the country of an invented city. A world that has as many
    already is returned as it is.

    Raises InventionError where a field cannot be invented, or not as often.
    """
    wanted = {"entities": entities}
    if world.controls:
        wanted["controls"] = entities
    if world.untold:
        wanted["untold"] = untold_entities(entities, len(world.asked_relations))
    own = {group: world.groups[group] if keep else {} for group in wanted}
    missing = {group: n - len(own[group]) for group, n in wanted.items()}
    if max(missing.values()) <= 0:
        return world
    for field in world.fields.keys() - world.optional_fields:
        if recipe_of(field, world.fields, world.inventions) is None:
            raise InventionError(
                f"world '{world.id}' does not say how its {field} is invented; "
                f"state inventions.{field} in its file"
            )
    inventor = _Inventor(world, seed)
    groups = {group: {**own[group], **inventor.entities(group, missing[group])} for group in wanted}
    hops = {n: hop for n, hop in world.two_hops.items() if n not in untold_hops(world)}
    return world.model_copy(update={**groups, "two_hops": hops})


def untold_entities(entities: int, relations: int) -> int:
    """How many are needed if each is told of in one relation and `entities` are left to ask."""
    if relations < 2:
        return 0
    return -(-entities // (relations - 1)) * relations


def untold_hops(world: World) -> list[str]:
    """The two-hop relations whose joining fact no document of the world tells."""
    told = [{r.subject, r.object, *r.colour} for r in world.relations.values()]
    return [
        name
        for name, hop in world.two_hops.items()
        if not any({hop.subject, world.relations[hop.relation].subject} <= some for some in told)
    ]


class _Inventor:
    """Invents entities of one world and remembers what is taken."""

    def __init__(self, world: World, seed: int) -> None:
        self._world, self._seed = world, seed
        self._values: set[str] = set()
        self._inside: set[str] = set()  # every run of words within a value
        self._words: set[str] = set()  # made-up words, and the words of people's names
        self._keys = {key for group in world.groups.values() for key in group}
        asked = world.asked_relations.values()
        self._asked = {field for r in asked for field in (r.subject, r.object)}
        self._asked |= {hop.subject for hop in world.two_hops.values()}
        for group in world.groups.values():
            for entity in group.values():
                for field, value in entity.items():
                    words = value.split() if world.fields[field] == "person" else []
                    self._take(Drawn(value, words))

    def entities(self, group: str, count: int) -> dict[str, dict[str, str]]:
        """`count` further entities, by key."""
        made = {}
        for i in range(count):
            entity: dict[str, str] = {}
            for field in self._world.fields:
                if field not in self._world.optional_fields:
                    entity[field] = self._value(group, i, field, entity)
            made[self._key(next(iter(entity.values())))] = entity
        return made

    def _value(self, group: str, i: int, field: str, entity: Mapping[str, str]) -> str:
        world = self._world
        recipe = recipe_of(field, world.fields, world.inventions)
        assert recipe is not None
        for attempt in range(ATTEMPTS):
            draws = Draws("invented", self._seed, group, i, field, attempt)
            drawn = draw_value(recipe, world.fields[field], entity, draws)
            # There are more entities than years: what nobody asks for may come again.
            may_repeat = world.fields[field] == "year" and field not in self._asked
            if self._is_free(drawn) or (may_repeat and attempt >= YEAR_ATTEMPTS):
                self._take(drawn)
                return drawn.value
        raise InventionError(
            f"world '{world.id}': {ATTEMPTS} attempts gave no new {field} for entity {i} of "
            f"'{group}'; ask for fewer entities or give inventions.{field} more to draw from"
        )

    def _is_free(self, drawn: Drawn) -> bool:
        value = bare(drawn.value)
        made_up = {word.casefold() for word in drawn.made_up}
        return (
            len(made_up) == len(drawn.made_up)
            and made_up.isdisjoint(self._words)
            and made_up.isdisjoint(well_known())
            and value not in well_known()
            and value not in self._inside
            and self._values.isdisjoint(_runs(value))
        )

    def _take(self, drawn: Drawn) -> None:
        value = bare(drawn.value)
        self._values.add(value)
        self._inside.update(_runs(value))
        self._words.update(word.casefold() for word in drawn.made_up)
        # A person's first or last name alone names the person.
        self._values.update(word.casefold() for word in drawn.made_up if " " in value)

    def _key(self, value: str) -> str:
        stem = "_".join(re.findall(r"[a-z0-9]+", bare(value))) or "entity"
        stem = stem if stem[0].isalpha() else f"e_{stem}"
        key, n = stem, 2
        while key in self._keys:
            key, n = f"{stem}_{n}", n + 1
        self._keys.add(key)
        return key


def _runs(value: str) -> list[str]:
    """Every run of whole words in the value, the value itself among them."""
    words = value.split()
    return [" ".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1)]
