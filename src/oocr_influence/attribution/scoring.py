"""Methods beside each other: which puts the right documents on top, which predicts held-out runs.

    for group in retrieval_groups(table, at=(10, 100)): …
    for score in lds_of_methods(table, outcomes.split("test")): …

Retrieval is told apart by relation and by the kind of question (trained, reversed, two_hop), with
95 % intervals bootstrapped over entities, since questions about one entity share its documents.

Letters: Q queries, D documents, S subsets.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from oocr_influence.attribution.draws import drawn_together
from oocr_influence.attribution.lds import LDS, N_RESAMPLES, lds
from oocr_influence.attribution.noise import same_seeds
from oocr_influence.attribution.retrieval import Retrieval, by_chance, retrieval
from oocr_influence.results.attributions import Attributions
from oocr_influence.results.intervals import Interval, mean_interval
from oocr_influence.results.outcomes import Outcomes

CHANCE = "by chance"
ALL = "all"
# Outcomes that fall where an answer is known better: a score that is right would look wrong.
FALLING = ("loss", "rank")


def falls(metric: str) -> bool:
    """Whether an outcome is lower where an answer is known better."""
    return any(word in metric for word in FALLING)


@dataclass(frozen=True)
class RetrievalGroup:
    """How one method did on the questions of one relation and kind (`all` for every one)."""

    method: str
    relation: str
    kind: str
    n_documents: int
    mean_relevant: float
    """Documents that state a question's fact, on average."""
    mrr: Interval
    recall: Mapping[int, Interval]
    precision: Mapping[int, Interval]


@dataclass(frozen=True)
class MethodLDS:
    """The linear datamodeling score of one method on the questions of one kind."""

    method: str
    kind: str
    score: LDS


