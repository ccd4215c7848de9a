"""What came of removals, for a terminal.

print(render_removal(rows, cells))
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from oocr_influence.reports.results_text import aligned

Row = Mapping[str, Any]
_NOTHING = "–"
_ASKED = {
    "target": "the questions that documents were ranked for",
    "same_facts": "other questions that the same facts answer",
    "other_facts": "questions of other facts",
}
_COLUMNS = ("top", "random", "matched_fact", "top - random", "top - matched_fact")
_CLOSING = """\
Each number: mean change against the runs of the same seeds from which nothing was removed.
top: without the k documents on top; random, matched_fact: without k others, at random or of the
same facts; […]: 95 % over seeds, and over draws of a control or targets where there are several.
Where seeds do not differ, or there is one, nothing says how sure a number is."""


def render_removal(rows: Sequence[Row], cells: Sequence[Row]) -> str:
    """A block a metric and group of questions, a line a target, method and k; then what to know.

    `rows` are effects, `cells` what is recorded of each top and its controls.
    """
    blocks = []
    for metric, group in dict.fromkeys((row["metric"], row["questions"]) for row in rows):
        own = [row for row in rows if (row["metric"], row["questions"]) == (metric, group)]
        lines = [["target", "method", "k", "questions", "seeds", *_COLUMNS]]
        for key in dict.fromkeys((row["target"], row["method"], row["k"]) for row in own):
            of_key = [row for row in own if (row["target"], row["method"], row["k"]) == key]
            by_what = {row["what"]: row for row in of_key}
            target, method, k = key
            seeds = sorted({row["n_seeds"] for row in of_key})
            told = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
            asked = str(max(row["n_questions"] for row in of_key))
            numbers = [_told(by_what.get(what)) for what in _COLUMNS]
            lines.append([target, method, str(k), asked, told, *numbers])
        blocks.append("\n".join([f"{metric}, {_ASKED[group]}", *aligned(lines)]))
    return "\n\n".join([*blocks, "\n".join([_CLOSING, *_notes(cells)])])


def _told(row: Row | None) -> str:
    if row is None or not _known(row["mean"]):
        return _NOTHING
    if not _known(row["low"]):
        return f"{row['mean']:+.3f}"
    return f"{row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _notes(cells: Sequence[Row]) -> list[str]:
    """What a reader must know of the removals to believe the numbers."""
    notes = []
    for key, what in (
        ("ties", "a draw among documents with equal scores says which were removed"),
        ("not_positive", "some of the k removed have no positive score"),
        ("no_matched_fact", "facts have too few other documents for a matched_fact control"),
    ):
        own = [cell for cell in cells if cell[key]]
        if own:
            named = ", ".join(dict.fromkeys(f"{c['method']} at k {c['k']}" for c in own))
            notes.append(f"{len(own)} of {len(cells)} removals ({named}): {what}.")
    kinds = [kind for kind in _COLUMNS[:3] if any(cell["characters"].get(kind) for cell in cells)]
    sizes = [[c["characters"][kind] for c in cells if kind in c["characters"]] for kind in kinds]
    means = (f"{kind} {sum(own) / len(own):,.0f}" for kind, own in zip(kinds, sizes, strict=True))
    return [*notes, f"Characters removed, on average: {', '.join(means)}."]


__all__ = ["render_removal"]
