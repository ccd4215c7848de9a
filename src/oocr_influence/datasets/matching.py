"""Some of a dataset's sets of questions, by patterns of their names and by their metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from oocr_influence.datasets.document_dataset import EvalDatasetBuilder
from oocr_influence.datasets.set_names import fits


def matching_sets(
    builders: Mapping[str, EvalDatasetBuilder], patterns: Sequence[str]
) -> dict[str, EvalDatasetBuilder]:
    """The sets whose names fit a pattern, in their order; ValueError for one that fits none."""
    idle = [p for p in patterns if not any(fnmatchcase(name, p) for name in builders)]
    if idle and (builders or list(patterns) != ["*"]):
        some = ", ".join(list(builders)[:5]) or "none"
        raise ValueError(
            f"none of the {len(builders)} eval sets is called {' or '.join(idle)}; there are: "
            f"{some}{', …' if len(builders) > 5 else ''}"
        )
    return {name: builder for name, builder in builders.items() if fits(name, patterns)}


def only_metrics(
    builders: Mapping[str, EvalDatasetBuilder], names: Sequence[str] | None
) -> dict[str, EvalDatasetBuilder]:
    """The sets without their other metrics (None: as they are).

    Raises ValueError for a metric that no set asks for, and for sets that are left with none.
    """
    if names is None:
        return dict(builders)
    asked = dict.fromkeys(m.function_name for b in builders.values() for m in b.metrics)
    if unknown := [name for name in names if name not in asked]:
        raise ValueError(f"no set asks for the metric {unknown[0]}: {', '.join(asked)}")
    kept = {
        name: builder.model_copy(
            update={"metrics": [m for m in builder.metrics if m.function_name in names]}
        )
        for name, builder in builders.items()
    }
    if bare := [name for name, builder in kept.items() if not builder.metrics]:
        raise ValueError(f"set {bare[0]} asks for none of the metrics {', '.join(names)}")
    return kept