def relevant_documents(table: Attributions) -> npt.NDArray[np.bool_]:
    """(Q, D): whether the document was written to state a fact that answers the query."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(table.documents):
        if row["fact_id"] is not None:
            places[row["fact_id"]].append(place)
    relevant_QD = np.zeros((len(table.queries), len(table.documents)), dtype=bool)
    for q, row in enumerate(table.queries):
        for fact in row["fact_ids"]:
            relevant_QD[q, places.get(fact, [])] = True
    return relevant_QD


def retrieval_groups(
    table: Attributions, at: Sequence[int] = (10, 100), *, seed: int = 0
) -> list[RetrievalGroup]:
    """Every method of `table` and chance: each kind over all relations, then each relation's kinds.

    Queries whose fact no scored document states (controls) are left out. Raises ValueError where
    that leaves none.
    """
    relevant_QD = relevant_documents(table)
    n_Q = relevant_QD.sum(axis=1)
    if not n_Q.any():
        raise ValueError("no scored document states the fact of any query: nothing to find")
    found = {name: retrieval(s, relevant_QD, at) for name, s in table.scores.items()}
    found[CHANCE] = by_chance(len(table.documents), n_Q, at)
    groups = []
    for (relation, kind), queries in _by_relation_and_kind(table, n_Q > 0).items():
        entities = [table.queries[q]["entity"] for q in queries]
        for name, of_method in found.items():
            groups.append(
                _group(name, relation, kind, of_method, queries, entities, n_Q, relevant_QD, seed)
            )
    return groups


def _group(
    method: str,
    relation: str,
    kind: str,
    found: Retrieval,
    queries: Sequence[int],
    entities: Sequence[str],
    n_Q: npt.NDArray[np.int64],
    relevant_QD: npt.NDArray[np.bool_],
    seed: int,
) -> RetrievalGroup:
    def interval(values_Q: npt.NDArray[np.float64]) -> Interval:
        own = values_Q[list(queries)]
        return mean_interval(own.tolist(), runs=[0] * len(own), entities=entities, seed=seed)

    return RetrievalGroup(
        method=method,
        relation=relation,
        kind=kind,
        n_documents=relevant_QD.shape[1],
        mean_relevant=float(n_Q[list(queries)].mean()),
        mrr=interval(found.reciprocal_rank),
        recall={k: interval(values) for k, values in found.recall.items()},
        precision={k: interval(values) for k, values in found.precision.items()},
    )


def _by_relation_and_kind(
    table: Attributions, stated_Q: npt.NDArray[np.bool_]
) -> dict[tuple[str, str], list[int]]:
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for q, row in enumerate(table.queries):
        if stated_Q[q]:
            groups[ALL, row["kind"]].append(q)
            groups[row["relation"], row["kind"]].append(q)
    return dict(sorted(groups.items(), key=lambda item: item[0][0] != ALL))


def lds_of_methods(
    table: Attributions,
    outcomes: Outcomes,
    metric: str = "logprob",
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> list[MethodLDS]:
    """The LDS of every method, over all questions and by kind, on these subsets.

    Documents are the same where id and occurrence are, questions where set, index and id are; those
    that not every completed run answered are left out. Raises ValueError where a document that the
    subsets differ in has no score, where no question is left, and for a metric that falls where an
    answer is known better.
    """
    if falls(metric):
        raise ValueError(
            f"metric {metric!r} falls where an answer is known better, and scores say what raises "
            "it: take logprob, prob, softmargin or accuracy"
        )
    trained_SD = _trained(table, outcomes)
    every_SKQ = np.asarray(outcomes.values(metric), np.float64)
    answered_Q = np.asarray(np.isfinite(every_SKQ[outcomes.completed()]).all(axis=0))
    pairs = _shared_questions(table, outcomes, answered_Q)
    values_SKQ = every_SKQ[:, :, [o for _, o in pairs]]
    crossed = same_seeds(outcomes.seeds)
    kinds = [table.queries[q]["kind"] for q, _ in pairs]
    chosen = {ALL: list(range(len(pairs)))}
    chosen |= {kind: [i for i, k in enumerate(kinds) if k == kind] for kind in dict.fromkeys(kinds)}
    return [
        MethodLDS(
            method,
            kind,
            lds(
                scores_QD[[pairs[i][0] for i in places]],
                trained_SD,
                values_SKQ[:, :, places],
                entities=[table.queries[pairs[i][0]]["entity"] for i in places],
                crossed=crossed,
                draws_S=drawn_together(outcomes.subsets),
                n_resamples=n_resamples,
                seed=seed,
            ),
        )
        for kind, places in chosen.items()
        for method, scores_QD in table.scores.items()
    ]


def _trained(table: Attributions, outcomes: Outcomes) -> npt.NDArray[np.float64]:
    """(S, D) in the order of the table's documents; 0 for those that no subset could hold."""
    trained_SD = np.asarray(outcomes.trained, np.float64)
    scored = {(row["id"], row["occurrence"]): d for d, row in enumerate(table.documents)}
    placed_SD = np.zeros((len(trained_SD), len(table.documents)))
    unscored = 0
    for place, row in enumerate(outcomes.documents):
        d = scored.get((row["id"], row["occurrence"]))
        if d is not None:
            placed_SD[:, d] = trained_SD[:, place]
        else:
            unscored += int(np.ptp(trained_SD[:, place]) > 0)
    if unscored:
        raise ValueError(
            f"{unscored} documents that the subsets differ in have no score: attribute again with "
            "--documents all, or from a run that trained them"
        )
    return placed_SD


def _shared_questions(
    table: Attributions, outcomes: Outcomes, answered_Q: npt.NDArray[np.bool_]
) -> list[tuple[int, int]]:
    """Places in the table and in the outcomes of the questions that both have."""
    asked = {(row["set"], row["index"]): o for o, row in enumerate(outcomes.questions)}
    pairs = [
        (q, o)
        for q, row in enumerate(table.queries)
        if (o := asked.get((row["set"], row["index"]))) is not None
        and answered_Q[o]
        and is_same_question(row, outcomes.questions[o])
    ]
    if not pairs:
        raise ValueError("the scores and the outcomes have no question in common")
    return pairs


def is_same_question(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Of two at the same place of a set: another file may have another question there."""
    return None in (one.get("id"), other.get("id")) or one["id"] == other["id"]
