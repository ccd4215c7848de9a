"""The command line from a typed class: one flag a field, every fault in one message.

A command is a class of arguments and a `main(args)` that returns the exit status:

    class TrainArguments(CommandArguments):
        epochs: float = Field(1, description="passes over the data (epochs)")

    run_command(TrainArguments, main)

Flags are the field names, with underscores or dashes; only whole names count. Booleans are `--x`,
`--no-x` or `--x False`; `None` is writable; lists are JSON, separated by commas, or repeated words;
`--config FILE` reads YAML or JSON, which flags override. The environment is never read: a
variable named EPOCHS must not change an experiment. A field `json_` is the flag `--json`: its plain
name is taken by a method of every model. A field's `also` names it in another way (-f).
"""

from __future__ import annotations

import difflib
import json
import os
import sys
import textwrap
import types
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, TextIO, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

USAGE_ERROR = 2
INTERRUPTED = 130
BOOLEANS = {"true", "false", "1", "0", "yes", "no", "on", "off"}


class CommandArguments(BaseModel):
    """Base of every command's arguments; unknown names are faults."""

    model_config = ConfigDict(
        extra="forbid",
        validate_default=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )


A = TypeVar("A", bound=CommandArguments)


class UsageError(ValueError):
    """What the person asked for cannot be done; the message names every fault and its remedy."""


def run_command(
    arguments: type[A], main: Callable[[A], int], argv: Sequence[str] | None = None
) -> NoReturn:
    """Parse, run, exit: status 2 and one message where the command line or an input is wrong."""
    words = list(sys.argv[1:] if argv is None else argv)
    warnings.showwarning = _plain_warning
    try:
        if "-h" in words or "--help" in words:
            print(help_text(arguments, sys.modules[main.__module__].__doc__ or ""), flush=True)
            status = 0
        else:
            status = main(parse(arguments, words))
            sys.stdout.flush()
    except BrokenPipeError:  # `… | head` has read enough; spare it the complaint at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except (UsageError, FileNotFoundError, FileExistsError) as error:
        print(f"error: {error}", file=sys.stderr)
        status = USAGE_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = INTERRUPTED
    sys.exit(status)


def parse(arguments: type[A], words: Sequence[str]) -> A:
    """The arguments that `words` state.

    Raises UsageError with every unknown flag (and the nearest known one), every missing and every
    wrong value at once.
    """
    given, faults = _read_words(arguments, words)
    config = given.pop("config", None)
    read = _read_config(config[-1], faults) if config else {}
    values = {_field_name(name, arguments): value for name, value in read.items()}
    for name, texts in given.items():
        values[name] = _value(arguments.model_fields[name], texts)
    try:
        parsed = arguments.model_validate(values)
    except ValidationError as error:
        faults += [_describe(fault, arguments) for fault in error.errors(include_url=False)]
    if faults:
        raise UsageError("\n       ".join(dict.fromkeys(faults)))
    return parsed


@dataclass(frozen=True)
class Flag:
    """A field as a person writes it; `default` is None where there is none to tell."""

    name: str
    written: str
    type: str
    default: str | None
    required: bool
    meaning: str


def flags_of(arguments: type[CommandArguments]) -> list[Flag]:
    """The flags of a command, in the order of its fields."""
    return [_described(name, field) for name, field in arguments.model_fields.items()]


def help_text(arguments: type[CommandArguments], doc: str) -> str:
    """What the command does, then a paragraph a flag: type, default, meaning with its unit."""
    lines = [doc.strip(), ""]
    for flag in flags_of(arguments):
        default = ", required" if flag.required else ""
        if flag.default is not None:
            default = f", default {flag.default}"
        lines.append(f"{flag.written}  ({flag.type}{default})")
        lines.append(
            textwrap.fill(flag.meaning, 96, initial_indent="    ", subsequent_indent="    ")
        )
    lines.append("--config  (path)\n    a YAML or JSON file of these names, which flags override")
    return "\n".join(lines)


