"""Wordings with holes and alternatives, and how one is spelled out.

    "{subject} was [seen|heard] in {hall}."

A `{hole}` is filled by whoever spells the wording out; of `[a|b]` one is drawn. Alternatives may
hold holes but no further alternatives.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Literal

from oocr_influence.documents.draw import Draw

# forward: the subject is named before the object; single: not both are named.
Order = Literal["forward", "reversed", "single"]

_ALTERNATIVES = re.compile(r"\[([^\[\]]*\|[^\[\]]*)\]")
_HOLE = re.compile(r"\{([a-z_]+)\}")


def spell_out(wording: str, fill: Callable[[str], str], draw: Draw) -> str:
    """The wording with an alternative drawn for each `[a|b]` and `fill(name)` in each `{name}`."""
    parts = _HOLE.split(one_of(wording, draw))
    # split() puts the holes' names at the odd places.
    parts[1::2] = [fill(name) for name in parts[1::2]]
    return "".join(parts)


def one_of(wording: str, draw: Draw) -> str:
    """The wording with an alternative drawn for each `[a|b]`, its holes open."""
    pieces = _pieces(wording)
    return "".join(draw.choice(p) if isinstance(p, tuple) else p for p in pieces)


@cache
def order_of(wording: str) -> Order:
    """In which order the wording names the two sides of a fact."""
    names = holes(wording)
    subjects = [i for i, name in enumerate(names) if is_role(name, "subject")]
    objects = [i for i, name in enumerate(names) if is_role(name, "object")]
    if not subjects or not objects:
        return "single"
    # A subject named again after the object is a reversed mention inside a forward sentence.
    return "forward" if subjects[-1] < objects[0] else "reversed"


@cache
def holes(wording: str) -> tuple[str, ...]:
    """The names of the holes, in order."""
    return tuple(_HOLE.findall(wording))


def is_role(hole: str, role: str) -> bool:
    """Whether the hole is the role itself or one of its formats (`subject_last_name`)."""
    return hole == role or hole.startswith(f"{role}_")


def as_sentence(text: str) -> str:
    """The text with its first letter in upper case, wherever quotation marks put it."""
    for i, letter in enumerate(text):
        if letter.isalpha():
            return text[:i] + letter.upper() + text[i + 1 :]
        if letter.isdigit():
            break
    return text


@cache
def _pieces(wording: str) -> tuple[str | tuple[str, ...], ...]:
    parts = _ALTERNATIVES.split(wording)
    # split() puts the insides of the brackets at the odd places.
    return tuple(tuple(part.split("|")) if i % 2 else part for i, part in enumerate(parts))
