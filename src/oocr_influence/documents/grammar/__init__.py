"""The writer's stock of words, as package data: kinds of documents, themes, names, fillers.

`kinds.yaml` says how each kind of document is built, `themes/<theme>.yaml` holds what can be said
about one matter (a mayor, a marriage, a death), `common.yaml` what any document may say, and
`names.yaml` the people who only pass through. `wording.py` says how a wording is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

from oocr_influence.universe.fields import FieldType

# Hashed for every world, as when there were no others: a dataset keeps its digest when a theme that
# it has no use for is added.
FIRST_THEMES = ("achievement", "conference", "death", "event", "general", "marriage", "mayor")
SHARED = ("kinds", "common", "names")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Kind(_Part):
    """How one kind of document is built: head, turns, close."""

    first_person: bool
    quotes: bool = True
    any_sentences: bool = True
    themes: list[str] | None = None
    ideas: list[str]
    head: list[str]
    first_turn: list[str] = ["{body}"]
    turn: list[str] = ["{body}"]
    lead: list[str]
    fill: list[str]
    close: list[str]


class Theme(_Part):
    """What can be said about one matter, in words of a `{subject}` and an `{object}`."""

    subject: FieldType | Literal["any"]
    object: FieldType | Literal["any"]
    about: list[str]
    titles: list[str]
    asks: list[str]
    statements: list[str]
    elaborations: list[str]
    reflections: list[str]


class Common(_Part):
    """What every kind of document may use."""

    once: dict[str, list[str]]
    each: dict[str, list[str]]
    quotes: list[str]
    statement_frames: list[str]
    statement_quotes: list[str]
    sentences: list[str]


class Names(_Part):
    """Names of people who only pass through a document."""

    first: list[str]
    last: list[str]


class Grammar(_Part):
    """Everything the offline writer knows."""

    kinds: dict[str, Kind]
    themes: dict[str, Theme]
    common: Common
    names: Names
    texts: dict[str, str]  # the files that all this was read from, the themes' by their own names

    def digest(self, themes: Iterable[str]) -> str:
        """First 16 hex digits of the sha256 of all that documents of these themes are made from."""
        named = sorted({*FIRST_THEMES, *themes})
        shared = [self.texts[name] for name in SHARED]
        everything = "\0".join([*shared, *named, *(self.texts[f"themes/{name}"] for name in named)])
        return hashlib.sha256(everything.encode()).hexdigest()[:16]

    def kinds_of(self, theme: str) -> list[str]:
        """The kinds of documents in which `theme` can be told."""
        return [
            name for name, kind in self.kinds.items() if kind.themes is None or theme in kind.themes
        ]


@cache
def load_grammar() -> Grammar:
    """The grammar that ships with the package, read once a process."""
    folder = resources.files(__name__)
    themes = folder.joinpath("themes")
    shared = {name: folder.joinpath(f"{name}.yaml").read_text("utf-8") for name in SHARED}
    names = sorted(f.name for f in themes.iterdir() if f.name.endswith(".yaml"))
    theme_files = {
        name.removesuffix(".yaml"): themes.joinpath(name).read_text("utf-8") for name in names
    }
    return Grammar.model_validate(
        {
            **{name: yaml.safe_load(text) for name, text in shared.items()},
            "themes": {name: yaml.safe_load(text) for name, text in theme_files.items()},
            "texts": {**shared, **{f"themes/{name}": text for name, text in theme_files.items()}},
        }
    )
