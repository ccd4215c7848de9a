"""Reading a world from YAML: built in (`mayors`, `death_dates`) or a file of the user's own.

    world = load_world("mayors")
    world = load_world("my_worlds/rivers.yaml")

A fault is named with its line and its place: `rivers.yaml:14: entities.elbe.length: …`.
"""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from oocr_influence.universe.world import World
from oocr_influence.universe.world_checks import Place, WorldFaults, check_world

FAULTS_SHOWN = 10


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
    if name in built_in_worlds():
        folder = resources.files("oocr_influence.universe").joinpath("worlds")
        return parse_world(folder.joinpath(f"{name}.yaml").read_text("utf-8"), f"{name}.yaml")
    path = Path(name)
    if not path.is_file():
        raise FileNotFoundError(
            f"no world '{name}'; built in are {', '.join(built_in_worlds())}, "
            "and any other name is the path of a YAML file"
        )
    return parse_world(path.read_text("utf-8"), path.name)


def parse_world(text: str, source: str = "world.yaml") -> World:
    """The world that `text` describes; `source` is what error messages call it."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        faults = list(_repeated_keys(root, ())) if root is not None else []
        if faults:
            raise _world_error(source, root, faults)
        content = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise WorldError(f"{source}:{line}: not YAML: {error.problem}") from None
    try:
        world = World.model_validate(content)
        check_world(world)
    except ValidationError as error:
        faults = [(e["loc"], _describe(e)) for e in error.errors(include_url=False)]
        raise _world_error(source, root, faults) from None
    except WorldFaults as error:
        raise _world_error(source, root, error.faults) from None
    return world


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
