"""What differs between two runs, as typed findings in words, and how values are compared.

What one of two runs does not say is named among what is unknown, never filled in by a default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from oocr_influence.results.experiment_log import read_experiment_log
from oocr_influence.results.run_folder import RunFolder

Part = Literal[
    "configuration", "model", "data", "data order", "code", "environment", "hardware", "results"
]
PARTS: tuple[Part, ...] = (
    "configuration",
    "model",
    "data",
    "data order",
    "code",
    "environment",
    "hardware",
    "results",
)
MISSING = object()
_SHOWN = 12  # digits of a digest


@dataclass(frozen=True)
class Difference:
    """One difference between two runs, A and B."""

    part: Part
    what: str
    a: Any
    b: Any
    words: str
    detail: str = ""
    """A text to look at, such as a diff of the code."""


@dataclass
class Differences:
    """What differs, and what cannot be compared since one of the two does not say it."""

    found: list[Difference] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def of(self, part: Part) -> list[Difference]:
        return [one for one in self.found if one.part == part]


@dataclass(frozen=True)
class Record:
    """What a run says of itself; or what a run would say that began now."""

    args: Mapping[str, Any]
    log_dict: Mapping[str, Any]
    diff: str | None = None
    """How its code differed from its commit; None where there is no such file."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        return self.log_dict.get("provenance") or {}

    @property
    def git(self) -> Mapping[str, Any]:
        return self.provenance.get("git") or {}


def record_of(run: RunFolder) -> Record:
    """A run's own record; raises FileNotFoundError or ValueError where it has no log to read."""
    log = read_experiment_log(run.experiment_log)
    path = run.working_tree_diff
    diff = path.read_text(encoding="utf-8") if path.is_file() else None
    return Record(log.args or {}, log.log_dict, diff)


def compare_logged(
    found: Differences, a: Record, b: Record, part: Part, name: str, words: str
) -> None:
    """Compare what two logs have under one name, which `words` say for a person."""
    compare_named(found, part, name, a.log_dict, b.log_dict, words=words)


def compare_named(
    found: Differences,
    part: Part,
    name: str,
    left: Mapping[str, Any],
    right: Mapping[str, Any],
    words: str | None = None,
) -> None:
    """Compare what stands under one name; None is a value where both sides have the name."""
    values = left.get(name, MISSING), right.get(name, MISSING)
    if values[0] is MISSING and values[1] is MISSING:
        return
    compare_values(
        found, part, name, *values, None if words is None else _named(words), words or name
    )


def _named(words: str) -> Callable[[Any, Any], str]:
    return lambda a, b: f"{words}: {shown(a)} in A, {shown(b)} in B"


def compare_values(
    found: Differences,
    part: Part,
    what: str,
    a: Any,
    b: Any,
    words: Callable[[Any, Any], str] | None = None,
    name: str | None = None,
) -> None:
    """Note two values that differ, or which of the two is not there (MISSING)."""
    if a is MISSING or b is MISSING:
        if not (a is MISSING and b is MISSING):
            found.unknown.append(f"{name or what}, which {'A' if a is MISSING else 'B'} lacks")
        return
    if a != b:
        told = (words or _named(name or what))(a, b)
        found.found.append(Difference(part, what, a, b, told))


def shown(value: Any) -> str:
    """A value for a person; digests are cut."""
    if value is None:
        return "none"
    text = str(value)
    is_digest = len(text) in (40, 64) and all(letter in "0123456789abcdef" for letter in text)
    return f"{text[:_SHOWN]}…" if is_digest else text


def compare_variables(
    found: Differences,
    part: Part,
    left: Mapping[str, str],
    right: Mapping[str, str],
    leave_out: set[str],
) -> None:
    """A variable that is not set is known not to be."""
    for name in sorted((left.keys() | right.keys()) - leave_out):
        compare_values(found, part, name, left.get(name), right.get(name))
