"""Every question, averaged over a group's runs: text, ranks over evaluations, first answers.

The runs' own rows stay in their Parquet files; a report writes them beside the page. Texts are
kept once, and named by their place in a list. Letters: Q questions of a group, E its evaluations.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from oocr_influence.reports.page.confusions import confusions
from oocr_influence.reports.page.endings import entity_labels, rank_column
from oocr_influence.reports.page.moments import AT, Moment
from oocr_influence.reports.page.numbers import short
from oocr_influence.results.collecting import Collected

TOP = 3
"""First answers that are kept of a question."""

# Ids that say nothing to people: digests, and places where a file names no entity.
_NO_NAME = re.compile(r"[0-9a-f]{16,}|.*:place \d+|[^A-Za-z]*")
_SERIES = """
    select set, index, place, round(avg({metric}), 1) as rank
    from questions join (
        select unnest($1::varchar[]) as run, unnest($2::bigint[]) as step,
               unnest($3::bigint[]) as place
    ) using (run, step)
    group by all order by set, index, place
"""
_AT_LAST = """
    select set, index, any_value(prompt) as prompt, any_value(completion) as completion,
           any_value(entity) as entity, avg(accuracy) as accuracy, avg(prob) as prob,
           min({metric}) as low, max({metric}) as high, max(n_candidates) as n_candidates
    from questions {at} group by all order by set, index
"""
# Candidates are ranked by loss a token; of tied first ones each has an equal part.
_FIRST = """
    with scored as (
        select set, index, candidate_texts as texts,
               list_transform(range(1, len(candidate_texts) + 1),
                   lambda i: candidate_logprobs[i] / candidate_n_tokens[i]) as scores
        from questions {at}
        where candidate_logprobs is not null
          and candidate_n_tokens is not null
    ), best as (
        select set, index, texts, list_filter(range(1, len(texts) + 1),
            lambda i: scores[i] = list_max(scores)) as first from scored
    ), each as (
        select set, index, texts, first, unnest(first) as i from best
    )
    select set, index, texts[i] as text, sum(1 / len(first)) as n
    from each group by all order by set, index, n desc, text
"""


class _Places:
    """Values by their place in a list, each once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[Any, int] = {}

    def of(self, value: Any) -> int:
        place = self._places.setdefault(value, len(self.values))
        if place == len(self.values):
            self.values.append(value)
        return place


class QuestionTable:
    """The questions of all groups; equal ones of several groups are one."""

    def __init__(self, sets: Sequence[dict[str, Any]]) -> None:
        self._sets = {one["name"]: place for place, one in enumerate(sets)}
        self._described = {one["name"]: one for one in sets}
        self._texts, self._entities, self._questions = _Places(), _Places(), _Places()
        self._labels: dict[str, str] = {}
        self._groups: list[dict[str, Any]] = []

    def add(self, collected: Collected, moments: Sequence[Moment]) -> None:
        """Add what a group's runs answered."""
        if not moments:
            self._groups.append({"questions": [], "confusions": []})
            return
        last = moments[-1]
        metric = rank_column(collected, last)
        for entity, label in entity_labels(collected, moments).items():
            self._labels.setdefault(entity, label)
        ranks = _series(collected, moments, metric)
        query = _AT_LAST.format(metric=metric, at=AT)
        at_last = collected.sql(query, last.places()).to_pylist()
        first = _first_answers(collected, last)
        kept: dict[str, list[Any]] = defaultdict(list)
        for row in at_last:
            key = (row["set"], row["index"])
            kept["questions"].append(self._place(row))
            kept["ranks"].append(ranks.get(key, [None] * len(moments)))
            for name in ("accuracy", "prob", "low", "high"):
                kept[name].append(short(row[name], 3))
            top = first.get(key, [])[:TOP]
            kept["first"].append([part for text, n in top for part in (self._texts.of(text), n)])
            kept["n_candidates"].append(row["n_candidates"])
        found = confusions(at_last, first, self._described)
        named = [
            one | {"answers": [self._texts.of(text) for text in one["answers"]]} for one in found
        ]
        self._groups.append({"metric": metric, **kept, "confusions": named})

    def label(self, entity: str) -> str:
        """What people recognise an entity by: its id where that is words, else its answers."""
        if _NO_NAME.fullmatch(entity):
            return self._labels.get(entity) or entity
        words = entity
        for world in {one["world"] for one in self._described.values()} - {None}:
            words = words.removeprefix(f"{world}_")
        return words.replace("_", " ")

    def to_json(self) -> dict[str, Any]:
        """All of it, as plain JSON."""
        asked = self._questions.values
        return {
            "texts": self._texts.values,
            "entities": [self.label(entity) for entity in self._entities.values],
            "set": [one[0] for one in asked],
            "prompt": [one[1] for one in asked],
            "answer": [one[2] for one in asked],
            "entity": [one[3] for one in asked],
            "groups": self._groups,
        }

    def _place(self, row: dict[str, Any]) -> int:
        texts = (self._texts.of(row["prompt"] or ""), self._texts.of(row["completion"] or ""))
        return self._questions.of(
            (self._sets[row["set"]], *texts, self._entities.of(row["entity"] or "?"))
        )


def _series(
    collected: Collected, moments: Sequence[Moment], metric: str
) -> dict[tuple[str, int], list[float | None]]:
    """(E,) mean ranks of each question, by set and place in it."""
    at = [(*one, e) for e, moment in enumerate(moments) for one in moment.at]
    parameters = [list(column) for column in zip(*at, strict=True)]
    table = collected.sql(_SERIES.format(metric=metric), parameters)
    found: dict[tuple[str, int], list[float | None]] = {}
    columns = (table.column(name).to_pylist() for name in ("set", "index", "place", "rank"))
    for name, index, place, rank in zip(*columns, strict=True):
        row = found.setdefault((name, index), [None] * len(moments))
        row[place] = short(rank)
    return found


def _first_answers(
    collected: Collected, moment: Moment
) -> dict[tuple[str, int], list[tuple[str, float]]]:
    """Of each question the candidates that were ranked first, with the number of runs."""
    rows = collected.sql(_FIRST.format(at=AT), moment.places()).to_pylist()
    found: dict[tuple[str, int], list[tuple[str, float]]] = defaultdict(list)
    for row in rows:
        found[row["set"], row["index"]].append((row["text"], short(row["n"], 3) or 0))
    return found


__all__ = ["TOP", "QuestionTable"]
