"""Datamodels: how each document, fact or relation moves each answer, fitted to a sweep's outcomes.

    model = fit(features, values_SKQ, method="ridge")
    model.effects, model.low, model.high            # (Q, F) each, in units of the outcome
    model.predict(features.values)                   # (S, Q)

A datamodel (Ilyas et al. 2022, "Datamodels: Predicting Predictions from Training Data", ICML) is
linear: an answer is a constant and, for each feature of the subset, its effect. Four ways to fit:

- `least_squares`: all effects at once. It needs more subsets than features.
- `ridge`: the same with a penalty on squares, chosen for each question by leave-one-out error
  (Hoerl and Kennard 1970). For as many features as one likes; effects are shrunk towards 0.
- `lasso`: a penalty on absolute values, chosen by 5-fold cross-validation (Tibshirani 1996); most
  effects are exactly 0. Needs scikit-learn.
- `marginal`: the slope of the answer on one feature alone, of a document the difference between
  subsets with and without it (the estimator of Feldman and Zhang 2020, NeurIPS). Unbiased where
  features were drawn independently, whatever their number; the effects of the others are noise.

Intervals: of `least_squares` and `marginal`, Student's t with the errors of HC3, which allow each
subset a variance of its own (MacKinnon and White 1985, J. Econometrics 29); the seeds' noise is
among the residuals. Where subsets were drawn in pairs, a pair is left out, and has an error, as a
whole (draws.py). (Bootstrapped pairs are too wide where features are many beside subsets: El Karoui
and Purdom 2018, JMLR 19.) Of `ridge`, Student's t with the jackknife's errors: the squared changes
that leaving out each subset makes at the chosen penalty, summed (Efron and Stein 1981, Ann. Stat.
9(3)). Without a penalty that is HC3; a bootstrap would be far too narrow where features are more
than subsets. Of `lasso`, normal with the standard deviation over a bootstrap of subsets and, within
each, of runs, at the chosen penalty, which is cautious. Both say how the *shrunken* effects would
vary, not how far shrinkage moved them.

Shapes: S subsets, K runs a subset, F features, Q questions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from oocr_influence.attribution.draws import (
    ALONE,
    drawn_anew,
    each_alone,
    left_out,
    members,
    sums_of,
)
from oocr_influence.attribution.features import Features
from oocr_influence.attribution.noise import complete_runs
from oocr_influence.attribution.penalised import (
    explained_share,
    fit_lasso,
    fit_ridge,
    ridge_errors,
    with_mean,
)
from oocr_influence.attribution.statistics import normal_quantile, student_quantile

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Method = Literal["least_squares", "ridge", "lasso", "marginal"]
N_RESAMPLES = 200
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Datamodel:
    """Effects of every feature on every question; NaN where nothing varied."""

    method: Method
    features: Features
    effects: Floats
    """(Q, F) change of the outcome for one more of the feature. Where all subsets have the same
    total, effects are relative to the mean effect: what all documents share cannot be seen."""
    low: Floats
    high: Floats
    """(Q, F) ends of the intervals; NaN where a single subset decides an effect."""
    intercept: Floats
    """(Q,)"""
    fixed_total: bool
    """Whether all subsets have the same total of features."""
    explained: Floats
    """(Q,) share of the variance of subset means predicted for subsets left out; at most 1, below
    0 where the mean would have done better. NaN for `marginal`, which predicts nothing."""
    penalty: Floats | None
    """(Q,) chosen penalty of `ridge` and `lasso`."""

    def predict(self, values_SF: Floats) -> Floats:
        """(S, Q) outcomes of these features' subsets."""
        if self.method == "marginal":
            raise ValueError("marginal effects do not add up to a prediction: fit another method")
        return self.intercept + values_SF @ np.nan_to_num(self.effects).T


