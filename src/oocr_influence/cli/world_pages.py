"""What `oocr world` says of a world: is it usable, and what does it hold?"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable

from oocr_influence.datasets.eval_sets import (
    build_eval_sets,
    describe_set,
    eval_set_table,
)
from oocr_influence.documents.plan import Length
from oocr_influence.documents.writer import OfflineWriter
from oocr_influence.universe.facts import Fact
from oocr_influence.universe.fields import expand_field
from oocr_influence.universe.invention import untold_entities, untold_hops
from oocr_influence.universe.recipes import bare, well_known
from oocr_influence.universe.world import World
from oocr_influence.universe.world_file import load_world

TRIAL_FACTS = 60  # facts of which documents are tried
SHOWN = 10  # entities of a group, wordings of a list
ENOUGH_STATEMENTS = 6  # in either order, below which documents say the same again and again


def list_page(names: Iterable[str]) -> str:
    """The built-in worlds, a line each."""
    return "\n".join(f"{name:12} {load_world(name).description}" for name in names)


def check_page(world: World, name: str) -> str:
    """That the world is usable, what it comes to, and what a person might not have meant.

    Raises WriterError if a trial document cannot be written: the name of a field's value that no
    document of the relation can avoid, or a relation that its theme cannot tell.
    """
    n_documents = _write_trials(world)
    sets = build_eval_sets(world, seed=0)
    both = build_eval_sets(world, seed=0, controls=True, untold=True)
    counts = f"{len(world.entities)} entities, {len(world.facts())} facts"
    lines = [
        f"{name} is a usable world: {counts}, {len(sets)} eval sets",
        f"  {len(both) - len(sets)} control sets, of {len(world.controls)} entities that no "
        f"document mentions and {len(world.untold)} that are told of in one relation each",
        f"  {n_documents} trial documents state their fact and reveal nothing that is withheld",
    ]
    return "\n".join([*lines, *(f"note: {note}" for note in _notes(world))])


def show_page(world: World, *, all_sets: bool) -> str:
    """Everything about a world that a person wants to see before trusting it, as Markdown."""
    parts = [f"# {world.id}", world.description, _entities_part(world), _relations_part(world)]
    parts.append(_documents_part(world))
    if all_sets:
        parts.append(eval_set_table(build_eval_sets(world, seed=0, controls=True, untold=True)))
    else:
        parts.append(_questions_part(world))
    return "\n\n".join(part.strip() for part in parts if part)


def _write_trials(world: World) -> int:
    told = [distractor.told for distractor in world.distractors.values()]
    facts = [*world.facts(), *world.untold_facts(), *world.distractor_facts()]
    tried = [(world, _spread(facts)), *((other, _spread(other.facts())) for other in told)]
    count = 0
    lengths: tuple[Length, ...] = ("short", "long")
    for length, (one, some) in itertools.product(lengths, tried):
        beside = [world.model_copy(update={"distractors": {}})] if one is not world else []
        # Without reversed statements a world can still be told, in one order.
        writer = OfflineWriter(one, seed=0, length=length, reversed_share=0, beside=beside)
        count += sum(len(writer.write(fact, 1)) for fact in some)
    return count


def _spread(facts: list[Fact]) -> list[Fact]:
    """At most about `TRIAL_FACTS` of them, of every part of the list."""
    return facts[:: max(1, len(facts) // TRIAL_FACTS)]


def _notes(world: World) -> Iterable[str]:
    writer = OfflineWriter(world, seed=0, reversed_share=0)
    for name, relation in world.relations.items():
        forward, back = writer.statements(name)
        if not back:
            yield (
                f"relation '{name}' has no statement with {{{relation.object}}} before "
                f"{{{relation.subject}}}: generate it with --reversed_share 0, or add some"
            )
        elif min(forward, back) < ENOUGH_STATEMENTS:
            yield (
                f"relation '{name}' is told in {forward} forward and {back} reversed sentences: "
                f"with {ENOUGH_STATEMENTS} of each, documents differ more"
            )
        if not relation.questions and not relation.distractor:
            yield f"relation '{name}' is told and never asked (a distractor says so)"
    for hop in untold_hops(world):
        yield f"no document tells what joins the facts of '{hop}': a model must know it already"
    known = [v for v in _values(world) if bare(v) in well_known()]
    if known:
        more = f" and {len(known) - 3} more" if len(known) > 3 else ""
        yield f"well known, so that a model may know of them: {', '.join(known[:3])}{more}"
    yield from _controls_notes(world)


def _controls_notes(world: World) -> Iterable[str]:
    n = len(world.entities)
    if not world.controls:
        yield "no 'controls': nothing shows what a model answers about entities it never read of"
    elif len(world.controls) != n:
        yield (
            f"{len(world.controls)} 'controls' beside {n} entities: ranks among {n} and among "
            f"{len(world.controls)} answers are not to be compared; --entities makes them equal"
        )
    asked = {name: len(world.untold_feature_sets(name)) for name in world.asked_relations}
    odd = {name: count for name, count in asked.items() if world.untold and count != n}
    if odd:
        needed = untold_entities(n, len(asked))
        yield (
            f"{len(world.untold)} 'untold' entities leave {min(odd.values())} to ask in relation "
            f"'{min(odd, key=lambda name: odd[name])}', and there are {n} entities: {needed} make "
            "them equal"
        )


def _values(world: World) -> list[str]:
    named = [f for f, kind in world.fields.items() if kind in ("person", "place", "organisation")]
    every = [e for group in world.groups.values() for e in group.values()]
    return list(dict.fromkeys(e[field] for e in every for field in named if field in e))


def _entities_part(world: World) -> str:
    lines = ["## Entities", ""]
    fields = list(world.fields)
    lines += [f"| | {' | '.join(fields)} |", f"|---{'|---' * len(fields)}|"]
    lines.append(f"| type | {' | '.join(world.fields[field] for field in fields)} |")
    for key, entity in list(world.entities.items())[:SHOWN]:
        cells = [
            expand_field(f, world.fields[f], entity[f])[f] if f in entity else "" for f in fields
        ]
        lines.append(f"| {key} | {' | '.join(cells)} |")
    more = len(world.entities) - SHOWN
    if more > 0:
        lines.append(f"\nand {more} more")
    lines.append(
        f"\nControls: {len(world.controls)} that no document mentions, {len(world.untold)} that "
        "documents tell of in one relation each."
    )
    if world.constants:
        lines.append(f"Constants: {', '.join(f'{k} = {v}' for k, v in world.constants.items())}.")
    return "\n".join(lines)


def _relations_part(world: World) -> str:
    lines = ["## Facts"]
    for name, relation in world.relations.items():
        facts = world.facts(name)
        asked = ", a distractor: no set asks for it" if relation.distractor else ""
        lines.append(f"\n{name} ({relation.subject} → {relation.object}{asked})")
        lines += [f"  {fact.prompt}{fact.completion}" for fact in facts[:3]]
        if relation.colour:
            lines.append(f"  documents may mention: {', '.join(relation.colour)}")
        lines.append(f"  documents must not reveal: {', '.join(world.withheld(name)) or '–'}")
        lines += [f"  nor the words: {text}" for text in relation.forbidden]
        lines += [f"  nor: {text}" for text in relation.must_not_reveal]
    for name, hop in world.two_hops.items():
        untold = ", which no document tells" if name in untold_hops(world) else ""
        lines.append(f"\n{name}: {hop.relation} by its {hop.subject}{untold}")
    for name, distractor in world.distractors.items():
        lines.append(f"\ndistractor {name}: the world {distractor.told.id}, told beside this one")
    return "\n".join(lines)


def _documents_part(world: World) -> str:
    lines = ["## A document of each relation"]
    writer = OfflineWriter(world, seed=0, length="short", reversed_share=0)
    for name in world.relations:
        facts: list[Fact] = world.facts(name)[:1]
        for document in (d for fact in facts for d in writer.write(fact, 1)):
            lines.append(f"\n{name}, {document.doc_spec.doc_type}:\n")
            lines.append(textwrap.indent(document.completion, "    "))
    return "\n".join(lines)


def _questions_part(world: World) -> str:
    """A row a relation, kind, style and format, with the first of its wordings."""
    sets = build_eval_sets(world, seed=0, controls=True, untold=True)
    rows: dict[tuple[str, ...], list[str]] = {}
    for name, builder in sets.items():
        said = describe_set(name, builder)
        key = (said.relation, said.control or said.kind, said.style, said.answer_format)
        first = builder.eval_points[0]
        rows.setdefault(key, []).append(f"{first.prompt} →{first.completion}")
    lines = [f"## What is asked: {len(sets)} sets", ""]
    lines += ["| relation | kind | style | format | sets | the first, about the first entity |"]
    lines.append("|---|---|---|---|---|---|")
    lines += [f"| {' | '.join(key)} | {len(told)} | {told[0]} |" for key, told in rows.items()]
    return "\n".join(lines)
