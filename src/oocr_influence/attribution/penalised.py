"""Ridge and lasso of many questions on the same features, each question with its own penalty.

Shapes: S subsets, F features, Q questions; both arrays are centred.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from oocr_influence.attribution.statistics import needed

Floats = npt.NDArray[np.float64]
N_PENALTIES = 60
N_FOLDS = 5


def fit_ridge(xc: Floats, yc: Floats, penalty: Floats | None) -> tuple[Floats, Floats, Floats]:
    """(Q, F) effects, (Q,) penalties and (Q,) explained shares; a given penalty is kept.

    The penalty that leaves the least leave-one-out error, over a grid between almost none and one
    that leaves almost nothing. The error is exact, from one decomposition (Golub, Heath and Wahba
    1979): e / (1 - h), where h is the leverage.
    """
    n_subsets = len(xc)
    # The smaller of both Gram matrices would do; subsets are nearly always fewer than documents.
    values_S, vectors_SS = np.linalg.eigh(xc @ xc.T)
    values_S = np.maximum(values_S, 0.0)
    turned_SQ = vectors_SS.T @ yc
    if penalty is None:
        grid = np.geomspace(1e-6, 1e3, N_PENALTIES) * max(values_S.max(), 1e-300)
        errors = np.stack(
            [(_left_out(values_S, vectors_SS, turned_SQ, yc, a) ** 2).sum(axis=0) for a in grid]
        )
        penalty = grid[errors.argmin(axis=0)]
        total_Q = ((yc * n_subsets / (n_subsets - 1)) ** 2).sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            explained = np.where(total_Q > 0, 1 - errors.min(axis=0) / total_Q, np.nan)
    else:
        explained = np.full(len(penalty), np.nan)
    dual_SQ = vectors_SS @ (turned_SQ / (values_S[:, None] + penalty))
    return dual_SQ.T @ xc, penalty, explained


def _left_out(
    values_S: Floats, vectors_SS: Floats, turned_SQ: Floats, yc: Floats, penalty: float
) -> Floats:
    shrink_S = values_S / (values_S + penalty)
    leverage_S = (vectors_SS**2) @ shrink_S + 1 / len(values_S)  # the mean takes one share
    return np.asarray(
        (yc - vectors_SS @ (shrink_S[:, None] * turned_SQ)) / (1 - leverage_S)[:, None]
    )


def fit_lasso(xc: Floats, yc: Floats, penalty: Floats | None) -> tuple[Floats, Floats, Floats]:
    """(Q, F) effects, (Q,) penalties and (Q,) explained shares; a given penalty is kept.

    The penalty that leaves the least error over five folds, along scikit-learn's path. Raises
    ImportError, with the remedy, where scikit-learn is missing.
    """
    lasso, lasso_cv, folds_of = _scikit_learn()
    chosen, effects, explained = np.zeros(yc.shape[1]), [], np.full(yc.shape[1], np.nan)
    folds = folds_of(min(N_FOLDS, len(xc)), shuffle=True, random_state=0)
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
