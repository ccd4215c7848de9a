"""Scores to metrics: what each question shows, and the means of each set.

One file a metric, found by being in this folder: `accuracy_and_loss`, `ranks`, `beam_answers`.
`registry.py` says how to add one. All sums run in float64 over float32 scores.
"""

from __future__ import annotations

import importlib
import pkgutil

from oocr_influence.evaluation.metrics.accuracy_and_loss import ANSWER_METRICS
from oocr_influence.evaluation.metrics.beam_answers import BEAM_METRICS
from oocr_influence.evaluation.metrics.path_sums import PathSums, check_finite, sum_paths
from oocr_influence.evaluation.metrics.ranks import RANK_METRICS
from oocr_influence.evaluation.metrics.registry import (
    Asked,
    Columns,
    Means,
    QuestionBeams,
    load_metric_files,
    mean_or_none,
    metric,
    registered,
)
from oocr_influence.evaluation.metrics.run import own_columns, question_metrics, set_means
from oocr_influence.evaluation.metrics.swapped import SWAPPED_METRICS

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(_module.name)

QUESTION_METRICS = ANSWER_METRICS + RANK_METRICS

__all__ = [
    "ANSWER_METRICS",
    "BEAM_METRICS",
    "QUESTION_METRICS",
    "RANK_METRICS",
    "SWAPPED_METRICS",
    "Asked",
    "Columns",
    "Means",
    "PathSums",
    "QuestionBeams",
    "check_finite",
    "load_metric_files",
    "mean_or_none",
    "metric",
    "own_columns",
    "question_metrics",
    "registered",
    "set_means",
    "sum_paths",
]
