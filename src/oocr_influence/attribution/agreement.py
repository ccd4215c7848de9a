"""Whether methods agree, and what their first documents are about.

    agreement(table.scores)                       # (M, M) mean rank correlation over queries
    top_share(scores_QD, group_of_document, k=10) # (Q, groups) of the first k documents

Letters: M methods, Q queries, D documents.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from oocr_influence.attribution.statistics import needed, ranks, standardised

Floats = npt.NDArray[np.float64]


def agreement(scores: Mapping[str, npt.ArrayLike]) -> Floats:
    """(M, M): Spearman's correlation over documents of every two methods, its mean over queries.

    A query for which one of them gives all documents the same score counts for no such pair; NaN
    where that leaves none, as for `exposure` where each document was trained as often.
    """
    table_MQD = [np.asarray(one, dtype=np.float64) for one in scores.values()]
    total_MM = np.zeros((len(table_MQD),) * 2)
    n_MM = np.zeros_like(total_MM)
    for q in range(len(table_MQD[0]) if table_MQD else 0):
        z_DM = standardised(ranks(np.stack([one[q] for one in table_MQD], axis=1)))
        found_MM = z_DM.T @ z_DM
        total_MM += np.nan_to_num(found_MM)
        n_MM += np.isfinite(found_MM)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(n_MM > 0, total_MM / n_MM, np.nan)


def top_share(
    scores_QD: npt.ArrayLike, groups: Sequence[Hashable], k: int = 10
) -> tuple[list[Hashable], Floats]:
    """The groups, and (Q, groups) the share of each among a query's first k documents.

    Documents with equal scores are in no order: of those that the cut at k divides, each counts as
    it would on average. So scores that say nothing have the shares of all documents.
    """
    scores = np.asarray(scores_QD, dtype=np.float64)
    names = list(dict.fromkeys(groups))
    rankdata = needed("scipy.stats").rankdata
    first_QD = rankdata(-scores, method="min", axis=1)
    last_QD = rankdata(-scores, method="max", axis=1)
    in_top_QD = np.clip((k - first_QD + 1) / (last_QD - first_QD + 1), 0, 1)
    belongs_DG = np.array([[one == name for name in names] for one in groups], dtype=np.float64)
    return names, in_top_QD @ belongs_DG / min(k, scores.shape[1])


__all__ = ["agreement", "top_share"]
