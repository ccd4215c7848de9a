"""The same strict ranks from fewer tokens: candidates that have lost already are not read on.

Losses are never negative, so a candidate whose first tokens alone cost more than the right answer's
mean loss times its own length ranks behind, whatever follows. Two passes decide it:

1. each prompt with its right answers alone, which gives every other candidate's tokens as far as it
   begins alike, and the first one in which it differs;
2. the candidates that may still win, beside the right answer, for the prompts that have any.

A model that knows an answer is done with it after the first pass; one that knows nothing pays for
the prompts twice. A pruned candidate has no log-probability: what needs every candidate's is left
out of the results.

Letters: P paths, E answer tokens of all paths, Q questions of a set, C its candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from oocr_influence.evaluation.plan import Bools, EvalPlan
from oocr_influence.evaluation.scores import Floats, Scores
from oocr_influence.evaluation.tree import score_tree, tolerance
from oocr_influence.evaluation.trie import lay_out
from oocr_influence.models.team import ALONE, Team

# A set with any other metric keeps all its candidates.
CONTENT_WITH_RANKS = {"accuracy_and_loss", "ranks", "beam_search"}


def score_pruned(
    model: Any,
    plan: EvalPlan,
    token_budget: int,
    progress: Callable[[int], None] | None = None,
    team: Team = ALONE,
) -> Scores:
    """Score every path of `plan` as far as strict ranks need it.

    `progress` is told of each group twice, once a pass.
    """
    right_P = right_paths(plan)
    first = score_tree(model, plan, lay_out(plan, token_budget, read_P=right_P), progress, team)
    lost_P, complete_P = _lost(plan, first, tolerance(model))
    wanted_P = ~lost_P & ~complete_P
    group_P = plan.path_group_P
    again_G = np.zeros(len(plan.prefixes), bool)
    again_G[group_P[wanted_P]] = True
    if progress is not None:
        progress(int((~again_G).sum()))
    # The right answers are read again, so that what is compared comes from one pass.
    read_P = wanted_P | (right_P & again_G[group_P])
    groups = np.flatnonzero(again_G).tolist()
    second = score_tree(model, plan, lay_out(plan, token_budget, groups, read_P), progress, team)
    return replace(
        first,
        logprob_E=_newer(second.logprob_E, first.logprob_E),
        correct_E=np.where(np.isnan(second.softmargin_E), first.correct_E, second.correct_E),
        softmargin_E=_newer(second.softmargin_E, first.softmargin_E),
        pruned_P=lost_P,
    )


def right_paths(plan: EvalPlan) -> Bools:
    """Which paths (P,) are the right answer of any question."""
    right_P = np.zeros(plan.n_paths, bool)
    for planned in plan.sets.values():
        right_P[planned.right_path_Q] = True
    return right_P


def _lost(plan: EvalPlan, scores: Scores, margin: float) -> tuple[Bools, Bools]:
    """Paths whose known tokens cost too much for any rank, and paths that are known in full.

    `margin` is what rounding may change, in nats a token.
    """
    known_E = ~np.isnan(scores.logprob_E)
    starts = plan.first_token_P[:-1]
    if not len(starts):  # reduceat refuses an empty plan
        return np.zeros(0, bool), np.zeros(0, bool)
    cost_P = np.add.reduceat(np.where(known_E, -scores.logprob_E, 0).astype(np.float64), starts)
    complete_P = np.logical_and.reduceat(known_E, starts)
    mean_P = cost_P / plan.path_length_P
    limit_P = np.full(
        plan.n_paths, -np.inf
    )  # the dearest right answer that the path is ranked with
    for planned in plan.sets.values():
        if CONTENT_WITH_RANKS.issuperset(planned.metrics):
            right_Q1 = mean_P[planned.right_path_Q][:, None]
        else:
            right_Q1 = np.full((len(planned.points), 1), np.inf)
        np.maximum.at(limit_P, planned.path_QC, np.broadcast_to(right_Q1, planned.path_QC.shape))
    return (mean_P > limit_P + margin) & ~complete_P, complete_P


def _newer(second_E: Floats, first_E: Floats) -> Floats:
    return np.where(np.isnan(second_E), first_E, second_E)
