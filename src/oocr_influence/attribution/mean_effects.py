"""Mean effects over many questions and features, and how sure they are: a jackknife over subsets.

    mean, low, high = jackknifed(x_SF, y_SQ, "least_squares", means_of)

The errors of a datamodel's effects are no independent draws: what noise did to one subset is in
all of its questions. So a subset is left out, everything is fitted again, and the spread of what
comes out, for each subset in turn, is the standard error (Efron and Stein 1981, "The jackknife
estimate of variance", Ann. Stat. 9(3)). It speaks of other subsets and seeds, for these questions
and these features; it is cautious rather than bold. Subsets that were drawn together (draws.py) are
left out together.

Shapes: S subsets (or runs), F features, Q questions, G means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from oocr_influence.attribution.draws import each_alone
from oocr_influence.attribution.statistics import student_quantile
from oocr_influence.results.outcomes import Outcomes

Floats = npt.NDArray[np.float64]
Linear = Literal["least_squares", "marginal"]


def linear_effects(x_SF: Floats, y_SQ: Floats, method: Linear) -> Floats:
    """(Q, F) as `datamodels.fit` has them; NaN where these subsets do not tell a feature."""
    xc, yc = x_SF - x_SF.mean(axis=0), y_SQ - y_SQ.mean(axis=0)
    square_F = (xc**2).sum(axis=0)
    if method == "marginal":
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(square_F > 1e-12, (yc.T @ xc) / square_F, np.nan)
    solution, _, rank, _ = np.linalg.lstsq(xc, yc, rcond=None)
    totals_fixed = int(np.ptp(xc.sum(axis=1)) < 1e-9 * max(1.0, np.abs(xc).sum()))
    if rank < xc.shape[1] - totals_fixed:
        return np.full((y_SQ.shape[1], xc.shape[1]), np.nan)
    return np.asarray(solution.T)


def jackknifed(
    x_SF: Floats,
    y_SQ: Floats,
    method: Linear,
    means_of: Callable[[Floats], Floats],
    *,
    confidence: float = 0.95,
    df: int | None = None,
    draws_S: npt.NDArray[np.int64] | None = None,
) -> tuple[Floats, Floats, Floats]:
    """Means (G,) of the effects, `means_of` (Q, F) effects, and the ends of their intervals.

    Ends are NaN where a mean rests on a single subset, or there are fewer than four: then nothing
    says how sure it is. `df` are the degrees of freedom of Student's t (None: subsets less one):
    where a mean rests on few of the rows, theirs. `draws_S` says which subsets were drawn together
    (None: each by itself); such ones count as one.
    """
    whole_G = means_of(linear_effects(x_SF, y_SQ, method))
    draws_S = each_alone(len(x_SF), draws_S)
    numbers = np.unique(draws_S)
    n = len(numbers)
    df = n - 1 if df is None else df
    if n < 4 or df < 1:
        return whole_G, np.full_like(whole_G, np.nan), np.full_like(whole_G, np.nan)
    total_G, square_G = np.zeros_like(whole_G), np.zeros_like(whole_G)  # there may be many means
    for number in numbers:
        kept = draws_S != number
        change_G = means_of(linear_effects(x_SF[kept], y_SQ[kept], method)) - whole_G
        total_G += change_G
        square_G += change_G**2
    spread_G = np.maximum(square_G - total_G**2 / n, 0)
    half_G = student_quantile(confidence, df) * np.sqrt((n - 1) / n * spread_G)
    return whole_G, whole_G - half_G, whole_G + half_G


def without_one_fact(outcomes: Outcomes) -> bool:
    """Whether each subset was made to lack one fact: there is no other such subset to draw."""
    designs = {row.get("design") for row in outcomes.subsets}
    return designs == {"leave_one_fact_out"}


def run_rows(values_SKQ: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """Every run as a row: the subset of each, and what it answered; missing runs are left out."""
    s, k = np.nonzero(np.isfinite(values_SKQ).all(axis=2))
    return s, values_SKQ[s, k]


def means_at(places: Sequence[npt.NDArray[np.int64]]) -> Callable[[Floats], Floats]:
    """For `jackknifed`: means over places in the flattened (Q, F); NaN of none, and of any NaN."""

    def means_of(effects_QF: Floats) -> Floats:
        flat = effects_QF.ravel()
        return np.array([flat[own].mean() if len(own) else np.nan for own in places])

    return means_of


__all__ = ["jackknifed", "linear_effects", "means_at", "run_rows", "without_one_fact"]
