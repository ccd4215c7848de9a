"""What documents are ranked for: the questions of one fact or of one set, by one method.

    targets = find_targets(table, ["name_mayor:*", "spouse_eval_qa_1_no_fs"])
    ranking = rank(table, targets[0], "bm25", among=keys, seed=41)
    ranking.order[:10]                # places in `among`

A document's score for a target is the sum of its scores for the target's queries. A score says how
much training on the document raises one answer's log-probability, so that the sum says it of the
answers together; scores of one method are in one unit. The highest come first, signs as they are: a
document of a negative score, which the method says does harm, is last.

Letters: Q queries, D documents.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from oocr_influence.attribution.scoring import relevant_documents
from oocr_influence.datasets.order import seeded_order
from oocr_influence.datasets.set_names import fits
from oocr_influence.results.attributions import Attributions

FACTS = "facts"
"""In the place of a method: documents that state a fact which answers a query, before all others.
What a perfect finder would put on top, by the dataset's own account."""
_MOST_TOLD = 12


@dataclass(frozen=True)
class Target:
    """Queries that documents are ranked for, as places in the table."""

    name: str
    """`<relation>:<entity>` of a fact, or the name of a set."""
    queries: tuple[int, ...]


@dataclass(frozen=True)
class Ranking:
    """The documents in a method's order for a target."""

    order: npt.NDArray[np.int64]
    """(D,) places of the documents, the highest score first; equal ones in a drawn order."""
    scores: npt.NDArray[np.float64]
    """(D,) in that order."""

    def ties(self, k: int) -> tuple[int, int]:
        """How many documents share the score of place k, and how many of them are among the k.

        (0, 0) where all of them are: then the first k are no matter of chance.
        """
        equal_D = self.scores == self.scores[k - 1]
        n, taken = int(equal_D.sum()), int(equal_D[:k].sum())
        return (n, taken) if taken < n else (0, 0)

    def not_positive(self, k: int) -> int:
        """How many of the first k the method says teach nothing, or do harm."""
        return int((self.scores[:k] <= 0).sum())


def find_targets(table: Attributions, patterns: Sequence[str]) -> list[Target]:
    """The facts and sets that fit, each a target of its own, in the order of the patterns.

    A fact is named `<relation>:<entity>` or by its id, a set by its name; * stands for any letters.
    ValueError for a pattern that nothing fits, with what there is.
    """
    facts, sets = _facts(table), _sets(table)
    found: dict[str, Target] = {}
    for pattern in patterns:
        own = [
            Target(name, queries)
            for name, (ids, queries) in facts.items()
            if fits(name, [pattern]) or pattern in ids
        ]
        own += [Target(name, queries) for name, queries in sets.items() if fits(name, [pattern])]
        if not own:
            raise ValueError(
                f"no question is of the fact or set {pattern!r}. Facts: {told(facts)}. "
                f"Sets: {told(sets)}"
            )
        found |= {target.name: target for target in own if target.name not in found}
    return list(found.values())


def _facts(table: Attributions) -> dict[str, tuple[set[str], tuple[int, ...]]]:
    """By name: ids, and the queries that they answer. Facts that answer none are left out."""
    names = {
        str(row["fact_id"]): f"{row['relation']}:{row['entity']}"
        for row in table.documents
        if row["fact_id"] is not None
    }
    ids: dict[str, set[str]] = {}
    queries: dict[str, dict[int, None]] = {}
    for q, row in enumerate(table.queries):
        for fact in row["fact_ids"]:
            if fact in names:
                ids.setdefault(names[fact], set()).add(fact)
                queries.setdefault(names[fact], {})[q] = None
    return {name: (ids[name], tuple(queries[name])) for name in queries}


def _sets(table: Attributions) -> dict[str, tuple[int, ...]]:
    places: dict[str, list[int]] = {}
    for q, row in enumerate(table.queries):
        places.setdefault(row["set"], []).append(q)
    return {name: tuple(own) for name, own in places.items()}


def told(names: Iterable[str]) -> str:
    """The first names, and how many there are beside them."""
    every = list(names)
    more = f" and {len(every) - _MOST_TOLD} more" if len(every) > _MOST_TOLD else ""
    return (", ".join(every[:_MOST_TOLD]) or "none") + more


def rank(
    table: Attributions,
    target: Target,
    method: str,
    *,
    among: Sequence[tuple[str, int]],
    seed: int,
) -> Ranking:
    """The documents `among` (id, occurrence), all of which have a score, for the target's queries.

    Equal scores are in an order that seed, target and method draw, so that the first ten are among
    the first twenty. ValueError for a method that the table does not have.
    """
    score_D = scores_of(table, method)[list(target.queries)].sum(axis=0, dtype=np.float64)
    place = {(row["id"], row["occurrence"]): d for d, row in enumerate(table.documents)}
    own_D = score_D[[place[key] for key in among]]
    drawn = seeded_order(len(among), "removal", "ties", seed, target.name, method)
    turn_D = np.empty(len(among), np.int64)
    turn_D[drawn] = np.arange(len(among))
    order_D = np.lexsort((turn_D, -own_D))
    return Ranking(order_D, own_D[order_D])


def scores_of(table: Attributions, method: str) -> npt.NDArray[np.floating]:
    """(Q, D) of a method of the table, or of `facts`."""
    if method in table.scores:
        return table.scores[method]
    if method == FACTS:
        return relevant_documents(table).astype(np.float64)
    raise ValueError(f"no method {method!r} there: {', '.join(table.scores)}, and {FACTS}")


def queries_of(table: Attributions, target: Target) -> list[Mapping[str, object]]:
    """Set, index and id of each query: what a record says of a target."""
    names = ("set", "index", "id")
    return [{name: table.queries[q].get(name) for name in names} for q in target.queries]


__all__ = ["FACTS", "Ranking", "Target", "find_targets", "queries_of", "rank", "told"]
