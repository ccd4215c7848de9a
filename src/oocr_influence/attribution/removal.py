"""What came of removals: how answers changed without the documents on top, and without controls.

    facts = facts_of_questions(outcomes.questions, dataset)
    for effect in removal_effects(outcomes, "logprob", facts): …

A change is a run's answer less that of the run of the same seed from which nothing was removed, so
that what an order of the data does to both is not in it. It is told of three groups of questions:
those that documents were ranked for, others that the same facts answer, and those of other facts.

Intervals are Student's t over seeds, and where a control was drawn several times over draws too:
variance of the seeds' means / seeds + variance of the draws' means / draws, which counts twice what
is of one seed and draw together, and so is on average not too small (as in Owen 2007, "The
pigeonhole bootstrap", Ann. Appl. Stat. 1(2)), with Satterthwaite's degrees of freedom. They speak
of other seeds and draws, for these questions. With a single seed nothing says how sure a change is,
nor where no seed differs from another.

Letters: S subsets, K seeds, Q questions, R draws of a control (1 of a top), or targets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from oocr_influence.attribution.queries import facts_that_answer
from oocr_influence.attribution.statistics import student_quantile
from oocr_influence.attribution.trained_documents import StatedFact
from oocr_influence.datasets.document_dataset import StructuredDataset
from oocr_influence.datasets.eval_sets import describe_set
from oocr_influence.results.outcomes import Outcomes

Floats = npt.NDArray[np.float64]
Row = Mapping[str, Any]
Cell = tuple[str, str, int]  # target, method, k
GROUPS = ("target", "same_facts", "other_facts")
CONTROLS = ("random", "matched_fact")
ALL_TARGETS = "all targets"


@dataclass(frozen=True)
class Effect:
    """A mean change of answers, or a difference of two."""

    target: str
    """`all targets`: the mean over them, each counting the same."""
    method: str
    k: int
    questions: str
    """One of GROUPS."""
    metric: str
    what: str
    """`top`, `random`, `matched_fact`, `top - random` or `top - matched_fact`."""
    mean: float
    """In the metric's unit; NaN where no run has completed."""
    low: float
    high: float
    """95 %; NaN where nothing says how sure the mean is."""
    n_questions: int
    n_seeds: int
    n_draws: int
    """Of the control; of all targets, how many targets."""


def facts_of_questions(questions: Sequence[Row], dataset: StructuredDataset) -> list[list[str]]:
    """Of each question of the outcomes the ids of the facts that answer it; none of a control."""
    stated: dict[str, dict[str, StatedFact]] = {}
    for document in dataset.synthetic_documents:
        fact = document.doc_spec.fact
        entity = fact.feature_set.id
        stated.setdefault(entity, {})[fact.id] = StatedFact(
            fact.id, entity, fact.template.relation, fact.prompt, fact.completion
        )
    builders = dataset.eval_dataset_builders
    told = {name: describe_set(name, builders[name]) for name in {q["set"] for q in questions}}
    found = []
    for question in questions:
        point = builders[question["set"]].eval_points[question["index"]]
        one = told[question["set"]]
        own = stated.get(point.features.id, {}).values()
        found.append(facts_that_answer(point, one.relation, one.kind, own))
    return found


def removal_effects(
    outcomes: Outcomes, metric: str, facts_Q: Sequence[Sequence[str]]
) -> list[Effect]:
    """Every change and difference, target by target and then of all targets together.

    Questions that some completed run did not answer are left out. Raises ValueError where the
    subsets are no removals, where the run without a removal is missing, and for an unknown metric.
    """
    removals = _removals(outcomes)
    (reference,) = (s for s, one in enumerate(removals) if one["kind"] == "none")
    values_SKQ = np.asarray(outcomes.values(metric), dtype=np.float64)
    answered_Q = np.asarray(np.isfinite(values_SKQ[outcomes.completed()]).all(axis=0))
    change_SKQ = values_SKQ - values_SKQ[reference]
    cells: dict[Cell, list[int]] = {}
    for s, one in enumerate(removals):
        if s != reference:
            cells.setdefault((one["target"], one["method"], one["k"]), []).append(s)
    compared: dict[tuple[Cell, str], tuple[int, dict[str, Floats]]] = {}
    for cell, own in cells.items():
        queries = removals[own[0]]["queries"]
        groups = groups_of(queries, outcomes.questions, facts_Q, answered_Q)
        for group, places in groups.items():
            if places:
                changes = {
                    kind: change_SKQ[[s for s in own if removals[s]["kind"] == kind]][:, :, places]
                    for kind in ("top", *CONTROLS)
                }
                compared[cell, group] = (len(places), _compared(changes))
    effects = [
        Effect(*cell, group, metric, what, **_mean(change_RK, n))
        for (cell, group), (n, changes) in compared.items()
        for what, change_RK in changes.items()
    ]
    return effects + (_of_all_targets(compared, metric) if len({c[0] for c in cells}) > 1 else [])


