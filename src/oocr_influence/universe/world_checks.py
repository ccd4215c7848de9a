"""What makes a world usable: every reference resolves, every question has one answer.

All faults are gathered before any is raised, each with its place in the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from oocr_influence.universe.fields import FORMATS, expand_field, hole_names
from oocr_influence.universe.recipes import check_recipe
from oocr_influence.universe.world import World
from oocr_influence.universe.world_parts import (
    ANSWER_FORMAT,
    IDENTIFIER,
    Questions,
    template_holes,
)

Place = tuple[str | int, ...]
_SET_NAMES = re.compile(r"_eval(_|$)|_control(_untold)?$|_first_hop$")
GROUPS = ("entities", "controls", "untold")


class WorldFaults(ValueError):
    """Everything that is wrong with a world, each fault with its place in the file."""

    def __init__(self, faults: list[tuple[Place, str]]) -> None:
        super().__init__(
            "; ".join(f"{'.'.join(map(str, place))}: {what}" for place, what in faults)
        )
        self.faults = faults


def check_world(world: World) -> None:
    """Raise WorldFaults with everything that is wrong in `world`."""
    faults = [
        *_identifiers(world),
        *_entities(world),
        *_relations(world),
        *_two_hops(world),
        *_inventions(world),
    ]
    # Questions are checked only in a world whose parts resolve: else each fault shows up twice.
    if not faults:
        faults = [*_questions(world), *_distinct_answers(world)]
    if faults:
        raise WorldFaults(faults)


def _identifiers(world: World) -> Iterator[tuple[Place, str]]:
    parts = ("fields", "constants", "relations", "two_hops", "distractors", *GROUPS)
    for part in parts:
        for name in getattr(world, part):
            if not re.match(IDENTIFIER, name):
                yield (part, name), "a name here is lower-case letters, digits and single '_'"
    holes: dict[str, str] = dict.fromkeys(world.constants, "a constant")
    holes[ANSWER_FORMAT] = "what a question wants"
    for field, field_type in world.fields.items():
        for hole in hole_names(field, field_type):
            if hole in holes:
                yield ("fields", field), f"its hole {{{hole}}} is already {holes[hole]}"
            holes[hole] = f"field '{field}'"
    yield from _names_of_sets(world)
    taken: set[str] = set()
    for part in GROUPS:
        for name in getattr(world, part).keys() & taken:
            yield (part, name), "an entity has this name already"
        taken |= getattr(world, part).keys()


def _names_of_sets(world: World) -> Iterator[tuple[Place, str]]:
    for name in world.relations.keys() & world.two_hops.keys():
        yield ("two_hops", name), "a relation has this name already"
    for part in ("relations", "two_hops"):
        for name in getattr(world, part):
            if _SET_NAMES.search(name):
                yield (part, name), "'_eval', '_control' and '_first_hop' are parts of sets' names"


def _entities(world: World) -> Iterator[tuple[Place, str]]:
    optional = world.optional_fields
    for part in GROUPS:
        for key, fields in getattr(world, part).items():
            for field in sorted(world.fields.keys() - fields.keys() - optional):
                yield (part, key), f"missing field '{field}'"
            for field in fields.keys() - world.fields.keys():
                yield (part, key, field), _unknown(field, world.fields)
            for field in world.fields.keys() & fields.keys():
                try:
                    expand_field(field, world.fields[field], fields[field])
                except ValueError as error:
                    yield (part, key, field), str(error)


def _relations(world: World) -> Iterator[tuple[Place, str]]:
    for name, relation in world.relations.items():
        place: Place = ("relations", name)
        named = {"subject": [relation.subject], "object": [relation.object]}
        unknown = [
            ((*place, key), _unknown(field, world.fields))
            for key, fields in (named | {"colour": relation.colour}).items()
            for field in fields
            if field not in world.fields
        ]
        yield from unknown
        if unknown:
            continue
        if relation.distractor and relation.questions:
            yield (*place, "questions"), "a distractor is told, and no set asks for it"
        every = world.holes()
        for key in ("forbidden", "must_not_reveal"):
            for i, text in enumerate(getattr(relation, key)):
                yield from _bad_holes((*place, key, i), text, every)
        if relation.subject == relation.object:
            yield (*place, "object"), "the object is the subject itself"
        known = world.holes([relation.subject, relation.object, *relation.colour])
        texts = {
            ("fact", "prompt"): relation.fact.prompt,
            ("fact", "completion"): relation.fact.completion,
        } | {("statements", i): text for i, text in enumerate(relation.statements)}
        for where, text in texts.items():
            yield from _bad_holes((*place, *where), text, known)
        if not relation.fact.completion.startswith(" "):
            yield (*place, "fact", "completion"), "a completion starts with a space"
        for i, text in enumerate(relation.statements):
            try:
                holes = template_holes(text)
            except ValueError:
                continue
            if not {relation.subject, relation.object} <= set(holes):
                yield (
                    (*place, "statements", i),
                    f"a statement names both {{{relation.subject}}} and {{{relation.object}}}",
                )


def _two_hops(world: World) -> Iterator[tuple[Place, str]]:
    for name, hop in world.two_hops.items():
        place: Place = ("two_hops", name)
        if hop.subject not in world.fields:
            yield (*place, "subject"), _unknown(hop.subject, world.fields)
        if hop.relation not in world.relations:
            yield (*place, "relation"), _unknown(hop.relation, world.relations)
        elif world.relations[hop.relation].distractor:
            yield (*place, "relation"), f"'{hop.relation}' is a distractor, which no set asks for"
        elif hop.subject not in world.withheld(hop.relation):
            yield (
                (*place, "subject"),
                f"documents of '{hop.relation}' may name '{hop.subject}': nothing is left to infer",
            )


def _inventions(world: World) -> Iterator[tuple[Place, str]]:
    for field, recipe in world.inventions.items():
        place: Place = ("inventions", field)
        if field not in world.fields:
            yield place, _unknown(field, world.fields)
            continue
        try:
            check_recipe(recipe, field, world.fields)
        except ValueError as error:
            yield place, str(error)


def _questions(world: World) -> Iterator[tuple[Place, str]]:
    for name, relation in world.relations.items():
        place: Place = ("relations", name, "questions")
        for i, block in enumerate(relation.questions):
            asked, given = relation.object, relation.subject
            if block.style == "reversed":
                asked, given = given, asked
            yield from _question_block(world, (*place, i), block, asked, given)
        yield from _repeated_sets(world, place, relation.questions, relation.object)
    for name, hop in world.two_hops.items():
        joined = world.relations[hop.relation]
        for key, asked in (("questions", joined.object), ("first_hop", joined.subject)):
            place = ("two_hops", name, key)
            blocks: list[Questions] = getattr(hop, key)
            for i, block in enumerate(blocks):
                if block.style == "reversed":
                    yield (*place, i, "style"), "a two-hop question is 'gen' or 'qa'"
                yield from _question_block(world, (*place, i), block, asked, hop.subject)
            yield from _repeated_sets(world, place, blocks, asked)


def _repeated_sets(
    world: World, place: Place, blocks: list[Questions], asked: str
) -> Iterator[tuple[Place, str]]:
    """Two blocks of one style and format would give two sets of one name."""
    seen: set[tuple[str, str]] = set()
    for i, block in enumerate(blocks):
        # All reversed questions ask for one field: style and format name the sets.
        plain = "" if block.style == "reversed" else world.plain_format(asked)
        for answer_format in block.formats or [block.format or plain]:
            if (block.style, answer_format) in seen:
                in_format = f" in the format '{answer_format}'" if answer_format else ""
                yield (
                    (*place, i),
                    f"'{block.style}' is asked{in_format} already: add the wordings there",
                )
            seen.add((block.style, answer_format))


def _question_block(
    world: World, place: Place, block: Questions, asked: str, given: str
) -> Iterator[tuple[Place, str]]:
    formats = FORMATS[world.fields[asked]]
    if block.format is not None and block.formats:
        yield (*place, "formats"), "a block has one 'format' or several 'formats', not both"
    key = "formats" if block.formats else "format"
    for name in block.formats or [block.format or formats[0]]:
        if name not in formats:
            yield (*place, key), f"'{asked}' has no format '{name}': {', '.join(formats)}"
    known = world.holes([given]) | ({ANSWER_FORMAT} if len(formats) > 1 else set())
    for i, prompt in enumerate(block.prompts):
        where = (*place, "prompts", i)
        bad = list(_bad_holes(where, prompt, known))
        yield from bad
        own = world.holes([given]) - world.constants.keys()
        if not bad and own.isdisjoint(template_holes(prompt)):
            yield where, f"the question does not say which {{{given}}} it is about"
        if not bad and len(block.formats) > 1 and ANSWER_FORMAT not in template_holes(prompt):
            yield where, f"with several formats, a wording says which: {{{ANSWER_FORMAT}}}"
        if prompt != prompt.rstrip():
            yield where, "a prompt ends without a blank: the completion brings it"
        if prompt in block.prompts[:i]:
            yield where, "this wording occurs twice"


def _distinct_answers(world: World) -> Iterator[tuple[Place, str]]:
    """Within each group of entities, each asked or given value has one owner."""
    asked = world.asked_relations.values()
    used = {field for r in asked for field in (r.subject, r.object)}
    used |= {hop.subject for hop in world.two_hops.values()}
    for part in GROUPS:
        for field in world.fields:
            if field not in used:
                continue
            owners: dict[tuple[str, str], str] = {}
            for key, fields in getattr(world, part).items():
                for hole, value in expand_field(field, world.fields[field], fields[field]).items():
                    owner = owners.setdefault((hole, value.casefold()), key)
                    if owner != key:
                        yield (part, key, field), f"{{{hole}}} is '{value}', as of '{owner}'"


def _bad_holes(place: Place, text: str, known: set[str]) -> Iterator[tuple[Place, str]]:
    try:
        holes = template_holes(text)
    except ValueError as error:
        yield place, f"unbalanced braces ({error})"
        return
    for hole in holes:
        if hole not in known:
            yield place, f"no hole {{{hole}}} here; the holes are {', '.join(sorted(known))}"


def _unknown(name: str, known: Iterable[str]) -> str:
    return f"unknown name '{name}'; known are {', '.join(sorted(known))}"
