"""Subsets that were drawn together, as the halves of a pair, stand and fall together.

    draws_S = drawn_together(outcomes.subsets)      # 0, 0, 1, 1, … of pairs, 0, 1, 2, … else
    left_out_SQ = left_out(residual_SQ, rows_SR, draws_S)

What one half of a pair trains the other lacks: either one says what the other is, and what a linear
fit misses of the one it misses of the other with the opposite sign. Left out, drawn anew or
exchanged one by one, such subsets make errors look smaller, predictions better and chance rarer
than they are. So it is draws that are left out, drawn anew and exchanged, each as a whole (errors
of clusters: Bell and McCaffrey 2002, "Bias reduction in standard errors for linear regression with
multi-stage samples", Survey Methodology 28(2)).

Shapes: S subsets, G draws, M subsets of a draw, R directions, Q questions.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
# A subset that is fitted exactly, whatever it answers, has no leverage left: it alone decides an
# effect, as in leave-one-fact-out, and says nothing of its error.
ALONE = 1e-9


def drawn_together(subsets: Sequence[Mapping[str, Any]]) -> Ints:
    """(S,) the draw of each subset, from 0: one of its own, but for the halves of a pair."""
    keys: list[Hashable] = [
        (row.get("split"), int(row["dataset_idx"]) // 2)
        if row.get("design") == "complement"
        else place
        for place, row in enumerate(subsets)
    ]
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def not_among(test: Sequence[Mapping[str, Any]], train: Sequence[Mapping[str, Any]]) -> list[int]:
    """Places of the subsets of `test` whose documents are not those of a subset of `train`."""
    fitted = {row.get("dataset_id") for row in train} - {None}
    return [place for place, row in enumerate(test) if row.get("dataset_id") not in fitted]


def each_alone(n_subsets: int, draws_S: Ints | None) -> Ints:
    """`draws_S`; None: each subset is a draw of its own. ValueError where they do not fit."""
    draws = np.arange(n_subsets) if draws_S is None else np.asarray(draws_S, dtype=np.int64)
    if draws.shape != (n_subsets,):
        raise ValueError(f"{n_subsets} subsets, but the draws of {len(draws)}")
    return draws


def members(draws_S: Ints) -> list[Ints]:
    """The places of each draw's subsets."""
    return [np.flatnonzero(draws_S == g) for g in np.unique(draws_S)]


def by_size(draws_S: Ints) -> list[Ints]:
    """The same as arrays (G, M), one for each M that there is."""
    own = members(draws_S)
    sizes = sorted({len(places) for places in own})
    return [np.stack([places for places in own if len(places) == m]) for m in sizes]


def left_out(residual_SQ: Floats, rows_SR: Floats, draws_S: Ints) -> Floats:
    """(S, Q) what a fit to the other draws leaves of each subset; NaN where its draw decides.

    `residual_SQ` is what the fit to all leaves, and `rows_SR` @ `rows_SR`.T takes outcomes to what
    is fitted, their mean included.
    """
    found_SQ = np.empty_like(residual_SQ)
    for places_GM in by_size(draws_S):
        rows_GMR = rows_SR[places_GM]
        kept_GMM = np.eye(places_GM.shape[1]) - rows_GMR @ rows_GMR.transpose(0, 2, 1)
        decides_G = np.linalg.eigvalsh(kept_GMM)[:, 0] < ALONE
        kept_GMM[decides_G] = np.eye(places_GM.shape[1])
        errors_GMQ = np.linalg.solve(kept_GMM, residual_SQ[places_GM])
        errors_GMQ[decides_G] = np.nan
        found_SQ[places_GM] = errors_GMQ
    return found_SQ


def beside_others(yc_SQ: Floats, draws_S: Ints) -> Floats:
    """(S, Q) each subset's centred outcome less the mean of all that are not of its draw."""
    found_SQ = np.empty_like(yc_SQ)
    for places_GM in by_size(draws_S):
        own_GMQ = yc_SQ[places_GM]
        n_others = len(yc_SQ) - places_GM.shape[1]
        found_SQ[places_GM] = own_GMQ + own_GMQ.sum(axis=1, keepdims=True) / n_others
    return found_SQ


def sums_of(values_SX: Floats, draws_S: Ints) -> Floats:
    """(G, X) sums over the subsets of each draw."""
    return np.stack([values_SX[places].sum(axis=0) for places in members(draws_S)])


def drawn_anew(of_draw: Sequence[Ints], draw: np.random.Generator) -> Ints:
    """Places of the subsets of as many draws, drawn with replacement."""
    return np.concatenate([of_draw[g] for g in draw.integers(len(of_draw), size=len(of_draw))])


def exchanged(of_size: Sequence[Ints], draw: np.random.Generator) -> Ints:
    """(S,) a permutation of places that takes draws to draws, and mixes the subsets of each."""
    to_S = np.empty(sum(places.size for places in of_size), dtype=np.int64)
    for places_GM in of_size:
        mixed_GM = draw.permutation(places_GM)
        to_S[places_GM] = mixed_GM if mixed_GM.shape[1] == 1 else draw.permuted(mixed_GM, axis=1)
    return to_S


__all__ = [
    "ALONE",
    "beside_others",
    "by_size",
    "drawn_anew",
    "drawn_together",
    "each_alone",
    "exchanged",
    "left_out",
    "members",
    "not_among",
    "sums_of",
]
