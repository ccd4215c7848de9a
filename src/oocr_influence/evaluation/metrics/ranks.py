"""`ranks`: the right answer's place among the answers of its set, and another entity's beside it.

Candidates are ranked by loss a token. `rank` is strict (1 + candidates with a lower loss), so a
model without any opinion ranks every answer first: the other ranks are therefore averaged over the
order of ties (1 + lower + half of the tied), and `n_ties` counts the candidates that tie. The
`…_swapped` columns are a control: see `swapped.py`.

Letters: Q questions of a set, C its candidates.
"""

from __future__ import annotations

import numpy as np

from oocr_influence.evaluation.metrics.path_sums import Bools, Floats
from oocr_influence.evaluation.metrics.registry import Asked, Columns, Means, mean_or_none, metric
from oocr_influence.evaluation.metrics.swapped import SWAPPED_METRICS, swapped_answers
from oocr_influence.evaluation.plan import Ints, PlannedSet

RANK_METRICS = (
    "rank",
    "rank_tie_averaged",
    "n_ties",
    "rank_logprob",
    "rank_prior_corrected",
    "rank_step0_corrected",
    "rank_without_few_shot",
    "n_candidates",
    "normalised_rank",
)


def rank_means(planned: PlannedSet, columns: Columns) -> Means:
    """The mean of each rank, beside the number of candidates and of questions with a tie."""
    means: Means = {
        "n_candidates": len(planned.candidates),
        "n_tied": int((columns["n_ties"] > 0).sum()),
    }
    for name in (*RANK_METRICS, *SWAPPED_METRICS):
        if name not in ("n_ties", "n_candidates"):
            means[f"mean_{name}"] = mean_or_none(columns.get(name))
    return means


@metric("ranks", columns=(*RANK_METRICS, *SWAPPED_METRICS, "completion_swapped"), means=rank_means)
def ranks(asked: Asked) -> Columns:
    """Every rank of the right answer; `rank_step0_corrected` where there is a baseline."""
    planned, right_Q, loss_QC = asked.planned, asked.right_Q, asked.loss_QC
    lower_Q, ties_Q = _count_lower_and_tied(loss_QC, right_Q)
    n_candidates = loss_QC.shape[1]
    rank_Q = 1 + lower_Q
    columns: Columns = {
        "rank": rank_Q,
        "rank_tie_averaged": tie_averaged_rank(loss_QC, right_Q),
        "n_ties": ties_Q,
        "rank_without_few_shot": tie_averaged_rank(
            np.where(planned.shown_QC & ~_is_right(loss_QC, right_Q), np.inf, loss_QC), right_Q
        ),
        "n_candidates": np.full(len(rank_Q), n_candidates),
        "normalised_rank": (
            (rank_Q - 1) / (n_candidates - 1) if n_candidates > 1 else np.full(len(rank_Q), np.nan)
        ),
    }
    if asked.sums.pruned_P is None:
        columns |= _ranks_from_every_sum(asked) | _swapped_columns(asked)
    return columns


def _ranks_from_every_sum(asked: Asked) -> Columns:
    """What is not known where candidates that had lost were not read on."""
    right_Q, loss_QC = asked.right_Q, asked.loss_QC
    prior_C = loss_QC.sum(0) / max(1, len(loss_QC))
    columns: Columns = {
        "rank_logprob": tie_averaged_rank(-asked.logprob_QC, right_Q),
        # A candidate that is likely after any prompt of the set says nothing about this one.
        "rank_prior_corrected": tie_averaged_rank(loss_QC - prior_C, right_Q),
    }
    if asked.baseline is not None:
        before_QC = asked.baseline.loss_P[asked.planned.path_QC]
        columns["rank_step0_corrected"] = tie_averaged_rank(loss_QC - before_QC, right_Q)
    return columns


def tie_averaged_rank(loss_QC: Floats, right_Q: Ints) -> Floats:
    """1 + candidates with a lower loss + half of those that tie exactly with the right one."""
    lower_Q, ties_Q = _count_lower_and_tied(loss_QC, right_Q)
    rank_Q: Floats = 1 + lower_Q + ties_Q / 2
    return rank_Q


def _swapped_columns(asked: Asked) -> Columns:
    """Another entity's answer as if it were the right one; NaN where there is no other."""
    swapped_Q = swapped_answers(asked.planned)
    known_Q = np.maximum(swapped_Q, 0)
    at = (np.arange(len(known_Q)), known_Q)
    values = {
        "loss_swapped": asked.loss_QC[at],
        "logprob_swapped": asked.logprob_QC[at],
        "prob_swapped": np.exp(asked.logprob_QC[at]),
        "rank_swapped": tie_averaged_rank(asked.loss_QC, known_Q),
    }
    texts = [None if c < 0 else asked.planned.candidates[c] for c in swapped_Q]
    return {
        **{name: np.where(swapped_Q < 0, np.nan, value) for name, value in values.items()},
        "completion_swapped": np.array(texts, object),
    }


def _count_lower_and_tied(loss_QC: Floats, right_Q: Ints) -> tuple[Ints, Ints]:
    right_Q1 = np.take_along_axis(loss_QC, right_Q[:, None], 1)
    lower_Q: Ints = (loss_QC < right_Q1).sum(1)
    ties_Q: Ints = (loss_QC == right_Q1).sum(1) - 1
    return lower_Q, ties_Q


def _is_right(loss_QC: Floats, right_Q: Ints) -> Bools:
    right_QC: Bools = np.arange(loss_QC.shape[1]) == right_Q[:, None]
    return right_QC
