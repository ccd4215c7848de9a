"""`accuracy_and_loss`: what the model says of the right answer, teacher-forced.

`loss` is the mean cross-entropy over the answer's tokens, `logprob` their summed log-probability.
"""

from __future__ import annotations

import numpy as np

from oocr_influence.evaluation.metrics.registry import Asked, Columns, Means, mean_or_none, metric
from oocr_influence.evaluation.plan import PlannedSet

ANSWER_METRICS = ("loss", "logprob", "prob", "accuracy", "softmargin", "softmargin_sum")


def answer_means(planned: PlannedSet, columns: Columns) -> Means:
    """`accuracy`, and `mean_<metric>` of the others."""
    return {
        name if name == "accuracy" else f"mean_{name}": mean_or_none(columns[name])
        for name in ANSWER_METRICS
    }


@metric("accuracy_and_loss", columns=ANSWER_METRICS, means=answer_means)
def accuracy_and_loss(asked: Asked) -> Columns:
    """Loss, log-probability, accuracy and margin of the right answer."""
    path_Q, sums = asked.planned.right_path_Q, asked.sums
    logprob_Q, length_Q = sums.logprob_P[path_Q], sums.length_P[path_Q]
    return {
        "loss": sums.loss_P[path_Q],
        "logprob": logprob_Q,
        "prob": np.exp(logprob_Q),
        "accuracy": sums.correct_P[path_Q],
        "softmargin": sums.softmargin_P[path_Q] / length_Q,
        "softmargin_sum": sums.softmargin_P[path_Q],
    }
