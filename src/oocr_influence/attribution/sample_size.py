"""How many subsets and runs a stated precision needs, from a pilot.

    pilot = Pilot.of(features, values_SKQ)
    pilot.half_width(subsets=200, runs=5)       # (Q,) of a typical effect's interval
    pilot.ceiling(runs=5)                        # the LDS of a perfect predictor

The variance of an effect by least squares is that of a subset mean around the datamodel, over the
number of subsets times what varies of the feature beside the others (the variance inflation is in
it). The former has two parts: what the datamodel misses, which more runs do not lower, and the
noise of the seeds over the number of runs. So subsets with one run each are the best use of runs,
but for what a subset costs by itself and for what only several runs can show: the noise. Subsets
of pairs (draws.py) count by pairs: of what is missed, a half has the opposite of the other's.

Shapes: S subsets, K runs a subset, F features, Q questions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from oocr_influence.attribution.datamodels import subset_means
from oocr_influence.attribution.draws import by_size, each_alone
from oocr_influence.attribution.features import Features
from oocr_influence.attribution.noise import Variances, shrunken, variances
from oocr_influence.attribution.statistics import student_quantile

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pilot:
    """What a finished sweep says of a larger one of the same design."""

    variances: Variances
    missed: Floats
    """(Q,) variance of subset means that the datamodel does not explain, the noise taken off."""
    spread: Floats
    """(F,) variance, a subset, of each feature beside the others."""
    n_features: int
    n_subsets: int
    subsets_a_draw: int = 1
    """2 where subsets were drawn in pairs."""

    @classmethod
    def of(cls, features: Features, values_SKQ: npt.ArrayLike, *, crossed: bool = False) -> Pilot:
        """Estimate it; ValueError where subsets do not tell the features apart or have one run."""
        values = np.asarray(values_SKQ, dtype=np.float64)
        parts = variances(values, crossed=crossed)
        if np.isnan(parts.noise).all():
            raise ValueError("a pilot needs at least two runs of a subset: the noise is unknown")
        x_SF = features.values[:, features.varied()]
        xc = x_SF - x_SF.mean(axis=0)
        n_subsets = len(xc)
        u, s, vt = np.linalg.svd(xc, full_matrices=False)
        rank = int((s > s[0] * max(xc.shape) * np.finfo(float).eps).sum()) if s.size else 0
        draws_S = each_alone(n_subsets, features.draws)
        n_draws = len(np.unique(draws_S))
        left = n_draws - rank - 1
        totals_fixed = int(np.ptp(xc.sum(axis=1)) < 1e-9 * max(1.0, np.abs(xc).sum()))
        if left < 1 or rank < xc.shape[1] - totals_fixed:
            raise ValueError(
                f"the pilot's {n_subsets} subsets do not tell {xc.shape[1]} features apart: plan "
                "by coarser ones, or run more subsets first"
            )
        y = subset_means(values)
        yc = y - y.mean(axis=0)
        residual_SQ = yc - u[:, :rank] @ (u[:, :rank].T @ yc)
        residual_Q = _of_draws(residual_SQ, draws_S) / left
        inverse_F = ((vt[:rank].T / s[:rank]) ** 2).sum(axis=1)
        # (X'X)^-1 of S subsets is in expectation 1 / (spread (S - F - 1)) for normal features.
        spread_F = 1 / (inverse_F * left * n_subsets / n_draws)
        missed_Q = np.maximum(residual_Q - parts.noise / parts.runs, 0.0)
        return cls(parts, missed_Q, spread_F, rank, n_subsets, int(np.bincount(draws_S).max()))

    def half_width(self, subsets: int, runs: int, confidence: float = 0.95) -> Floats:
        """(Q,) half width of the interval of the feature with the median spread, NaN where too few
        subsets."""
        left = subsets // self.subsets_a_draw - self.n_features - 1
        if left < 1:
            return np.full(len(self.missed), np.nan)
        residual_Q = self.missed + self.variances.noise / runs
        spread = float(np.median(self.spread)) * self.subsets_a_draw
        deviation_Q = np.sqrt(residual_Q / (spread * left))
        return student_quantile(confidence, left) * deviation_Q

    def ceiling(self, runs: int) -> float:
        """Mean over questions of a perfect predictor's correlation with means of so many runs."""
        measured_Q = self.variances.reliability()
        known_Q = measured_Q[np.isfinite(measured_Q)]
        share_Q = np.clip(shrunken(known_Q, self.n_subsets), 0, 1)
        more = runs / self.variances.runs  # Spearman 1910, Brown 1910
        return float(np.sqrt(more * share_Q / (1 + (more - 1) * share_Q)).mean())

    def needed(
        self, *, half_width: float, ceiling: float | None = None, most_runs: int = 64
    ) -> tuple[int, int] | None:
        """The fewest runs in all, as (subsets, runs a subset), for which the median question's
        interval is at most `half_width` to either side and the ceiling at least `ceiling`.

        None where no number of subsets up to a million does it.
        """
        best: tuple[int, int] | None = None
        for runs in range(1, most_runs + 1):
            if ceiling is not None and self.ceiling(runs) < ceiling:
                continue
            subsets = self._subsets(half_width, runs)
            if subsets is not None and (best is None or subsets * runs < best[0] * best[1]):
                best = subsets, runs
        return best

    def _subsets(self, half_width: float, runs: int) -> int | None:
        low, high = (self.n_features + 2) * self.subsets_a_draw - 1, 1_000_000

        def enough(subsets: int) -> bool:
            return bool(np.nanmedian(self.half_width(subsets, runs)) <= half_width)

        if not enough(high):
            return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        return high


def _of_draws(residual_SQ: Floats, draws_S: npt.NDArray[np.int64]) -> Floats:
    """(Q,) squares; of the halves of a pair, of what sets them apart: that alone moves effects."""
    total_Q = np.zeros(residual_SQ.shape[1])
    for places_GM in by_size(draws_S):
        own_GMQ = residual_SQ[places_GM]
        if places_GM.shape[1] == 2:
            own_GMQ = np.diff(own_GMQ, axis=1) / np.sqrt(2)
        total_Q += (own_GMQ**2).sum(axis=(0, 1))
    return total_Q
