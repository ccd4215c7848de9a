"""Which candidate was ranked first where another was right: a table a relation and form."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from oocr_influence.reports.page.curves import order
from oocr_influence.reports.page.numbers import short

MOST_ANSWERS = 60
"""Answers of one table; of more, those that were missed most often are shown."""

First = Mapping[tuple[str, int], Sequence[tuple[str, float]]]


def confusions(
    rows: Sequence[Mapping[str, Any]], first: First, described: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """One table a relation, kind and form of the answer, in the order in which kinds are told of.

    `cells` are [right, first, n]: how often the answer at place `first` was ranked first where
    that at place `right` was right, counted over runs and wordings; of tied first ones each has an
    equal part. Empty where no record names its candidates.
    """
    tables: dict[tuple[str, str, str], dict[tuple[str, str], float]] = {}
    for row in rows:
        one = described[row["set"]]
        key = (one["asked"], one["relation"] or "?", one["answer_format"] or "default")
        for text, n in first.get((row["set"], row["index"]), ()):
            cells = tables.setdefault(key, defaultdict(float))
            cells[row["completion"], text] += n
    return [
        _table(key, cells)
        for key, cells in sorted(tables.items(), key=lambda one: (order(one[0][0]), one[0]))
    ]


def _table(key: tuple[str, str, str], cells: Mapping[tuple[str, str], float]) -> dict[str, Any]:
    missed: dict[str, float] = defaultdict(float)
    answers = dict.fromkeys(text for pair in cells for text in pair)
    for (right, found), n in cells.items():
        missed[right] += n * (right != found)
    shown = sorted(answers)
    if len(shown) > MOST_ANSWERS:
        shown = sorted(sorted(shown, key=lambda text: -missed[text])[:MOST_ANSWERS])
    place = {text: i for i, text in enumerate(shown)}
    return {
        "asked": key[0],
        "relation": key[1],
        "form": key[2],
        "n": short(sum(cells.values())),
        "n_right": short(sum(n for (right, found), n in cells.items() if right == found)),
        "n_answers": len(answers),
        "answers": shown,
        "cells": [
            [place[right], place[found], short(n, 4)]
            for (right, found), n in sorted(cells.items())
            if right in place and found in place
        ],
    }


__all__ = ["MOST_ANSWERS", "confusions"]
