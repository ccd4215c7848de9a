"""What a set asks, and how questions are grouped when they are told of: one account for all rooms.

    describe_by_name("name_mayor_eval_first_name_qa_4_no_fs").relation   # "name_mayor"
    asked("trained", "first_name")                                       # "trained: first names"

Text alone, and nothing of the project is imported: records of a run are read with it where no
dataset is at hand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

NO_FEW_SHOT, WITH_FEW_SHOT = "_no_fs", "_with_fs"
# In the order in which they are told of.
KINDS = ("trained", "reversed", "first_hop", "two_hop", "control")
_FORMATS_IN_NAMES = ("first_name", "last_name", "dmy_written", "mdy", "dmy", "iso")
_OTHER_FORMATS = {"first_name": "first names", "last_name": "last names"}


def fits(name: str, patterns: Sequence[str]) -> bool:
    """Whether a set's name fits one of the patterns, in which * stands for any letters."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


@dataclass(frozen=True, kw_only=True)
class SetDescription:
    """What a set asks. None where a file of an older writer does not say."""

    world: str | None
    relation: str
    answer_format: str
    style: str  # gen, qa or reversed
    phrasing: int | None  # from 1
    shots: int | None  # answers of other entities shown before the question
    kind: str  # one of KINDS
    control: str | None = None  # which control: unmentioned or untold


def kind_named(kind: str, control: str | None) -> str:
    """The kind, where each control is one of its own: `control: untold`."""
    return f"{kind}: {control}" if control else kind


def asked(kind: str, answer_format: str | None) -> str:
    """The kind, where trained questions that want another form of the answer are kinds of their
    own: `trained: last names`. `kind` may be one of `kind_named`."""
    if kind != "trained" or answer_format in (None, "default", "full"):
        return kind
    return f"{kind}: {_OTHER_FORMATS.get(answer_format, 'other formats of dates')}"


def describe_by_name(
    name: str, *, relation: str | None = None, shots: int | None = None
) -> SetDescription:
    """A best guess from a set's name; whatever the name is, it answers.

    `relation` is taken where the name states none. Without `shots`, a set that shows examples has
    None: its name does not say how many.
    """
    stem = name.removesuffix(NO_FEW_SHOT).removesuffix(WITH_FEW_SHOT)
    named_relation, _, after = stem.partition("_eval_")
    words = after or stem
    number = re.search(r"_(\d+)$", words)
    if "reversed" in words:
        style = "reversed"
    else:
        style = "gen" if re.search(r"(^|_)gen(eration)?(_|$)", words) else "qa"
    kind = _kind_in(stem, style)
    if shots is None and name.endswith(NO_FEW_SHOT):
        shots = 0
    return SetDescription(
        world=None,
        relation=named_relation if after or relation is None else relation,
        answer_format=next((f for f in _FORMATS_IN_NAMES if f in words), "default"),
        style=style,
        phrasing=int(number.group(1)) if number else None,
        shots=shots,
        kind=kind,
        control=None if kind != "control" else "untold" if "_untold" in stem else "unmentioned",
    )


def _kind_in(stem: str, style: str) -> str:
    if "second_hop" in stem or "two_hop" in stem or "2hop" in stem:
        return "two_hop"
    if "first_hop" in stem:
        return "first_hop"
    if "control" in stem:
        return "control"
    return "reversed" if style == "reversed" else "trained"
