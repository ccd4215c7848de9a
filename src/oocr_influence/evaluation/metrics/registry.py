"""A metric is a small function under the name that a dataset's `metrics` list asks for it by.

    @metric("in_top_3", columns=["in_top_3"])
    def in_top_3(asked: Asked) -> Columns:
        return {"in_top_3": tie_averaged_rank(asked.loss_QC, asked.right_Q) <= 3}

Its columns enter the records, and the mean of each, `mean_<column>`, the set's results. It lies in
a file of this folder, or in any file that a run is told of by --metric_files. See docs/metrics.md.

Letters: Q questions of a set, C its candidates.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from oocr_influence.evaluation.metrics.path_sums import Floats, PathSums
from oocr_influence.evaluation.plan import Ints, PlannedSet
from oocr_influence.evaluation.tokens import Tokens

Columns = dict[str, npt.NDArray[Any]]
"""A value a question, (Q,), by name; NaN or None where one does not apply."""
Means = dict[str, float | int | None]


@dataclass(frozen=True)
class QuestionBeams:
    """The best completions of one question, best first."""

    texts: list[str]
    tokens: list[Tokens]
    logprobs: list[float]
    probs: list[float]
    rank: int | None
    """Place of the first completion that gives the right answer, from 1."""
    prob_right: float
    """Summed probability of all returned completions that give the right answer."""


@dataclass(frozen=True)
class Asked:
    """What a metric may look at: one set's questions and what the model says of them."""

    planned: PlannedSet
    sums: PathSums
    baseline: PathSums | None = None
    """The untouched model's, where they are known."""
    beams: Sequence[QuestionBeams] | None = None
    """The model's own completions, where the set asks for them and this evaluation made them."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What the dataset says beside `function_name`."""

    @property
    def loss_QC(self) -> Floats:
        """Mean cross-entropy over each candidate's tokens, in nats."""
        loss_QC: Floats = self.sums.loss_P[self.planned.path_QC]
        return loss_QC

    @property
    def logprob_QC(self) -> Floats:
        """Each candidate's log-probability, summed over its tokens."""
        logprob_QC: Floats = self.sums.logprob_P[self.planned.path_QC]
        return logprob_QC

    @property
    def right_Q(self) -> Ints:
        """Column of the right answer."""
        return self.planned.right_Q


@dataclass(frozen=True)
class Metric:
    """A registered metric; `metric` below makes one of a function."""

    function_name: str
    columns: tuple[str, ...]
    compute: Callable[[Asked], Columns]
    means: Callable[[PlannedSet, Columns], Means]


_REGISTERED: dict[str, Metric] = {}


def metric(
    function_name: str,
    *,
    columns: Sequence[str],
    means: Callable[[PlannedSet, Columns], Means] | None = None,
) -> Callable[[Callable[[Asked], Columns]], Callable[[Asked], Columns]]:
    """Register the decorated function.

    It returns an array (Q,) for each of `columns`, or leaves one out where it cannot be had.
    `means` replaces the mean of every column. Raises ValueError if the name or a column is taken by
    another function.
    """

    def register(compute: Callable[[Asked], Columns]) -> Callable[[Asked], Columns]:
        own = Metric(function_name, tuple(columns), compute, means or _mean_of(tuple(columns)))
        for other in _REGISTERED.values():
            again = other.compute.__module__ == compute.__module__  # a file may be loaded twice
            if other.function_name == function_name and not again:
                raise ValueError(f"a metric '{function_name}' is registered already")
            shared = sorted(set(own.columns) & set(other.columns))
            if other.function_name != function_name and shared:
                raise ValueError(
                    f"metric '{function_name}': column '{shared[0]}' belongs to "
                    f"'{other.function_name}'"
                )
        _REGISTERED[function_name] = own
        return compute

    return register


def registered() -> dict[str, Metric]:
    """Every metric by the name that a dataset asks for it by, in the order of registration."""
    return dict(_REGISTERED)


def load_metric_files(paths: Iterable[Path]) -> list[str]:
    """Run Python files that register metrics; returns the function names of these.

    Raises FileNotFoundError, or ValueError naming a file that fails or registers nothing.
    """
    names: list[str] = []
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"no file of metrics at '{path}'")
        name = f"oocr_influence_metrics_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ValueError(f"{path} is no Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses of the file look themselves up there
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise ValueError(f"{path}: {type(error).__name__}: {error}") from error
        own = [n for n, made in _REGISTERED.items() if made.compute.__module__ == name]
        if not own:
            raise ValueError(f"{path} registers no metric: decorate a function with @metric(…)")
        names += own
    return names


def mean_or_none(values: npt.NDArray[Any] | None) -> float | None:
    """Mean in float64, or None where there is nothing to average."""
    if values is None or not len(values):
        return None
    mean = float(np.mean(values, dtype=np.float64))
    return mean if np.isfinite(mean) else None


def _mean_of(columns: tuple[str, ...]) -> Callable[[PlannedSet, Columns], Means]:
    def means(planned: PlannedSet, found: Columns) -> Means:
        return {f"mean_{name}": mean_or_none(found.get(name)) for name in columns}

    return means
