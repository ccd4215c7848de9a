"""What of an audit's report is too much: each limit, what was found, and whether it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Limits:
    """None is no limit. Shares are between 0 and 1, all else are counts."""

    min_stated: float | None = 0.99
    max_two_hop_leaks: int | None = 0
    max_withheld: int | None = 0
    max_other_facts: int | None = 0
    max_exact_duplicates: int | None = 0
    max_near_duplicates: float | None = 0.01
    max_pretraining_near_duplicates: float | None = None
    max_id_faults: int | None = 0
    max_question_faults: int | None = 0


@dataclass(frozen=True)
class Check:
    """One limit, judged."""

    name: str
    """The limit's name, which is also its flag."""
    what: str
    found: float | None
    """None where there was nothing to judge."""
    limit: float | None
    ok: bool


def judge(report: Mapping[str, Any], limits: Limits) -> list[Check]:
    """Every limit against what the audit found."""
    duplicates, documents = report["duplicates"], report["counts"]["documents"]
    telling = documents["synthetic"] + documents["held_out"]
    near = duplicates["near"]["synthetic"] + duplicates["near"]["held_out"]
    found: dict[str, tuple[str, float | None]] = {
        "min_stated": (
            "share of documents that state their fact",
            report["statements"]["share"],
        ),
        "max_two_hop_leaks": (
            "documents with both ends of a two-hop question",
            _total(report["two_hop_leaks"]),
        ),
        "max_withheld": (
            "documents that reveal what their relation withholds",
            _total(report["withheld"]) if report["withheld"]["known"] else None,
        ),
        "max_other_facts": (
            "documents that state a fact they were not written for",
            _total(report["other_facts"]),
        ),
        "max_exact_duplicates": (
            "documents whose text occurred before",
            sum(duplicates["exact"].values()),
        ),
        "max_near_duplicates": (
            "share of documents of facts that nearly repeat an earlier one",
            near / telling if telling else None,
        ),
        "max_pretraining_near_duplicates": (
            "share of pretraining documents that nearly repeat an earlier one",
            duplicates["near_share"]["pretraining"] if documents["pretraining"] else None,
        ),
        "max_id_faults": (
            "ids that repeat or are not made as they should",
            report["ids"]["faults"],
        ),
        "max_question_faults": (
            "questions that documents do not answer, or more than one way",
            report["questions"]["faults"],
        ),
    }
    return [
        Check(name, what, value, limit, _holds(name, value, limit))
        for name, (what, value) in found.items()
        for limit in [getattr(limits, name)]
    ]


def _holds(name: str, found: float | None, limit: float | None) -> bool:
    if found is None or limit is None:
        return True
    return found >= limit if name.startswith("min_") else found <= limit


def _total(section: Mapping[str, Any]) -> int:
    return sum(section["documents"].values())
