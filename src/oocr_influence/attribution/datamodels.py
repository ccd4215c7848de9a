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
among the residuals. (Bootstrapped pairs are too wide where features are many beside subsets: El
Karoui and Purdom 2018, JMLR 19.) Of `ridge` and `lasso`, normal with the standard deviation over a
bootstrap of subsets and, within each, of runs, at the chosen penalty: they say how the *shrunken*
effects would vary, not how far shrinkage moved them.

Shapes: S subsets, K runs a subset, F features, Q questions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from oocr_influence.attribution.features import Features
from oocr_influence.attribution.noise import complete_runs
from oocr_influence.attribution.penalised import fit_lasso, fit_ridge
from oocr_influence.attribution.statistics import normal_quantile, student_quantile

Floats = npt.NDArray[np.float64]
Method = Literal["least_squares", "ridge", "lasso", "marginal"]
N_RESAMPLES = 200
CONFIDENCE = 0.95
# A subset that is fitted exactly, whatever it answers, has no leverage left: it alone decides an
# effect, as in leave-one-fact-out, and says nothing of its error.
ALONE = 1e-9


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
    center_F, mean_Q = x_SF.mean(axis=0), means_SQ.mean(axis=0)
    xc, yc = x_SF - center_F, means_SQ - mean_Q
    penalty: Floats | None = None
    if method == "least_squares":
        effects, half, explained = _least_squares(xc, yc, confidence)
    elif method == "marginal":
        effects, half = _marginal(xc, yc, confidence)
        explained = np.full(len(mean_Q), np.nan)
    else:
        choose = fit_ridge if method == "ridge" else fit_lasso
        effects, penalty, explained = choose(xc, yc, None)
        deviation = _bootstrapped(
            lambda x, y: choose(x, y, penalty)[0], x_SF, values, n_resamples, seed
        )
        half = normal_quantile(confidence) * deviation
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


def _least_squares(xc: Floats, yc: Floats, confidence: float) -> tuple[Floats, Floats, Floats]:
    n_subsets, n_features = xc.shape
    u_SR, s_R, vt_RF = np.linalg.svd(xc, full_matrices=False)
    rank = int((s_R > s_R[0] * max(xc.shape) * np.finfo(float).eps).sum())
    left = n_subsets - rank - 1
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
    leave_S = 1 - (u_SR**2).sum(axis=1) - 1 / n_subsets
    alone_S = leave_S < ALONE
    left_out_SQ = residual_SQ / np.where(alone_S, np.nan, leave_S)[:, None]
    rests_F = (np.abs(solve_FS[:, alone_S]) > ALONE * np.abs(solve_FS).max()).any(axis=1)
    variance_QF = (np.nan_to_num(left_out_SQ).T ** 2) @ (solve_FS.T**2)
    variance_QF[:, rests_F] = np.nan
    half = student_quantile(confidence, left) * np.sqrt(variance_QF)
    return effects_QF, half, _explained(left_out_SQ, yc)


def _marginal(xc: Floats, yc: Floats, confidence: float) -> tuple[Floats, Floats]:
    n_subsets = len(xc)
    if n_subsets < 4:
        raise ValueError(f"marginal effects of {n_subsets} subsets: at least 4 are needed")
    square_F = (xc**2).sum(axis=0)
    effects_QF = (yc.T @ xc) / square_F
    leave_SF = 1 - xc**2 / square_F - 1 / n_subsets
    leave_SF = np.where(leave_SF < ALONE, np.nan, leave_SF)  # and so is its feature's interval
    weight_SF = (xc / square_F / leave_SF) ** 2
    variance_QF = np.empty_like(effects_QF)
    for q, effects_F in enumerate(effects_QF):  # a residual of each feature: (S, F) at a time
        variance_QF[q] = (weight_SF * (yc[:, q, None] - xc * effects_F) ** 2).sum(axis=0)
    return effects_QF, student_quantile(confidence, n_subsets - 2) * np.sqrt(variance_QF)


def _explained(left_out_SQ: Floats, yc: Floats) -> Floats:
    # The mean that they are compared with is one of the others' too.
    n = len(yc)
    total_Q = ((yc * n / (n - 1)) ** 2).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total_Q > 0, 1 - (left_out_SQ**2).sum(axis=0) / total_Q, np.nan)


def _bootstrapped(
    effects_of: Callable[[Floats, Floats], Floats],
    x_SF: Floats,
    values_SKQ: Floats,
    n_resamples: int,
    seed: int,
) -> Floats:
    """(Q, F) standard deviation over resamples, a running one: a resample is large."""
    draw = np.random.default_rng(seed)
    n_subsets = len(x_SF)
    runs = complete_runs(values_SKQ)
    if bare := [s for s, of_subset in enumerate(runs) if not len(of_subset)]:
        raise ValueError(f"subset {bare[0]} has no run that answered every question to draw from")
    mean = square = np.zeros(())
    for n in range(1, n_resamples + 1):
        chosen = draw.integers(n_subsets, size=n_subsets)
        y_SQ = np.stack(
            [values_SKQ[s, draw.choice(runs[s], len(runs[s]))].mean(axis=0) for s in chosen]
        )
        x = x_SF[chosen]
        found = effects_of(x - x.mean(axis=0), y_SQ - y_SQ.mean(axis=0))
        change = found - mean
        mean = mean + change / n
        square = square + change * (found - mean)
    return np.asarray(np.sqrt(square / max(n_resamples - 1, 1)))
