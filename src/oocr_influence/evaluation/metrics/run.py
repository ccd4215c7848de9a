"""The registered metrics that a set asks for, computed; unknown ones are named once, not fatal."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from oocr_influence.evaluation.metrics.path_sums import PathSums, check_finite
from oocr_influence.evaluation.metrics.registry import (
    Asked,
    Columns,
    Means,
    Metric,
    QuestionBeams,
    registered,
)
from oocr_influence.evaluation.plan import PlannedSet

logger = logging.getLogger(__name__)


def question_metrics(
    planned: PlannedSet,
    sums: PathSums,
    baseline: PathSums | None = None,
    beams: Sequence[QuestionBeams] | None = None,
) -> Columns:
    """The metrics that the set asks for, one array (Q,) each, NaN where one does not apply.

    `baseline` holds the untouched model's sums; without it there is no `rank_step0_corrected`.
    Raises NonFiniteScoreError naming set, question and candidate, and ValueError naming a metric
    that returns something else than it registered.
    """
    check_finite(planned, sums)
    columns: Columns = {}
    for own in _asked_for(planned):
        options = planned.metrics[own.function_name]
        found = own.compute(Asked(planned, sums, baseline, beams, options))
        for name, values in found.items():
            if name not in own.columns or len(values) != len(planned.points):
                raise ValueError(
                    f"metric '{own.function_name}' gives set '{planned.name}' {len(values)} values "
                    f"'{name}'; it registered {', '.join(own.columns)}, and the set has "
                    f"{len(planned.points)} questions"
                )
        columns |= found
    return columns


def set_means(planned: PlannedSet, columns: Columns) -> Means:
    """Means over the set's questions: `accuracy` and `mean_<metric>`, with counts beside them.

    None stands for a mean that does not apply: no questions, no baseline, a single candidate.
    """
    means: Means = {"n": len(planned.points)}
    for own in _asked_for(planned):
        means |= own.means(planned, columns)
    return means


def own_columns(sets: Iterable[PlannedSet], known: Iterable[str]) -> list[str]:
    """The columns of the sets' metrics that are not among `known`, in order."""
    names = (name for planned in sets for own in _asked_for(planned) for name in own.columns)
    return [name for name in dict.fromkeys(names) if name not in set(known)]


def warn_of_unknown(sets: Iterable[PlannedSet]) -> None:
    """Name the metrics that sets ask for and nobody registered; the sets' others are computed."""
    known = registered()
    asked = (name for planned in sets for name in planned.metrics)
    unknown = [name for name in dict.fromkeys(asked) if name not in known]
    if unknown:
        logger.warning(
            "no metric is registered as %s: left out; known are %s (see docs/metrics.md)",
            ", ".join(f"'{name}'" for name in unknown),
            ", ".join(known),
        )


def _asked_for(planned: PlannedSet) -> list[Metric]:
    return [own for name, own in registered().items() if name in planned.metrics]
