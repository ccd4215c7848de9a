"""How the code of two runs differs: their commits, and what was changed but not committed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from oocr_influence.results.provenance import diff_between

_COMMIT = re.compile(r"[0-9a-f]{7,64}")


@dataclass(frozen=True)
class CodeDifference:
    """In words, and as a diff where one can be had."""

    words: str
    detail: str


def code_difference(
    a: Mapping[str, Any], b: Mapping[str, Any], diff_a: str | None, diff_b: str | None
) -> CodeDifference | None:
    """None where both ran the same code.

    `a` and `b` are `provenance.git` of two runs, with commits; `diff_a` and `diff_b` what each had
    changed beside its commit, None where that was not kept.
    """
    same_commit = a["commit"] == b["commit"]
    if same_commit and a.get("diff_digest") == b.get("diff_digest"):
        return None
    parts, details = [], []
    if not same_commit:
        committed = _between(str(a["commit"]), str(b["commit"]))
        told = "which this checkout lacks" if committed is None else _sized(committed)
        parts.append(f"commit {a['commit'][:12]} in A, {b['commit'][:12]} in B ({told})")
        details += [committed] if committed else []
    if a.get("diff_digest") != b.get("diff_digest"):
        parts.append(f"{_changed(a, 'A')}, {_changed(b, 'B')}")
        details.append(_between_diffs(a, b, diff_a, diff_b))
    return CodeDifference("; ".join(parts), "\n".join(filter(None, details)))


def _between(one: str, other: str) -> str | None:
    if not (_COMMIT.fullmatch(one) and _COMMIT.fullmatch(other)):
        return None
    return diff_between(one, other)


def _changed(git: Mapping[str, Any], side: str) -> str:
    digest = git.get("diff_digest")
    return f"{side} had " + (f"uncommitted changes ({digest[:12]}…)" if digest else "none")


def _between_diffs(
    a: Mapping[str, Any], b: Mapping[str, Any], diff_a: str | None, diff_b: str | None
) -> str:
    """The one diff where the other side is clean, or how the two diffs differ."""
    for git, diff, side in ((a, diff_a, "A"), (b, diff_b, "B")):
        if git.get("diff_digest") and diff is None:
            return f"(the uncommitted changes of {side} were not kept)"
    if not diff_a or not diff_b:
        side = "A" if diff_a else "B"
        return f"uncommitted in {side}:\n{diff_a or diff_b or ''}"
    lines = difflib.unified_diff(
        diff_a.splitlines(),
        diff_b.splitlines(),
        "uncommitted in A",
        "uncommitted in B",
        lineterm="",
    )
    return "\n".join(lines)


def _sized(diff: str) -> str:
    lines = diff.splitlines()
    files = sum(line.startswith("diff --git ") for line in lines)
    added = sum(line.startswith("+") and not line.startswith("+++") for line in lines)
    removed = sum(line.startswith("-") and not line.startswith("---") for line in lines)
    if not files:
        return "no Python file differs"
    return f"{files} Python files differ, {added} lines added and {removed} removed"