def _plain_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning as a line for a person, without the place in our code that raised it."""
    print(f"warning: {message}", file=sys.stderr)


def _read_words(
    arguments: type[CommandArguments], words: Sequence[str]
) -> tuple[dict[str, list[str]], list[str]]:
    """The texts given for each field, and the faults in how flags were written."""
    fields = arguments.model_fields
    positional = next((name for name, field in fields.items() if _is_positional(field)), None)
    also = {other: f"--{name}" for name, field in fields.items() for other in _also(field)}
    given: dict[str, list[str]] = {}
    faults: list[str] = []
    current: str | None = None
    for word in (also.get(word, word) for word in words):
        if word.startswith("--") and len(word) > 2:
            flag, has_value, value = word[2:].partition("=")
            name = flag.replace("-", "_")
            current = None
            denied = _field_name(name.removeprefix("no_"), arguments)
            if name.startswith("no_") and name not in fields and _is_bool(fields.get(denied)):
                given[denied] = ["False"]
            elif _field_name(name, arguments) in fields or name == "config":
                current = _field_name(name, arguments)
                given.setdefault(current, []).extend([value] if has_value else [])
            else:
                faults.append(_unknown(name, arguments))
                current = "?"
        elif current is None:
            if positional is None:
                faults.append(f"'{word}' belongs to no flag")
            else:
                given.setdefault(positional, []).append(word)
        elif _is_bool(fields.get(current)) and word.lower() not in BOOLEANS:
            # `--yes outputs`: the word is not the flag's value.
            current = None
            if positional is None:
                faults.append(f"'{word}' belongs to no flag")
            else:
                given.setdefault(positional, []).append(word)
        elif current != "?":
            given[current].append(word)
            # A flag of one value takes one word: what follows is positional again.
            current = current if _takes_many(fields.get(current)) else None
        else:
            current = None
    return given, faults


def _unknown(name: str, arguments: type[CommandArguments]) -> str:
    known = [*(field.removesuffix("_") for field in arguments.model_fields), "config"]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"; did you mean --{near[0]}?" if near else "; --help lists the flags"
    return f"unknown flag --{name}{hint}"


def _value(field: FieldInfo, texts: list[str]) -> Any:
    """The Python value that the texts of one flag state; pydantic checks it afterwards."""
    if _takes_many(field):
        if len(texts) == 1 and texts[0] == "None":
            return None
        items: list[Any] = []
        for text in texts:
            items += _json_list(text) if text.startswith("[") else text.split(",")
        return items
    if not texts:
        return True if _is_bool(field) else ""
    return None if texts[-1] in ("None", "null") else texts[-1]


def _json_list(text: str) -> list[Any]:
    try:
        loaded = json.loads(text)
    except json.JSONDecodeError:
        return [text]
    return loaded if isinstance(loaded, list) else [loaded]


def _read_config(path: str, faults: list[str]) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        faults.append(f"--config {path}: {error.strerror}")
        return {}
    except yaml.YAMLError as error:
        faults.append(f"--config {path} is neither YAML nor JSON: {error}")
        return {}
    if not isinstance(loaded, dict):
        faults.append(f"--config {path} must hold names and values, not {type(loaded).__name__}")
        return {}
    return {str(name).replace("-", "_"): value for name, value in loaded.items()}


def _describe(fault: Any, arguments: type[CommandArguments]) -> str:
    if not fault["loc"]:
        return str(fault["msg"]).removeprefix("Value error, ")
    name = str(fault["loc"][0])
    if fault["type"] == "extra_forbidden":
        return _unknown(name, arguments)
    field = arguments.model_fields[name]
    flag = _flag(name, field)
    if fault["type"] == "missing":
        return f"{flag} is missing: {field.description}"
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{flag} {fault['input']!r}: {message}"


def _options(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the annotation alone."""
    if get_origin(annotation) in (Union, types.UnionType):
        return get_args(annotation)
    return (annotation,)


def _field_name(flag: str, arguments: type[CommandArguments]) -> str:
    return f"{flag}_" if f"{flag}_" in arguments.model_fields else flag


def _flag(name: str, field: FieldInfo) -> str:
    return name.upper() if _is_positional(field) else f"--{name.removesuffix('_')}"


def _is_positional(field: FieldInfo) -> bool:
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("positional"))


def _also(field: FieldInfo) -> list[str]:
    """Other ways to write the flag, as `json_schema_extra` names them."""
    extra = field.json_schema_extra
    found = extra.get("also") if isinstance(extra, dict) else None
    return [str(word) for word in found] if isinstance(found, list) else []


def _is_bool(field: FieldInfo | None) -> bool:
    return field is not None and bool in _options(field.annotation)


def _takes_many(field: FieldInfo | None) -> bool:
    if field is None:
        return False
    return any(get_origin(option) in (list, tuple) for option in _options(field.annotation))


def _type_name(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "|".join(str(choice) for choice in get_args(annotation))
    names = []
    for option in _options(annotation):
        if option is type(None):
            names.append("None")
        elif get_origin(option) is Literal:
            names.append(_type_name(option))
        elif get_origin(option) in (list, tuple):
            names.append(f"list of {_type_name(get_args(option)[0])}")
        else:
            names.append({"str": "text"}.get(option.__name__, option.__name__.lower()))
    return " or ".join(names)


def _described(name: str, field: FieldInfo) -> Flag:
    flag = _flag(name, field)
    if _is_bool(field):
        flag = f"{flag} / --no-{flag.removeprefix('--')}"
    known = not field.is_required() and field.default is not PydanticUndefined
    return Flag(
        name=name,
        written=" / ".join([*_also(field), flag]),
        type=_type_name(field.annotation),
        default=str(field.default) if known else None,
        required=field.is_required(),
        meaning=field.description or "",
    )
