"""Scores of attribution methods for a terminal: what they find on top, and what they predict.

print(render_retrieval(rows, at=(10, 100)))
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from oocr_influence.reports.results_text import aligned

Row = Mapping[str, Any]
_NOTHING = "–"
_EVERY = "all"


def render_retrieval(rows: Sequence[Row], at: Sequence[int]) -> str:
    """A block a table, relation and kind: a line a method, the best MRR first, and chance."""
    blocks = []
    several = len({row["table"] for row in rows}) > 1
    for key in dict.fromkeys((row["table"], row["relation"], row["kind"]) for row in rows):
        own = [row for row in rows if (row["table"], row["relation"], row["kind"]) == key]
        own.sort(key=lambda row: -row["mrr"]["mean"])
        first = own[0]
        table, relation, kind = key
        title = f"{kind}, {'all relations' if relation == _EVERY else relation}"
        counts = (
            f"{first['mrr']['n_questions']} questions, {first['mrr']['n_entities']} entities, "
            f"{first['mean_relevant']:.3g} of {first['n_documents']:,} documents state the fact"
        )
        header = ["method", "MRR", *(f"{what} at {k}" for k in at for what in _WHAT)]
        lines = [
            [row["method"], _told(row["mrr"]), *(_told(row[w][str(k)]) for k in at for w in _WHAT)]
            for row in own
        ]
        head = f"{table}: {title}" if several else title
        blocks.append("\n".join([f"{head} ({counts})", *aligned([header, *lines])]))
    closing = (
        "[…]: 95 % bootstrap interval over entities. Documents with equal scores count as if in no "
        "order.\nAt most k documents can be found at k: recall at k is at most k / (documents that "
        "state the fact)."
    )
    return "\n\n".join([*blocks, closing])


def render_lds(rows: Sequence[Row], metric: str, split: str) -> str:
    """A block a table and kind: a line a method, the best first, beside ceiling and chance."""
    blocks = []
    several = len({row["table"] for row in rows}) > 1
    header = ["method", "Spearman", "Pearson", "ceiling", "95 % of chance", "p"]
    for table, kind in dict.fromkeys((row["table"], row["kind"]) for row in rows):
        own = [row for row in rows if (row["table"], row["kind"]) == (table, kind)]
        own.sort(key=lambda row: -_number(row["spearman"]["mean"]))
        title = "all questions" if kind == _EVERY else kind
        lines = [
            [
                row["method"],
                _told(row["spearman"]),
                _told(row["pearson"]),
                _plain(row["spearman"]["ceiling"]),
                _plain(row["spearman"]["null_high"]),
                _plain(row["spearman"]["p_value"]),
            ]
            for row in own
        ]
        counts = f"{own[0]['n_questions']} questions, {own[0]['n_subsets']} {split} subsets"
        head = f"{table}: {title}" if several else title
        blocks.append("\n".join([f"LDS, {metric}, {head} ({counts})", *aligned([header, *lines])]))
    closing = (
        "[…]: 95 % bootstrap interval over subsets and entities; ceiling: of a perfect predictor, "
        "given the noise\nbetween runs; p: of as high a Spearman with subsets exchanged at random"
    )
    return "\n\n".join([*blocks, closing])


_WHAT = ("recall", "precision")


def _told(interval: Row) -> str:
    mean = _plain(interval["mean"])
    if mean == _NOTHING or interval["low"] is None:
        return mean
    return f"{mean} [{_plain(interval['low'])}, {_plain(interval['high'])}]"


def _plain(value: float | None) -> str:
    return _NOTHING if value is None or math.isnan(value) else f"{value:.3f}"


def _number(value: float) -> float:
    return -math.inf if math.isnan(value) else value