def _removals(outcomes: Outcomes) -> list[Row]:
    removals = [subset["removal"] for subset in outcomes.subsets if subset.get("removal")]
    if not removals or len(removals) < len(outcomes.subsets):
        raise ValueError("these subsets are no removals: --subset_design removal makes them")
    if sum(one["kind"] == "none" for one in removals) != 1:
        raise ValueError("no run without a removal has completed yet: nothing to compare with")
    return removals


def _of_all_targets(
    compared: Mapping[tuple[Cell, str], tuple[int, Mapping[str, Floats]]], metric: str
) -> list[Effect]:
    """Means over targets, which are as good as drawn; a target's controls count by their mean."""
    rows: dict[tuple[str, int, str, str], list[Floats]] = {}
    n_questions: Counter[tuple[str, int, str, str]] = Counter()
    for ((_, method, k), group), (n, changes) in compared.items():
        for what, change_RK in changes.items():
            key = (method, k, group, what)
            rows.setdefault(key, []).append(_mean_of_rows(change_RK))
            n_questions[key] += n
    return [
        Effect(
            ALL_TARGETS, method, k, group, metric, what, **_mean(np.array(own), n_questions[key])
        )
        for key, own in rows.items()
        for method, k, group, what in [key]
    ]


def _mean(change_RK: Floats, n_questions: int) -> dict[str, Any]:
    mean, low, high, n_seeds, n_draws = crossed_mean(change_RK)
    return {
        "mean": mean,
        "low": low,
        "high": high,
        "n_questions": n_questions,
        "n_seeds": n_seeds,
        "n_draws": n_draws,
    }


def groups_of(
    queries: Sequence[Row],
    questions: Sequence[Row],
    facts_Q: Sequence[Sequence[str]],
    answered_Q: npt.NDArray[np.bool_],
) -> dict[str, list[int]]:
    """Places of the questions in each of GROUPS. What no fact answers is in none but the target."""
    ranked = {(row["set"], row["index"]): row["id"] for row in queries}

    def is_ranked(q: int) -> bool:
        own = questions[q]
        key = (own["set"], own["index"])
        # The same place of another file's set may be another question.
        return key in ranked and ranked[key] in (None, own.get("id"))

    there = np.flatnonzero(answered_Q).tolist()
    target = [q for q in there if is_ranked(q)]
    facts = {fact for q in target for fact in facts_Q[q]}
    rest = [q for q in there if facts_Q[q] and not is_ranked(q)]
    return {
        "target": target,
        "same_facts": [q for q in rest if facts.intersection(facts_Q[q])],
        "other_facts": [q for q in rest if not facts.intersection(facts_Q[q])],
    }


def _compared(changes: Mapping[str, Floats]) -> dict[str, Floats]:
    """(R, K) of the top, of each control that there is, and of the top less each."""
    of_kind = {kind: change.mean(axis=2) for kind, change in changes.items() if len(change)}
    found = dict(of_kind)
    if "top" in of_kind:
        for control in CONTROLS:
            if control in of_kind:
                found[f"top - {control}"] = of_kind["top"] - of_kind[control]
    return found


def _mean_of_rows(values_RK: Floats) -> Floats:
    """(K,) over the rows that have any value; NaN where one of them lacks a seed."""
    there = values_RK[np.isfinite(values_RK).any(axis=1)]
    return there.mean(axis=0) if len(there) else np.full(values_RK.shape[1], np.nan)


def crossed_mean(
    values_RK: Floats, *, confidence: float = 0.95
) -> tuple[float, float, float, int, int]:
    """Mean, ends of its interval, seeds and rows of it; rows and seeds are both draws of many.

    Rows without a value, and seeds that a row lacks, are left out.
    """
    rows_RK = values_RK[np.isfinite(values_RK).any(axis=1)]
    kept_RK = rows_RK[:, np.isfinite(rows_RK).all(axis=0)]
    n_rows, n_seeds = kept_RK.shape
    if not kept_RK.size:
        return np.nan, np.nan, np.nan, 0, n_rows
    mean = float(kept_RK.mean())
    scale = np.abs(kept_RK).max()
    if n_seeds < 2:
        return mean, np.nan, np.nan, n_seeds, n_rows
    parts = [(kept_RK.mean(axis=0).var(ddof=1) / n_seeds, n_seeds - 1)]
    if n_rows > 1:
        parts.append((kept_RK.mean(axis=1).var(ddof=1) / n_rows, n_rows - 1))
    variance = sum(part for part, _ in parts)
    if variance <= (1e-12 * scale) ** 2:
        return mean, np.nan, np.nan, n_seeds, n_rows
    df = variance**2 / sum(part**2 / own for part, own in parts)
    half = student_quantile(confidence, df) * float(np.sqrt(variance))
    return mean, mean - half, mean + half, n_seeds, n_rows


__all__ = [
    "ALL_TARGETS",
    "CONTROLS",
    "GROUPS",
    "Effect",
    "crossed_mean",
    "facts_of_questions",
    "groups_of",
    "removal_effects",
]
