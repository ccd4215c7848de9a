"""What two runs answered to the same questions, and what experiments answer in the end.

    for group in compare(collected, "Ab3xY", "Zk9Qw"):
        group.asked, group.difference.mean, group.difference.low, group.sign_test_p

A question of two runs is the same where set and id are, and, for ranks, the number of candidates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oocr_influence.datasets.set_names import KINDS
from oocr_influence.results.collecting import Collected
from oocr_influence.results.intervals import Interval, mean_interval, sign_test

METRIC = "rank_tie_averaged"
_NUMBERS = ("DOUBLE", "FLOAT", "INTEGER", "BIGINT", "BOOLEAN")
_SHOWN = 12


@dataclass(frozen=True)
class Compared:
    """Questions of one kind in A and in B; differences are B minus A."""

    asked: str
    mean_a: float
    mean_b: float
    difference: Interval
    """Over entities: two runs say nothing about other seeds."""
    n_entities_higher: int
    """Entities whose mean is higher in B."""
    n_entities_lower: int
    sign_test_p: float
    """Two-sided, of the entities' mean differences."""


@dataclass(frozen=True)
class Comparison:
    """Two runs, each at one evaluation, and what their common questions say."""

    a: tuple[str, str]
    """Run and evaluation."""
    b: tuple[str, str]
    metric: str
    groups: tuple[Compared, ...]
    n_unpaired: int
    """Questions of either that the other lacks, or asked with other candidates, or that have no
    such number."""


@dataclass(frozen=True)
class Summary:
    """One kind of questions of one experiment at the end of its runs."""

    experiment: str
    asked: str
    rank: Interval | None
    """Tie-averaged; None where it was not measured, as in the earlier system."""
    chance: float | None
    accuracy: Interval | None


def compare(
    collected: Collected, a: str, b: str, *, metric: str = METRIC, seed: int = 0
) -> Comparison:
    """Compare two runs on the questions that both answered.

    `a` and `b` name a run by its folder or any part of it that no other run has, with the
    evaluation behind an `@`: `Ab3xY@e1_s42`, without one `@final`. `metric` is a column of
    numbers of `questions`. Raises ValueError for names that no run or several have, an evaluation
    that is not there, an unknown metric and runs without a common question.
    """
    columns = collected.columns("questions")
    if columns.get(metric) not in _NUMBERS:
        known = [name for name, type_ in columns.items() if type_ in _NUMBERS]
        raise ValueError(f"no metric '{metric}' among questions: {', '.join(known)}")
    side_a, side_b = _side(collected, a), _side(collected, b)
    rows = collected.sql(_PAIRS.format(metric=_quoted(metric)), [*side_a, *side_b]).to_pylist()
    ranked = metric.startswith("rank")
    pairs = [
        row
        for row in rows
        if row["a"] is not None
        and row["b"] is not None
        and not (ranked and row["n_a"] != row["n_b"])
    ]
    if not pairs:
        raise ValueError(f"{a} and {b} have no question in common that both have {metric} of")
    by_kind: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in pairs:
        by_kind[row["asked"] or "?"].append(row)
    groups = [_compared(kind, by_kind[kind], seed) for kind in sorted(by_kind, key=_order)]
    return Comparison(side_a, side_b, metric, tuple(groups), len(rows) - len(pairs))


def summarise(collected: Collected, *, evaluation: str = "final", seed: int = 0) -> list[Summary]:
    """Each experiment's mean rank and accuracy by kind, over those runs that have `evaluation`."""
    rows = collected.sql(_AT, [evaluation])
    values = {name: rows.column(name).to_pylist() for name in rows.column_names}
    places: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, key in enumerate(zip(values["experiment"], values["asked"], strict=True)):
        places[key[0], key[1] or "?"].append(place)

    def interval(name: str, own: list[int]) -> Interval | None:
        present = [place for place in own if values[name][place] is not None]
        if not present:
            return None
        return mean_interval(
            [values[name][place] for place in present],
            runs=[values["run"][place] for place in present],
            entities=[values["entity"][place] for place in present],
            seed=seed,
        )

    def mean(name: str, own: list[int]) -> float | None:
        known = [values[name][place] for place in own if values[name][place] is not None]
        return sum(known) / len(known) if known else None

    return [
        Summary(
            experiment=experiment,
            asked=kind,
            rank=interval("rank_tie_averaged", own),
            chance=mean("chance", own),
            accuracy=interval("accuracy", own),
        )
        for (experiment, kind), own in sorted(
            places.items(), key=lambda one: (one[0][0], _order(one[0][1]))
        )
    ]


_PAIRS = """
    with a as (select set, id, asked, entity, n_candidates, {metric}::double as value
               from questions where run = $1 and evaluation = $2),
         b as (select set, id, n_candidates, {metric}::double as value
               from questions where run = $3 and evaluation = $4)
    select a.asked, a.entity, a.value as a, b.value as b,
           a.n_candidates as n_a, b.n_candidates as n_b
    from a full outer join b using (set, id)
    order by set, id
"""
_AT = """
    select experiment, run, asked, entity, rank_tie_averaged, accuracy,
           (n_candidates + 1) / 2 as chance
    from questions where evaluation = $1
"""


def _side(collected: Collected, name: str) -> tuple[str, str]:
    """The run and the evaluation that a name like `Ab3xY@e1_s42` means."""
    wanted, _, evaluation = name.partition("@")
    evaluation = evaluation or "final"
    runs = collected.sql("select run from runs order by run").column("run").to_pylist()
    wanted = Path(wanted).name
    found = [run for run in runs if run == wanted] or [run for run in runs if wanted in run]
    if len(found) != 1:
        many = found or runs
        shown = ", ".join(many[:_SHOWN]) + (", …" if len(many) > _SHOWN else "")
        raise ValueError(f"{len(found)} runs are named '{wanted}', not one; there are: {shown}")
    known = collected.sql(
        "select distinct evaluation, step from evaluations where run = $1 order by step", found
    )
    if evaluation not in known.column("evaluation").to_pylist():
        there = ", ".join(known.column("evaluation").to_pylist()) or "none"
        raise ValueError(f"{found[0]} has no evaluation '{evaluation}'; there are: {there}")
    return found[0], evaluation


def _compared(kind: str, rows: Sequence[dict[str, Any]], seed: int) -> Compared:
    differences = [row["b"] - row["a"] for row in rows]
    by_entity: dict[str, list[float]] = defaultdict(list)
    for row, difference in zip(rows, differences, strict=True):
        by_entity[row["entity"]].append(difference)
    of_entities = [sum(own) / len(own) for own in by_entity.values()]
    interval = mean_interval(
        differences,
        runs=["the pair"] * len(rows),
        entities=[row["entity"] for row in rows],
        seed=seed,
    )
    return Compared(
        asked=kind,
        mean_a=sum(row["a"] for row in rows) / len(rows),
        mean_b=sum(row["b"] for row in rows) / len(rows),
        difference=interval,
        n_entities_higher=sum(value > 0 for value in of_entities),
        n_entities_lower=sum(value < 0 for value in of_entities),
        sign_test_p=sign_test(of_entities),
    )


def _order(kind: str) -> tuple[int, str]:
    known = kind.partition(":")[0]
    return (KINDS.index(known) if known in KINDS else len(KINDS)), kind


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


__all__ = ["METRIC", "Compared", "Comparison", "Summary", "compare", "summarise"]
