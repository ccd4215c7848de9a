"""How much of what runs answered is due to the documents, and how much to the order of the data.

Shapes: S subsets, K runs (seeds) of a subset, Q questions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Variances:
    """Components of the variance of a question's outcome, each (Q,); NaN where unknown."""

    signal: Floats
    """Between subsets, seeds averaged away; 0 where the estimate is negative."""
    noise: Floats
    """Between runs of one subset."""
    runs: float
    """Runs of a subset, on average (the harmonic mean)."""

    def reliability(self, runs: float | None = None) -> Floats:
        """(Q,) share of signal in the variance of a mean over `runs` runs (None: as measured)."""
        runs = self.runs if runs is None else runs
        total = self.signal + self.noise / runs
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(total > 0, self.signal / total, np.nan)


def variances(values_SKQ: npt.ArrayLike, *, crossed: bool = False) -> Variances:
    """Estimate both components by the analysis of variance (NaN: a run that is not there).

    One way, subsets with runs of their own, where they may have different numbers of runs (Searle,
    Casella and McCulloch 1992, Variance Components, ch. 3.6). `crossed`: the same seeds for every
    subset and none missing; what a seed does to all subsets alike is then no noise between them
    (two ways without replication). With one run a subset the noise is unknown.
    """
    values = np.asarray(values_SKQ, dtype=np.float64)
    there = np.isfinite(values)
    m_SQ = there.sum(axis=1)
    n_subsets = (m_SQ > 0).sum(axis=0)
    n_Q = m_SQ.sum(axis=0)
    mean_SQ = np.where(there, values, 0).sum(axis=1) / np.maximum(m_SQ, 1)
    grand_Q = np.where(there, values, 0).sum(axis=(0, 1)) / np.maximum(n_Q, 1)
    residual = np.where(there, values - mean_SQ[:, None], 0.0)
    df_Q = n_Q - n_subsets
    if crossed:
        if not there.all():
            raise ValueError("crossed seeds: every subset must have every run")
        residual = residual - residual.mean(axis=0)
        df_Q = (n_subsets - 1) * (values.shape[1] - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        noise_Q = np.where(df_Q > 0, (residual**2).sum(axis=(0, 1)) / df_Q, np.nan)
        between_Q = (m_SQ * (mean_SQ - grand_Q) ** 2).sum(axis=0) / (n_subsets - 1)
        n0_Q = (n_Q - (m_SQ**2).sum(axis=0) / n_Q) / (n_subsets - 1)
        signal_Q = np.maximum((between_Q - noise_Q) / n0_Q, 0.0)
        runs = m_SQ[m_SQ > 0]
        average = len(runs) / (1 / runs).sum() if len(runs) else np.nan
    return Variances(np.where(np.isnan(noise_Q), np.nan, signal_Q), noise_Q, float(average))


def shrunken(r_Q: Floats, n_subsets: int) -> Floats:
    """Correlations over subsets, drawn to their mean by the share of their variance that sampling
    alone would give them (Efron and Morris 1975, J. Am. Stat. Assoc. 70).

    What is a root of them is then right on average both where all questions are alike and where
    some have a signal and others none.
    """
    if len(r_Q) < 2 or np.ptp(r_Q) == 0:
        return r_Q
    by_sampling = float(((1 - r_Q**2) ** 2).mean()) / max(n_subsets - 1, 1)
    kept = max(0.0, 1 - by_sampling / float(r_Q.var(ddof=1)))
    return np.asarray(r_Q.mean() + kept * (r_Q - r_Q.mean()))


def complete_runs(values_SKQ: Floats) -> list[npt.NDArray[np.int64]]:
    """For each subset the places of the runs that answered every question."""
    there_SK: npt.NDArray[np.bool_] = np.asarray(np.isfinite(values_SKQ).all(axis=2))
    return [np.flatnonzero(row) for row in there_SK]


def crossed_seeds(seeds_SK: npt.NDArray[np.int64], values_SKQ: npt.ArrayLike) -> bool:
    """Whether every subset was run with the same seeds, and all of these runs are there."""
    same = bool((seeds_SK == seeds_SK[:1]).all()) and bool((seeds_SK >= 0).all())
    return same and bool(np.isfinite(np.asarray(values_SKQ)).all())


def same_seeds(seeds_SK: npt.ArrayLike) -> bool:
    """Whether a place k is the same seed's for every subset that has such a run (-1: it has none),
    whatever runs are missing."""
    seeds = np.asarray(seeds_SK)
    return all(len(np.unique(column[column >= 0])) < 2 for column in seeds.T)
