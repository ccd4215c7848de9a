"""Ridge and lasso of many questions on the same features, each question with its own penalty.

Subsets of one draw (draws.py) are left out together. Shapes: S subsets, F features, Q questions;
both arrays are centred.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from oocr_influence.attribution.draws import (
    beside_others,
    by_size,
    each_alone,
    left_out,
    members,
)
from oocr_influence.attribution.statistics import needed

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
N_PENALTIES = 60
N_FOLDS = 5


def fit_ridge(
    xc: Floats, yc: Floats, penalty: Floats | None, draws_S: Ints | None = None
) -> tuple[Floats, Floats, Floats]:
    """(Q, F) effects, (Q,) penalties and (Q,) explained shares; a given penalty is kept.

    The penalty that leaves the least leave-one-out error, over a grid between almost none and one
    that leaves almost nothing. The error is exact, from one decomposition (Golub, Heath and Wahba
    1979): e / (1 - h), where h is the leverage; of a draw of several subsets (1 - H)⁻¹ e.
    """
    # The smaller of both Gram matrices would do; subsets are nearly always fewer than documents.
    values_S, vectors_SS = np.linalg.eigh(xc @ xc.T)
    values_S = np.maximum(values_S, 0.0)
    turned_SQ = vectors_SS.T @ yc
    if penalty is None:
        draws_S = each_alone(len(xc), draws_S)
        grid = np.geomspace(1e-6, 1e3, N_PENALTIES) * max(values_S.max(), 1e-300)
        errors = []
        for a in grid:
            shrink_S = values_S / (values_S + a)
            residual_SQ = yc - vectors_SS @ (shrink_S[:, None] * turned_SQ)
            rows_SR = with_mean(vectors_SS * np.sqrt(shrink_S))
            errors.append((left_out(residual_SQ, rows_SR, draws_S) ** 2).sum(axis=0))
        least_Q = np.nanargmin(errors, axis=0)
        penalty = grid[least_Q]
        explained = explained_share(np.nanmin(errors, axis=0), yc, draws_S)
    else:
        explained = np.full(len(penalty), np.nan)
    dual_SQ = vectors_SS @ (turned_SQ / (values_S[:, None] + penalty))
    return dual_SQ.T @ xc, penalty, explained


def ridge_errors(xc: Floats, yc: Floats, penalty: Floats, draws_S: Ints) -> Floats:
    """(Q, F) root of the summed squares of what leaving out each draw changes, at these penalties.

    Exact, without fitting again; NaN where a draw is fitted exactly, whatever it answers.
    """
    values_S, vectors_SS = np.linalg.eigh(xc @ xc.T)
    values_S = np.maximum(values_S, 0.0)
    square_QF = np.zeros((yc.shape[1], xc.shape[1]))
    for a in np.unique(penalty):  # a value of the grid, of many questions
        own_Q = penalty == a
        rows_SR = with_mean(vectors_SS * np.sqrt(values_S / (values_S + a)))
        residual_SQ = yc[:, own_Q] - rows_SR[:, :-1] @ (rows_SR[:, :-1].T @ yc[:, own_Q])
        errors_SQ = left_out(residual_SQ, rows_SR, draws_S)
        weight_FS = xc.T @ (vectors_SS / (values_S + a)) @ vectors_SS.T
        for places_GM in by_size(draws_S):
            if places_GM.shape[1] == 1:
                places = places_GM[:, 0]
                square_QF[own_Q] += (weight_FS[:, places] ** 2 @ errors_SQ[places] ** 2).T
            else:
                for places in places_GM:
                    square_QF[own_Q] += (weight_FS[:, places] @ errors_SQ[places]).T ** 2
    return np.asarray(np.sqrt(square_QF))


def with_mean(rows_SR: Floats) -> Floats:
    """The factor of a hat matrix of centred features, and a column of the mean's share."""
    return np.column_stack([rows_SR, np.full(len(rows_SR), len(rows_SR) ** -0.5)])


def explained_share(squares_Q: Floats, yc: Floats, draws_S: Ints) -> Floats:
    """(Q,) of squares that are not left; the mean they stand beside is one of the others' too."""
    total_Q = (beside_others(yc, draws_S) ** 2).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total_Q > 0, 1 - squares_Q / total_Q, np.nan)


def fit_lasso(
    xc: Floats, yc: Floats, penalty: Floats | None, draws_S: Ints | None = None
) -> tuple[Floats, Floats, Floats]:
    """(Q, F) effects, (Q,) penalties and (Q,) explained shares; a given penalty is kept.

    The penalty that leaves the least error over five folds, along scikit-learn's path. Raises
    ImportError, with the remedy, where scikit-learn is missing.
    """
    lasso, lasso_cv, folds_of = _scikit_learn()
    chosen, effects, explained = np.zeros(yc.shape[1]), [], np.full(yc.shape[1], np.nan)
    own = members(each_alone(len(xc), draws_S))
    folds = [
        tuple(np.concatenate([own[g] for g in part]) for part in fold)
        for fold in folds_of(min(N_FOLDS, len(own)), shuffle=True, random_state=0).split(own)
    ]
    for q, y_S in enumerate(yc.T):
        if not np.ptp(y_S):
            effects.append(np.zeros(xc.shape[1]))
            continue
        if penalty is None:
            model = lasso_cv(cv=folds, alphas=N_PENALTIES, max_iter=20_000).fit(xc, y_S)
            chosen[q] = model.alpha_
            explained[q] = 1 - model.mse_path_.mean(axis=1).min() / y_S.var()
        else:
            chosen[q] = penalty[q]
            model = lasso(alpha=max(chosen[q], 1e-12), max_iter=20_000).fit(xc, y_S)
        effects.append(model.coef_)
    return np.stack(effects), chosen, explained


def _scikit_learn() -> tuple[Any, Any, Any]:
    linear_model, model_selection = (
        needed("sklearn.linear_model"),
        needed("sklearn.model_selection"),
    )
    return linear_model.Lasso, linear_model.LassoCV, model_selection.KFold
