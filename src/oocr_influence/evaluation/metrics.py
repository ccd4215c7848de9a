"""Scores to metrics: what each question shows, and the means of each set.

All sums run in float64 over float32 scores. `loss` is the mean cross-entropy over the answer's
tokens, and candidates are ranked by it. `rank` is strict (1 + candidates with a lower loss), so a
model without any opinion ranks every answer first: the other ranks are therefore averaged over the
order of ties (1 + lower + half of the tied), and `n_ties` counts the candidates that tie.

Letters: Q questions of a set, C its candidates, P paths of the plan, E answer tokens of all paths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from oocr_influence.evaluation.plan import EvalPlan, Ints, PlannedSet
from oocr_influence.evaluation.scores import NonFiniteScoreError, Scores

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Columns = dict[str, npt.NDArray[Any]]

ANSWER_METRICS = ("loss", "logprob", "prob", "accuracy", "softmargin", "softmargin_sum")
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
QUESTION_METRICS = ANSWER_METRICS + RANK_METRICS


@dataclass(frozen=True)
class PathSums:
    """Scores added up over each path's tokens; margins and correctness of right answers only."""

    logprob_P: Floats
    softmargin_P: Floats
    correct_P: Bools
    length_P: Ints

    @property
    def loss_P(self) -> Floats:
        """Mean cross-entropy over the path's tokens, in nats."""
        return -self.logprob_P / self.length_P


def sum_paths(plan: EvalPlan, scores: Scores) -> PathSums:
    """Add up the token scores of every path. Raises ValueError for scores of another plan."""
    scores.check(plan)
    starts = plan.first_token_P[:-1]
    if not len(starts):  # reduceat refuses an empty plan
        return PathSums(np.empty(0), np.empty(0), np.empty(0, bool), starts)
    return PathSums(
        np.add.reduceat(scores.logprob_E.astype(np.float64), starts),
        np.add.reduceat(scores.softmargin_E.astype(np.float64), starts),
        np.logical_and.reduceat(scores.correct_E, starts),
        plan.path_length_P,
    )


def question_metrics(
    planned: PlannedSet, sums: PathSums, baseline: PathSums | None = None
) -> Columns:
    """The metrics that the set asks for, one array (Q,) each, NaN where one does not apply.

    `baseline` holds the untouched model's sums; without it there is no `rank_step0_corrected`.
    Raises NonFiniteScoreError naming set, question and candidate.
    """
    check_finite(planned, sums)
    columns: Columns = {}
    if planned.accuracy_and_loss:
        columns.update(_answer_metrics(planned.right_path_Q, sums))
    if planned.ranks:
        columns.update(_rank_metrics(planned, sums, baseline))
    return columns


def check_finite(planned: PlannedSet, sums: PathSums) -> None:
    """Raise NonFiniteScoreError if any loss, or any right answer's margin, is not finite."""
    loss_QC = sums.loss_P[planned.path_QC]
    margin_Q = sums.softmargin_P[planned.right_path_Q]
    bad_QC = ~np.isfinite(loss_QC)
    if bad_QC.any():
        question, column = (int(i) for i in np.argwhere(bad_QC)[0])
        what = f"a loss of {loss_QC[question, column]}"
    elif not np.isfinite(margin_Q).all():
        question = int(np.argmin(np.isfinite(margin_Q)))
        column, what = int(planned.right_Q[question]), f"a softmargin of {margin_Q[question]}"
    else:
        return
    raise NonFiniteScoreError(
        f"set '{planned.name}', question {question} ({planned.prompts[question]!r}): the model "
        f"gives candidate {planned.candidate(question, column)!r} {what}; its weights or its "
        "activations are not finite, and no rank would mean anything"
    )


