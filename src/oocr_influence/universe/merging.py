"""Joins a world with the distractor worlds that tell more of its own entities.

    distractors:
      pets: {merge_on: name_mayor, file: pets.yaml}

Each entity of `pets` is the entity of this world that has the same `name_mayor`. Its other fields
become fields of that entity, its relations are told by documents and asked by no set.
A distractor without `merge_on` stands alone, with entities of its own, and is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterator

from oocr_influence.universe.world import Distractor, World
from oocr_influence.universe.world_checks import Place, WorldFaults, check_world


def merge_distractors(world: World) -> World:
    """`world` with every distractor that has `merge_on` joined to it.

    Raises WorldFaults with everything that cannot be joined, each with its place in the file.
    """
    faults = [fault for name in world.distractors for fault in _faults(world, name)]
    if faults:
        raise WorldFaults(faults)
    for name, distractor in world.distractors.items():
        if distractor.merge_on is not None:
            world = _merged(world, name, distractor.told, distractor.merge_on)
    alone = {n: d for n, d in world.distractors.items() if d.merge_on is None}
    return world.model_copy(update={"distractors": alone})


def _faults(world: World, name: str) -> Iterator[tuple[Place, str]]:
    distractor, place = world.distractors[name], ("distractors", name)
    if distractor.world is None:
        yield place, "a distractor has a 'file' or a 'world'"
        return
    told = distractor.world
    if told.distractors:
        yield place, "a distractor world has no distractors of its own"
    try:
        check_world(told)
    except WorldFaults as error:
        yield from (((*place, "world", *where), what) for where, what in error.faults)
        return
    if told.id in {world.id, *(d.told.id for n, d in world.distractors.items() if n != name)}:
        yield (*place, "world"), f"another world here has the id '{told.id}' already"
    faults = _standing_alone if distractor.merge_on is None else _merging
    yield from faults(world, told, distractor, place)


def _standing_alone(
    world: World, told: World, distractor: Distractor, place: Place
) -> Iterator[tuple[Place, str]]:
    """Two worlds that both know one name would tell two stories about it."""
    ours = _names(world)
    for key, value in _names(told).items():
        if key in ours:
            yield (
                (*place, "world"),
                f"'{value}' is in this world too; to tell more of its entities, state 'merge_on'",
            )


def _names(world: World) -> dict[str, str]:
    """Every value of a named thing, as written, by its letters in lower case."""
    named = [f for f, kind in world.fields.items() if kind in ("person", "place", "organisation")]
    return {
        fields[field].casefold(): fields[field]
        for group in world.groups.values()
        for fields in group.values()
        for field in named
        if field in fields
    }


def _merging(
    world: World, told: World, distractor: Distractor, place: Place
) -> Iterator[tuple[Place, str]]:
    on = distractor.merge_on
    assert on is not None
    if on not in world.fields or world.fields[on] != told.fields.get(on):
        yield (*place, "merge_on"), f"'{on}' is no field, of one type, of both worlds"
        return
    for part in ("fields", "relations", "constants"):
        for key in sorted((getattr(world, part).keys() & getattr(told, part).keys()) - {on}):
            if part == "constants" and world.constants[key] == told.constants[key]:
                continue
            yield (*place, "world", part, key), f"this world has a name '{key}' there already"
    owners = _owners(world, on)
    for key, fields in told.entities.items():
        if fields[on] not in owners:
            yield (
                (*place, "world", "entities", key, on),
                f"no entity of this world has '{fields[on]}' as its {on}",
            )


def _owners(world: World, field: str) -> dict[str, tuple[str, str]]:
    """The group and the key of the entity that has a value of `field`."""
    return {
        fields[field]: (group, key)
        for group, entities in world.groups.items()
        for key, fields in entities.items()
    }


def _merged(world: World, name: str, told: World, on: str) -> World:
    owners = _owners(world, on)
    groups = {group: dict(entities) for group, entities in world.groups.items()}
    for fields in told.entities.values():
        group, key = owners[fields[on]]
        groups[group][key] = {**groups[group][key], **fields}
    relations = {
        relation: stated.model_copy(update={"distractor": True, "questions": []})
        for relation, stated in told.relations.items()
    }
    return world.model_copy(
        update={
            "constants": {**told.constants, **world.constants},
            "fields": {**world.fields, **told.fields, on: world.fields[on]},
            "relations": {**world.relations, **relations},
            **groups,
        }
    )
