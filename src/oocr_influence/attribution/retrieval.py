"""Does a method put the documents that state a query's fact on top? Recall, precision, rank.

    found = retrieval(scores_QD, relevant_QD, at=(10, 100))
    found.reciprocal_rank, found.recall[10]            # (Q,) each

Documents with equal scores are in no order: every number is its mean over all orders of equal ones,
as if ties were broken at random. So a method that says the same of all documents has what chance
has, and never what the top has.

Letters: Q queries, D documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from oocr_influence.attribution.statistics import needed

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Retrieval:
    """Of every query, (Q,) each; NaN where no document states its fact."""

    reciprocal_rank: Floats
    """1 / rank of the first document that states the fact; its mean over queries is the MRR."""
    recall: dict[int, Floats]
    """By k: the share of the documents that state the fact among the k on top."""
    precision: dict[int, Floats]
    """By k: the share of the k on top that state the fact (of fewer than k documents: of all)."""


def retrieval(
    scores_QD: npt.ArrayLike, relevant_QD: Bools, at: Sequence[int] = (10, 100)
) -> Retrieval:
    """Score each query's order of documents; ValueError for shapes that differ or a k below 1."""
    scores = np.asarray(scores_QD, dtype=np.float64)
    if scores.shape != relevant_QD.shape or not scores.shape[-1]:
        raise ValueError(f"scores {scores.shape} of documents {relevant_QD.shape}")
    if any(k < 1 for k in at):
        raise ValueError(f"k {min(at)}: count at least the first document")
    rankdata = needed("scipy.stats").rankdata
    first_QD = rankdata(-scores, method="min", axis=1)  # the first of the places of its equals
    last_QD = rankdata(-scores, method="max", axis=1)
    n_Q = relevant_QD.sum(axis=1).astype(np.float64)
    n_Q[n_Q == 0] = np.nan
    recall, precision = {}, {}
    for k in at:
        # The share of its equals' places that are among the first k.
        share_QD = np.clip((k - first_QD + 1) / (last_QD - first_QD + 1), 0, 1)
        found_Q = np.where(np.isnan(n_Q), np.nan, (share_QD * relevant_QD).sum(axis=1))
        recall[k] = found_Q / n_Q
        precision[k] = found_Q / min(k, scores.shape[1])
    ranks = zip(first_QD, last_QD, relevant_QD, strict=True)
    return Retrieval(
        np.array([_reciprocal_rank(*of_query) for of_query in ranks]), recall, precision
    )


def by_chance(n_documents: int, n_relevant_Q: npt.ArrayLike, at: Sequence[int]) -> Retrieval:
    """What an order drawn at random has on average: (Q,) for queries with so many documents."""
    n_Q = np.asarray(n_relevant_Q, dtype=np.int64)
    chances = {int(n): _expected_reciprocal_rank(n_documents, int(n)) for n in np.unique(n_Q)}
    stated_Q = n_Q > 0
    return Retrieval(
        np.array([chances[int(n)] for n in n_Q], dtype=np.float64),
        {k: np.where(stated_Q, min(k / n_documents, 1.0), np.nan) for k in at},
        {k: np.where(stated_Q, n_Q / n_documents, np.nan) for k in at},
    )


def _reciprocal_rank(
    first_D: npt.NDArray[np.int64], last_D: npt.NDArray[np.int64], relevant_D: Bools
) -> float:
    """Of the first relevant document, given the first and the last place of each one's equals."""
    if not relevant_D.any():
        return float("nan")
    first = int(first_D[relevant_D].min())
    equals_D = first_D == first
    n_equal = int(last_D[equals_D][0]) - first + 1
    n_relevant = int((equals_D & relevant_D).sum())
    return _expected_reciprocal_rank(n_equal, n_relevant, before=first - 1)


def _expected_reciprocal_rank(n_documents: int, n_relevant: int, before: int = 0) -> float:
    """Of the first of `n_relevant` among documents in random order, behind `before` others."""
    if n_relevant == 0:
        return float("nan")
    total, none_yet = 0.0, 1.0
    for place in range(1, n_documents - n_relevant + 2):
        here = n_relevant / (n_documents - place + 1)
        total += none_yet * here / (before + place)
        none_yet *= 1 - here
    return total