def fit(
    features: Features,
    values_SKQ: npt.ArrayLike,
    *,
    method: Method = "ridge",
    confidence: float = CONFIDENCE,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Datamodel:
    """Fit a datamodel to `values_SKQ`, NaN where a run is missing; see the module for methods.

    `n_resamples` and `seed` are of the bootstrap of `lasso`.
    Raises ValueError for a subset without runs, for a question that some runs did not answer, and
    for fewer subsets than the method needs.
    """
    if method not in get_args(Method):
        raise ValueError(f"method {method!r}: {', '.join(get_args(Method))} are known")
    values = np.asarray(values_SKQ, dtype=np.float64)
    means_SQ = subset_means(values)
    varied = features.varied()
    x_SF = features.values[:, varied]
    if not varied.any():
        raise ValueError("no feature differs between the subsets: there is nothing to fit")
    draws_S = each_alone(len(x_SF), features.draws)
    if len(np.unique(draws_S)) < 2:
        raise ValueError("all subsets are of one pair: what fits them says nothing of others")
    center_F, mean_Q = x_SF.mean(axis=0), means_SQ.mean(axis=0)
    xc, yc = x_SF - center_F, means_SQ - mean_Q
    penalty: Floats | None = None
    if method == "least_squares":
        effects, half, explained = _least_squares(xc, yc, draws_S, confidence)
    elif method == "marginal":
        effects, half = _marginal(xc, yc, draws_S, confidence)
        explained = np.full(len(mean_Q), np.nan)
    else:
        effects, half, penalty, explained = _penalised(
            method, x_SF, values, draws_S, confidence, (n_resamples, seed)
        )
    intercept = (
        mean_Q - effects @ center_F if method != "marginal" else np.full_like(mean_Q, np.nan)
    )
    totals = features.values.sum(axis=1)

    def everywhere(found_QF: Floats) -> Floats:
        whole = np.full((len(found_QF), len(varied)), np.nan)
        whole[:, varied] = found_QF
        return whole

    return Datamodel(
        method=method,
        features=features,
        effects=everywhere(effects),
        low=everywhere(effects - half),
        high=everywhere(effects + half),
        intercept=intercept,
        fixed_total=bool(np.ptp(totals) == 0),
        explained=explained,
        penalty=penalty,
    )


def subset_means(values_SKQ: Floats) -> Floats:
    """(S, Q) over the runs that are there; ValueError where a subset's answer is missing."""
    there = np.isfinite(values_SKQ)
    count_SQ = there.sum(axis=1)
    if not count_SQ.all():
        s, q = np.argwhere(count_SQ == 0)[0]
        raise ValueError(
            f"subset {s} has no run that answered question {q}: leave out subsets without runs "
            "and questions that were not asked everywhere"
        )
    return np.asarray(np.where(there, values_SKQ, 0.0).sum(axis=1) / count_SQ, dtype=np.float64)


def _least_squares(
    xc: Floats, yc: Floats, draws_S: Ints, confidence: float
) -> tuple[Floats, Floats, Floats]:
    n_subsets, n_features = xc.shape
    u_SR, s_R, vt_RF = np.linalg.svd(xc, full_matrices=False)
    rank = int((s_R > s_R[0] * max(xc.shape) * np.finfo(float).eps).sum())
    left = len(np.unique(draws_S)) - rank - 1
    totals_fixed = int(np.ptp(xc.sum(axis=1)) < 1e-9 * max(1.0, np.abs(xc).sum()))
    if left < 1 or rank < n_features - totals_fixed:
        raise ValueError(
            f"least squares: {n_subsets} subsets do not tell {n_features} features apart "
            f"({rank} directions vary): take ridge, marginal, or coarser features"
        )
    u_SR, s_R, vt_RF = u_SR[:, :rank], s_R[:rank], vt_RF[:rank]
    # Of the solutions the shortest: orthogonal to what does not vary, such as a fixed total.
    solve_FS = (vt_RF.T / s_R) @ u_SR.T
    effects_QF = (solve_FS @ yc).T
    residual_SQ = yc - xc @ effects_QF.T
    left_out_SQ = left_out(residual_SQ, with_mean(u_SR), draws_S)
    alone_S = np.isnan(left_out_SQ).any(axis=1)
    rests_F = (np.abs(solve_FS[:, alone_S]) > ALONE * np.abs(solve_FS).max()).any(axis=1)
    known_SQ = np.nan_to_num(left_out_SQ)
    variance_QF = np.zeros_like(effects_QF)
    for places in members(draws_S):
        variance_QF += (solve_FS[:, places] @ known_SQ[places]).T ** 2
    variance_QF[:, rests_F] = np.nan
    half = student_quantile(confidence, left) * np.sqrt(variance_QF)
    return effects_QF, half, explained_share((left_out_SQ**2).sum(axis=0), yc, draws_S)


def _marginal(xc: Floats, yc: Floats, draws_S: Ints, confidence: float) -> tuple[Floats, Floats]:
    n_subsets, n_draws = len(xc), len(np.unique(draws_S))
    if n_draws < 4:
        raise ValueError(f"marginal effects of {n_subsets} subsets: at least 4 are needed")
    square_F = (xc**2).sum(axis=0)
    effects_QF = (yc.T @ xc) / square_F
    # Without a draw the slope is another; what HC3 says of errors is by how much.
    others_G1 = (n_subsets - np.array([len(own) for own in members(draws_S)]))[:, None]
    sum_GF = sums_of(xc, draws_S)
    left_GF = square_F - sums_of(xc**2, draws_S) - sum_GF**2 / others_G1
    left_GF = np.where(left_GF < ALONE * square_F, np.nan, left_GF)  # so is that of its feature
    variance_QF = np.empty_like(effects_QF)
    for q, effects_F in enumerate(effects_QF):  # a residual of each feature: (S, F) at a time
        residual_SF = yc[:, q, None] - xc * effects_F
        moved_GF = sums_of(xc * residual_SF, draws_S) + (
            sum_GF * sums_of(residual_SF, draws_S) / others_G1
        )
        variance_QF[q] = ((moved_GF / left_GF) ** 2).sum(axis=0)
    return effects_QF, student_quantile(confidence, n_draws - 2) * np.sqrt(variance_QF)


def _penalised(
    method: Method,
    x_SF: Floats,
    values_SKQ: Floats,
    draws_S: Ints,
    confidence: float,
    resamples: tuple[int, int],
) -> tuple[Floats, Floats, Floats, Floats]:
    """Effects, half widths, penalties and explained shares of `ridge` or `lasso`."""
    means_SQ = subset_means(values_SKQ)
    xc, yc = x_SF - x_SF.mean(axis=0), means_SQ - means_SQ.mean(axis=0)
    if method == "ridge":
        effects, penalty, explained = fit_ridge(xc, yc, None, draws_S)
        quantile = student_quantile(confidence, len(np.unique(draws_S)) - 1)
        return effects, quantile * ridge_errors(xc, yc, penalty, draws_S), penalty, explained
    effects, penalty, explained = fit_lasso(xc, yc, None, draws_S)
    deviation = _bootstrapped(
        lambda x, y: fit_lasso(x, y, penalty)[0], x_SF, values_SKQ, draws_S, *resamples
    )
    return effects, normal_quantile(confidence) * deviation, penalty, explained


def _bootstrapped(
    effects_of: Callable[[Floats, Floats], Floats],
    x_SF: Floats,
    values_SKQ: Floats,
    draws_S: Ints,
    n_resamples: int,
    seed: int,
) -> Floats:
    """(Q, F) standard deviation over resamples, a running one: a resample is large."""
    draw = np.random.default_rng(seed)
    of_draw = members(draws_S)
    runs = complete_runs(values_SKQ)
    if bare := [s for s, of_subset in enumerate(runs) if not len(of_subset)]:
        raise ValueError(f"subset {bare[0]} has no run that answered every question to draw from")
    mean = square = np.zeros(())
    for n in range(1, n_resamples + 1):
        chosen = drawn_anew(of_draw, draw)
        y_SQ = np.stack(
            [values_SKQ[s, draw.choice(runs[s], len(runs[s]))].mean(axis=0) for s in chosen]
        )
        x = x_SF[chosen]
        found = effects_of(x - x.mean(axis=0), y_SQ - y_SQ.mean(axis=0))
        change = found - mean
        mean = mean + change / n
        square = square + change * (found - mean)
    return np.asarray(np.sqrt(square / max(n_resamples - 1, 1)))
