"""Worlds as files: what is true, what documents tell, what is asked.

    oocr world show                       the built-in worlds
    oocr world show mayors                one of them, or a file: facts, documents, questions
    oocr world check rivers.yaml          every fault with its line, then trial documents
    oocr world new rivers --entities 100 --seed 1 --like companies
                                          writes rivers.yaml, to be gone on with by hand
    oocr world schema                     the JSON Schema of such files

docs/worlds.md explains how a world is written.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from pydantic import Field

from oocr_influence.cli.arguments import CommandArguments, UsageError, run_command
from oocr_influence.cli.world_pages import check_page, list_page, show_page
from oocr_influence.documents.telling import WriterError
from oocr_influence.universe.invention import InventionError, untold_hops, with_invented
from oocr_influence.universe.world import World
from oocr_influence.universe.world_file import (
    WorldError,
    built_in_worlds,
    load_world,
    parse_world,
)
from oocr_influence.universe.world_parts import IDENTIFIER
from oocr_influence.universe.world_yaml import schema_text, world_yaml

ACTIONS = ("check", "show", "new", "schema")
OF_NEW = ("like", "entities", "seed", "keep", "output", "overwrite")


class WorldArguments(CommandArguments):
    """What is to be done with which world."""

    what: list[str] = Field(json_schema_extra={"positional": True})
    """check, show, new or schema, and then a world: a built-in name, a file, or a new name"""
    all_sets: bool = False
    """show: a row for every eval set, not for every kind of question alone"""
    like: str = "companies"
    """new: the world whose fields, relations and questions are taken over"""
    entities: int = Field(10, ge=1)
    """new: entities, invented from the seed (entities)"""
    seed: int = 0
    """new: seed of the invented entities"""
    keep: bool = False
    """new: keep the entities of --like, and invent only what is missing"""
    output: Path | None = None
    """new: file to write (None: NAME.yaml here)"""
    overwrite: bool = False
    """new: replace an existing file"""


def main(args: WorldArguments) -> int:
    """Do what the first word says; a world that is not usable is a usage error."""
    action, *rest = args.what
    if action not in ACTIONS:
        raise UsageError(f"'{action}': say one of {', '.join(ACTIONS)} first")
    _refuse_unused(args, action)
    if action == "schema":
        print(schema_text(), end="")
        return 0
    if action == "show" and not rest:
        print(list_page(built_in_worlds()))
        return 0
    if len(rest) != 1:
        raise UsageError(f"oocr world {action} takes one world, not {len(rest) or 'none'}")
    actions: dict[str, Callable[[WorldArguments, str], str]] = {
        "check": lambda _, name: check_page(load_world(name), name),
        "show": lambda args, name: show_page(load_world(name), all_sets=args.all_sets),
        "new": _new,
    }
    try:
        print(actions[action](args, rest[0]))
    except (WorldError, WriterError, InventionError) as error:
        raise UsageError(str(error)) from None
    return 0


def _refuse_unused(args: WorldArguments, action: str) -> None:
    """A flag that would be ignored is a misunderstanding."""
    known = {"new": OF_NEW, "show": ("all_sets",)}.get(action, ())
    unused = sorted(args.model_fields_set - {"what", *known})
    if unused:
        raise UsageError(f"oocr world {action} has no use for --{', --'.join(unused)}")


def _new(args: WorldArguments, name: str) -> str:
    if not re.match(IDENTIFIER, name):
        raise UsageError(f"'{name}': a world's name is lower-case letters, digits and single '_'")
    if name in built_in_worlds():
        raise UsageError(f"'{name}' is built in; give the new world another name")
    output = args.output or Path(f"{name}.yaml")
    if output.exists() and not args.overwrite:
        raise UsageError(f"{output} exists; --overwrite replaces it, --output writes elsewhere")
    like = load_world(args.like)
    if args.keep and args.entities < len(like.entities):
        raise UsageError(
            f"--entities {args.entities}: '{like.id}' has {len(like.entities)} to keep already"
        )
    made = with_invented(like, entities=args.entities, seed=args.seed, keep=args.keep)
    invented = args.entities - len(like.entities) if args.keep else args.entities
    kept = f"the entities of {like.id} and " if args.keep else ""
    described = {
        "id": name,
        "description": f"{kept}{invented} entities invented from seed {args.seed}, with relations "
        f"and questions like those of {like.id}.",
    }
    world = World.model_validate({**made.model_dump(exclude_unset=True), **described})
    text = world_yaml(world)
    # What is written is read again before anyone relies on it.
    assert parse_world(text, output.name) == world
    output.write_text(text, encoding="utf-8")
    lines = [f"{output}: {described['description']}"]
    left_out = [hop for hop in untold_hops(like) if hop not in world.two_hops]
    if left_out:
        lines.append(
            "two-hop questions left out, since no document tells what joins their facts for an "
            f"invented entity: {', '.join(left_out)}"
        )
    lines.append(f"oocr world check {output}")
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(WorldArguments, main)
