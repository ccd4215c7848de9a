"""Reading a world from YAML: built in (`oocr world show` lists them) or a file of the user's own.

    world = load_world("mayors")
    world = load_world("my_worlds/rivers.yaml")

A fault is named with its line and its place: `rivers.yaml:14: entities.elbe.length: …`. Distractor
worlds that tell more of the world's entities are merged: what is returned has them no longer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from oocr_influence.universe.merging import merge_distractors
from oocr_influence.universe.world import World
from oocr_influence.universe.world_checks import Place, WorldFaults, check_world

FAULTS_SHOWN = 10
# A world of thousands of entities takes the parser in Python ten times as long.
_FastLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")
# Numbers and dates stay as they are written: 1931-02-30 is a fault of the world, with its line, and
# 0123 is no octal number.
WITHOUT_NUMBERS = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NUMBERS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader: Any = type("_Loader", (_FastLoader,), {"yaml_implicit_resolvers": WITHOUT_NUMBERS})


class WorldError(ValueError):
    """A world that cannot be used; the message names the file and every fault's line and place."""


def built_in_worlds() -> list[str]:
    """The names that `load_world` knows without a file."""
    folder = resources.files("oocr_influence.universe").joinpath("worlds")
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def load_world(name_or_path: str | os.PathLike[str]) -> World:
    """The built-in world of that name, or the world in that YAML file.

    Raises FileNotFoundError, or WorldError with every fault (all counted, the first ten shown).
    """
    name = os.fspath(name_or_path)
    text, source = _world_text(name, Path())
    return parse_world(text, source, Path(name).parent)


def parse_world(text: str, source: str = "world.yaml", folder: Path | None = None) -> World:
    """The world that `text` describes; `source` is what error messages call it, and files that it
    names are looked for from `folder`."""
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        faults = list(_repeated_keys(root, ())) if root is not None else []
        if faults:
            raise _world_error(source, root, faults)
        content = loader.construct_document(root) if root is not None else None
        faults = list(_read_distractors(content, folder or Path()))
        if faults:
            raise _world_error(source, root, faults)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise WorldError(f"{source}:{line}: not YAML: {error.problem}") from None
    try:
        world = World.model_validate(content)
        # Faults are named where they are written, so before anything is merged.
        check_world(world)
        merged = merge_distractors(world)
        check_world(merged)
    except ValidationError as error:
        faults = [(e["loc"], _describe(e)) for e in error.errors(include_url=False)]
        raise _world_error(source, root, faults) from None
    except WorldFaults as error:
        raise _world_error(source, root, error.faults) from None
    return merged


def _read_distractors(content: Any, folder: Path) -> Iterator[tuple[Place, str]]:
    """Put each distractor's world where its file is named; what cannot be read is a fault."""
    stated = content.get("distractors") if isinstance(content, dict) else None
    for name, distractor in stated.items() if isinstance(stated, dict) else ():
        if not isinstance(distractor, dict) or not isinstance(distractor.get("file"), str):
            continue
        place: Place = ("distractors", name, "file")
        if "world" in distractor:
            yield place, "a distractor has a 'file' or a 'world', not both"
            continue
        file = distractor.pop("file")
        try:
            text, source = _world_text(file, folder)
            told = yaml.load(text, Loader=_Loader)
            # Worlds within worlds are refused before they are read: they might name each other.
            if isinstance(told, dict) and told.get("distractors"):
                yield place, f"{source} has distractors of its own"
                continue
            parse_world(text, source)
            distractor["world"] = told
        except yaml.YAMLError:
            yield place, f"{file} is not YAML"
        except (FileNotFoundError, WorldError) as error:
            yield place, str(error)


def _world_text(name: str, folder: Path) -> tuple[str, str]:
    """The text of a built-in world or a file, and what messages call it."""
    if name in built_in_worlds():
        worlds = resources.files("oocr_influence.universe").joinpath("worlds")
        return worlds.joinpath(f"{name}.yaml").read_text("utf-8"), f"{name}.yaml"
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(
            f"no world '{name}'; built in are {', '.join(built_in_worlds())}, "
            "and any other name is the path of a YAML file"
        )
    return path.read_text("utf-8"), path.name


def _world_error(
    source: str, root: yaml.Node | None, faults: list[tuple[Place, str]]
) -> WorldError:
    shown = [
        f"  {source}:{_line(root, place)}: {'.'.join(map(str, place)) or 'the file'}: {what}"
        for place, what in faults[:FAULTS_SHOWN]
    ]
    if len(faults) > FAULTS_SHOWN:
        shown.append(f"  … and {len(faults) - FAULTS_SHOWN} more")
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return WorldError(f"{source} is no usable world: {count}\n" + "\n".join(shown))


def _describe(error: Any) -> str:
    if error["type"] == "missing":
        return "missing"
    if error["type"] == "extra_forbidden":
        return "unknown key"
    value = repr(error["input"])
    return f"{error['msg']} (found {value if len(value) <= 60 else value[:57] + '...'})"


def _line(node: yaml.Node | None, place: Place) -> int:
    """The line of `place`, or of the nearest part of it that the file has."""
    line = node.start_mark.line + 1 if node is not None else 1
    for part in place:
        if isinstance(node, yaml.MappingNode):
            match = [(k, v) for k, v in node.value if k.value == str(part)]
            if not match:
                break
            # Of a key that occurs twice, the last is the one to look at.
            line, node = match[-1][0].start_mark.line + 1, match[-1][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _repeated_keys(node: yaml.Node, place: Place) -> list[tuple[Place, str]]:
    """Keys that a mapping has twice: YAML would silently keep the last."""
    found: list[tuple[Place, str]] = []
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            found += _repeated_keys(item, (*place, i))
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                found.append(((*place, key.value), "this key occurs twice"))
            seen.add(key.value)
            found += _repeated_keys(value, (*place, key.value))
    return found
