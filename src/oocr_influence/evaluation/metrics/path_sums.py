"""Token scores added up over each path, in float64, and the check that they mean anything.

Letters: Q questions of a set, C its candidates, P paths of the plan.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from oocr_influence.evaluation.plan import EvalPlan, Ints, PlannedSet
from oocr_influence.evaluation.scores import NonFiniteScoreError, Scores

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PathSums:
    """Scores added up over each path's tokens; margins and correctness of right answers only."""

    logprob_P: Floats
    softmargin_P: Floats
    correct_P: Bools
    length_P: Ints
    pruned_P: Bools | None = None
    """Where candidates that had lost were not read on: which, their log-probability being -inf."""

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
    logprob_P = np.add.reduceat(scores.logprob_E.astype(np.float64), starts)
    if scores.pruned_P is not None:
        logprob_P[scores.pruned_P] = -np.inf  # ranks behind
    return PathSums(
        logprob_P,
        np.add.reduceat(scores.softmargin_E.astype(np.float64), starts),
        np.logical_and.reduceat(scores.correct_E, starts),
        plan.path_length_P,
        scores.pruned_P,
    )


def check_finite(planned: PlannedSet, sums: PathSums) -> None:
    """Raise NonFiniteScoreError if any loss, or any right answer's margin, is not finite."""
    loss_QC = sums.loss_P[planned.path_QC]
    margin_Q = sums.softmargin_P[planned.right_path_Q]
    bad_QC = ~np.isfinite(loss_QC)
    if sums.pruned_P is not None:
        bad_QC &= ~sums.pruned_P[planned.path_QC]
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
