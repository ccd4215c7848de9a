"""Collected results for a terminal: a summary of experiments, a comparison, an answer's rows.

print(render_summary(runs, summarise(collected)))
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from oocr_influence.results.comparison import Comparison, Summary
from oocr_influence.results.intervals import Interval

_NOTHING = "–"
_WIDEST = 60
_SUMMARY = ["asked", "runs", "entities", "questions", "mean rank", "by chance", "accuracy"]


def render_summary(runs: Sequence[Mapping[str, Any]], summaries: Sequence[Summary]) -> str:
    """A block an experiment: its runs by status, then each kind of question in the end."""
    blocks = []
    for experiment in dict.fromkeys(run["experiment"] for run in runs):
        own = [run for run in runs if run["experiment"] == experiment]
        statuses = Counter(run["status"] for run in own)
        counted = ", ".join(f"{n} {status}" for status, n in sorted(statuses.items()))
        lines = [f"{experiment}: {_plural(len(own), 'run')} ({counted})"]
        rows = [_summary_row(one) for one in summaries if one.experiment == experiment]
        if rows:
            header = [
                "asked",
                "runs",
                "entities",
                "questions",
                "mean rank",
                "by chance",
                "accuracy",
            ]
            lines += aligned([header, *rows])
        else:
            lines.append("no run has a final evaluation")
        blocks.append("\n".join(lines))
    closing = (
        "[…]: 95 % bootstrap intervals over entities, and over runs where there are several\n"
        "questions: of all runs together; rank: tie-averaged"
    )
    return "\n\n".join([*blocks, closing])


def render_comparison(comparison: Comparison) -> str:
    """A row a kind of question: both means, the difference with its interval, the sign test."""
    named = [f"{run}@{evaluation}" for run, evaluation in (comparison.a, comparison.b)]
    header = ["asked", "questions", "entities", "A", "B", "B − A", "higher", "lower", "p (sign)"]
    rows = [
        [
            group.asked,
            str(group.difference.n_questions),
            str(group.difference.n_entities),
            f"{group.mean_a:.3f}",
            f"{group.mean_b:.3f}",
            _told(group.difference, signed=True),
            str(group.n_entities_higher),
            str(group.n_entities_lower),
            f"{group.sign_test_p:.3g}",
        ]
        for group in comparison.groups
    ]
    lines = [f"A: {named[0]}", f"B: {named[1]}", f"{comparison.metric} of the same questions"]
    lines += ["", *aligned([header, *rows]), ""]
    lines.append(
        "[…]: 95 % bootstrap interval over entities; higher, lower: entities whose mean is so in B"
    )
    if comparison.n_unpaired:
        n = comparison.n_unpaired
        lines.append(f"left out, not comparable in both: {_plural(n, 'question')}")
    return "\n".join(lines)


def render_rows(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of an answer, aligned; long texts are cut."""
    cells = [[_cell(row[name]) for name in columns] for row in rows]
    return "\n".join([*aligned([list(columns), *cells]), f"({_plural(len(rows), 'row')})"])


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell, a rule under the first line."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    first, *others = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    return [first, "-" * (sum(widths) + 2 * len(widths) - 2), *others]


def _summary_row(one: Summary) -> list[str]:
    known = one.rank or one.accuracy
    counts = [known.n_runs, known.n_entities, known.n_questions] if known else [0, 0, 0]
    return [
        one.asked,
        *map(str, counts),
        _told(one.rank),
        _NOTHING if one.chance is None else f"{one.chance:.1f}",
        _told(one.accuracy),
    ]


def _told(interval: Interval | None, *, signed: bool = False) -> str:
    if interval is None:
        return _NOTHING
    form = "+.3f" if signed else ".2f"
    mean = format(interval.mean, form)
    if interval.low is None or interval.high is None:
        return mean
    return f"{mean} [{format(interval.low, form)}, {format(interval.high, form)}]"


def _cell(value: Any) -> str:
    if value is None:
        return _NOTHING
    text = f"{value:.6g}" if isinstance(value, float) else str(value).replace("\n", "⏎")
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def _plural(n: int, thing: str) -> str:
    return f"{n} {thing}{'s' * (n != 1)}"
