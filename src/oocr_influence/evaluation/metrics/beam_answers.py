"""`beam_search`: whether the model's own best completions give the right answer.

The completions themselves come from `beam_search.py`; an evaluation that made none has no columns.
"""

from __future__ import annotations

import math

import numpy as np

from oocr_influence.evaluation.metrics.registry import Asked, Columns, Means, metric
from oocr_influence.evaluation.plan import PlannedSet

BEAM_METRICS = ("beam_rank", "beam_prob_right")


def beam_means(planned: PlannedSet, columns: Columns) -> Means:
    """The share of questions whose answer is among the completions, and its mean probability."""
    if "beam_rank" not in columns:
        return {}
    ranks, probs = (columns[name].tolist() for name in BEAM_METRICS)
    if not ranks:
        return {"beam_found": None, "mean_beam_prob_right": None}
    return {
        "beam_found": sum(not math.isnan(rank) for rank in ranks) / len(ranks),
        "mean_beam_prob_right": sum(probs) / len(probs),
    }


@metric("beam_search", columns=BEAM_METRICS, means=beam_means)
def beam_answers(asked: Asked) -> Columns:
    """Place of the first completion that gives the answer (NaN: none does), and all their
    probability."""
    if asked.beams is None:
        return {}
    return {
        "beam_rank": np.array([np.nan if b.rank is None else b.rank for b in asked.beams]),
        "beam_prob_right": np.array([b.prob_right for b in asked.beams]),
    }