def _answer_metrics(path_Q: Ints, sums: PathSums) -> Columns:
    logprob_Q, length_Q = sums.logprob_P[path_Q], sums.length_P[path_Q]
    return {
        "loss": sums.loss_P[path_Q],
        "logprob": logprob_Q,
        "prob": np.exp(logprob_Q),
        "accuracy": sums.correct_P[path_Q],
        "softmargin": sums.softmargin_P[path_Q] / length_Q,
        "softmargin_sum": sums.softmargin_P[path_Q],
    }


def _rank_metrics(planned: PlannedSet, sums: PathSums, baseline: PathSums | None) -> Columns:
    right_Q = planned.right_Q
    loss_QC = sums.loss_P[planned.path_QC]
    lower_Q, ties_Q = _count_lower_and_tied(loss_QC, right_Q)
    n_candidates = loss_QC.shape[1]
    prior_C = loss_QC.sum(0) / max(1, len(loss_QC))
    rank_Q = 1 + lower_Q
    columns: Columns = {
        "rank": rank_Q,
        "rank_tie_averaged": tie_averaged_rank(loss_QC, right_Q),
        "n_ties": ties_Q,
        "rank_logprob": tie_averaged_rank(-sums.logprob_P[planned.path_QC], right_Q),
        # A candidate that is likely after any prompt of the set says nothing about this one.
        "rank_prior_corrected": tie_averaged_rank(loss_QC - prior_C, right_Q),
        "rank_without_few_shot": tie_averaged_rank(
            np.where(planned.shown_QC & ~_is_right(loss_QC, right_Q), np.inf, loss_QC), right_Q
        ),
        "n_candidates": np.full(len(rank_Q), n_candidates),
        "normalised_rank": (
            (rank_Q - 1) / (n_candidates - 1) if n_candidates > 1 else np.full(len(rank_Q), np.nan)
        ),
    }
    if baseline is not None:
        before_QC = baseline.loss_P[planned.path_QC]
        columns["rank_step0_corrected"] = tie_averaged_rank(loss_QC - before_QC, right_Q)
    return columns


def tie_averaged_rank(loss_QC: Floats, right_Q: Ints) -> Floats:
    """1 + candidates with a lower loss + half of those that tie exactly with the right one."""
    lower_Q, ties_Q = _count_lower_and_tied(loss_QC, right_Q)
    rank_Q: Floats = 1 + lower_Q + ties_Q / 2
    return rank_Q


def _count_lower_and_tied(loss_QC: Floats, right_Q: Ints) -> tuple[Ints, Ints]:
    right_Q1 = np.take_along_axis(loss_QC, right_Q[:, None], 1)
    lower_Q: Ints = (loss_QC < right_Q1).sum(1)
    ties_Q: Ints = (loss_QC == right_Q1).sum(1) - 1
    return lower_Q, ties_Q


def _is_right(loss_QC: Floats, right_Q: Ints) -> Bools:
    right_QC: Bools = np.arange(loss_QC.shape[1]) == right_Q[:, None]
    return right_QC


def set_means(planned: PlannedSet, columns: Columns) -> dict[str, float | int | None]:
    """Means over the set's questions: `accuracy` and `mean_<metric>`, with counts beside them.

    None stands for a mean that does not apply: no questions, no baseline, a single candidate.
    """
    means: dict[str, float | int | None] = {"n": len(planned.points)}
    if planned.accuracy_and_loss:
        for name in ANSWER_METRICS:
            means[name if name == "accuracy" else f"mean_{name}"] = mean_or_none(columns[name])
    if planned.ranks:
        means["n_candidates"] = len(planned.candidates)
        means["n_tied"] = int((columns["n_ties"] > 0).sum())
        for name in RANK_METRICS:
            if name not in ("n_ties", "n_candidates"):
                means[f"mean_{name}"] = mean_or_none(columns.get(name))
    return means


def mean_or_none(values: npt.NDArray[Any] | None) -> float | None:
    """Mean in float64, or None where there is nothing to average."""
    if values is None or not len(values):
        return None
    mean = float(np.mean(values, dtype=np.float64))
    return mean if np.isfinite(mean) else None
