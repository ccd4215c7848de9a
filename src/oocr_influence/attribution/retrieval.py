"""Does a method put the documents that state a query's fact on top? Recall, precision, rank.

    found = retrieval(scores_QD, relevant_QD, at=(10, 100))
    found.reciprocal_rank, found.recall[10]            # (Q,) each

Documents with equal scores are in no order: in the rank each has the mean of their places, and of
those that the cut at k divides a share counts, as it would on average with ties broken at random.
So a method that says the same of all documents has the recall of chance, never that of the top.

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
    """1 / rank of the first document that states the fact; its mean is the MRR."""
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
    with np.errstate(divide="ignore", invalid="ignore"):
        rank_Q = np.where(relevant_QD, (first_QD + last_QD) / 2, np.inf).min(axis=1)
        recall, precision = {}, {}
        for k in at:
            # The share of its equals' places that are among the first k.
            share_QD = np.clip((k - first_QD + 1) / (last_QD - first_QD + 1), 0, 1)
            found_Q = (share_QD * relevant_QD).sum(axis=1)
            recall[k] = np.where(n_Q > 0, found_Q / n_Q, np.nan)
            precision[k] = np.where(n_Q > 0, found_Q / min(k, scores.shape[1]), np.nan)
        return Retrieval(np.where(n_Q > 0, 1 / rank_Q, np.nan), recall, precision)


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


def _expected_reciprocal_rank(n_documents: int, n_relevant: int) -> float:
    """Of the first of `n_relevant` documents, in an order drawn at random."""
    if n_relevant == 0:
        return float("nan")
    total, none_before = 0.0, 1.0
    for rank in range(1, n_documents - n_relevant + 2):
        here = n_relevant / (n_documents - rank + 1)
        total += none_before * here / rank
        none_before *= 1 - here
    return total
