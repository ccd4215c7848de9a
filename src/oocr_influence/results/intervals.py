"""How sure a mean over questions is: intervals over entities and seeds, and the sign test.

    interval = mean_interval(values, runs=run_of_each, entities=entity_of_each)
    interval.mean, interval.low, interval.high

Questions are no independent draws: those about one entity share what was learned of it, those of
one run share a data order. Both are drawn anew, with replacement and independently of each other
(the pigeonhole bootstrap: Owen 2007, "The pigeonhole bootstrap", Ann. Appl. Stat. 1(2)). Entities
are drawn once for all runs, since all runs are asked about the same ones: to draw them anew within
each run would average their differences away, and such intervals are too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

N_RESAMPLES = 2000
CONFIDENCE = 0.95
_AT_ONCE = 256  # resamples whose weights stand in memory together

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """A mean and where it would lie with other entities and seeds.

    `low` and `high` are None where there is one run of one entity: nothing says how sure it is.
    With a single run the interval is over entities alone, and says nothing about other seeds.
    """

    mean: float
    low: float | None
    high: float | None
    n_runs: int
    n_entities: int
    n_questions: int


def mean_interval(
    values: Sequence[float],
    *,
    runs: Sequence[Hashable],
    entities: Sequence[Hashable],
    n_resamples: int = N_RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval:
    """The mean of `values` (N,) and its percentile bootstrap interval over runs and entities.

    `runs` and `entities` (N,) say whose each value is. The same seed gives the same interval, in
    whatever order the values come. Raises ValueError for no values, for unequal lengths and for
    values that are not finite.
    """
    value_N = np.asarray(values, dtype=np.float64)
    if not len(value_N) or not len(value_N) == len(runs) == len(entities):
        raise ValueError(
            f"{len(value_N)} values of {len(runs)} runs and {len(entities)} entities: as many of "
            "each are needed, and at least one"
        )
    if not np.isfinite(value_N).all():
        raise ValueError("a value is not finite: leave it out, and say so")
    run_N, entity_N = _places(runs), _places(entities)
    shape = (int(run_N.max()) + 1, int(entity_N.max()) + 1)
    cell_N, n_cells = run_N * shape[1] + entity_N, shape[0] * shape[1]
    sums_RE = np.bincount(cell_N, value_N, n_cells).astype(np.float64).reshape(shape)
    counts_RE = np.bincount(cell_N, minlength=n_cells).astype(np.float64).reshape(shape)
    low = high = None
    if max(shape) > 1:
        means_B = _resampled_means(sums_RE, counts_RE, n_resamples, seed)
        tail = (1 - confidence) / 2
        low, high = (float(end) for end in np.quantile(means_B, [tail, 1 - tail]))
    return Interval(float(value_N.mean()), low, high, shape[0], shape[1], len(value_N))


def sign_test(differences: Sequence[float]) -> float:
    """The two-sided p-value of as uneven a split into positive and negative ones by chance.

    Exact, from the binomial distribution; differences of 0 count for neither side. The differences
    must be independent: one an entity, not one a question.
    """
    positive = sum(value > 0 for value in differences)
    n = positive + sum(value < 0 for value in differences)
    fewer = min(positive, n - positive)
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    return min(1.0, float(2 * tail / 2**n))  # of whole numbers: 2**n may be no float


def _places(keys: Sequence[Hashable]) -> Ints:
    """Each key's place among the distinct ones, which are sorted: order of rows does not matter."""
    places = {key: place for place, key in enumerate(sorted(set(keys), key=str))}
    return np.array([places[key] for key in keys], dtype=np.int64)


def _resampled_means(sums_RE: Floats, counts_RE: Floats, n_resamples: int, seed: int) -> Floats:
    """The mean in each resample; one that drew no question at all is left out."""
    n_runs, n_entities = sums_RE.shape
    draw = np.random.default_rng(seed)
    found = []
    for start in range(0, n_resamples, _AT_ONCE):
        n = min(_AT_ONCE, n_resamples - start)
        runs_BR = _times(draw.integers(n_runs, size=(n, n_runs)), n_runs)
        entities_BE = _times(draw.integers(n_entities, size=(n, n_entities)), n_entities)
        totals_B = ((runs_BR @ sums_RE) * entities_BE).sum(axis=1)
        numbers_B = ((runs_BR @ counts_RE) * entities_BE).sum(axis=1)
        found.append(totals_B[numbers_B > 0] / numbers_B[numbers_B > 0])
    return np.concatenate(found)


def _times(drawn_BK: Ints, n: int) -> Floats:
    """How often each of `n` was drawn in each resample."""
    rows_B1 = np.arange(len(drawn_BK))[:, None] * n
    times = np.bincount((rows_B1 + drawn_BK).ravel(), minlength=len(drawn_BK) * n)
    return times.reshape(len(drawn_BK), n).astype(np.float64)


__all__ = ["CONFIDENCE", "N_RESAMPLES", "Interval", "mean_interval", "sign_test"]
