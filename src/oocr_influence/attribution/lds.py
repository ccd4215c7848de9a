"""The linear datamodeling score: do summed scores of documents predict what held-out runs answer?

    score = lds(scores_QD, trained_SD, values_SKQ)
    score.spearman.mean, score.spearman.low, score.ceiling, score.p_value

For each question, the predicted outcome of a subset is the sum of the scores of what it trained,
and the score is the correlation over subsets with the outcome's mean over runs (Park et al. 2023,
"TRAK: Attributing Model Behavior at Scale", ICML, sec. 2.2). Scores are in the direction of the
outcome: a document that raises it has a positive score. Subsets that the scores were fitted to must
not be among those here.

Shapes: S subsets, K runs a subset, D documents, Q questions.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from oocr_influence.attribution.datamodels import subset_means
from oocr_influence.attribution.draws import by_size, drawn_anew, each_alone, exchanged, members
from oocr_influence.attribution.noise import complete_runs, shrunken
from oocr_influence.attribution.statistics import correlations, ranks, standardised, varies

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
N_RESAMPLES = 500
N_SPLITS = 50
N_PERMUTATIONS = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Correlation:
    """Of every question, and their mean with its interval over subsets and entities."""

    of_question: Floats
    """(Q,); 0 where the prediction is the same for all subsets, NaN where the outcome is."""
    mean: float
    low: float
    high: float
    ceiling: float
    """What a perfect predictor of the expected outcome would have, given the noise of the seeds;
    NaN with one run a subset."""
    null_high: float
    """The 95th percentile of the mean with subsets exchanged at random."""
    p_value: float
    """Of as high a mean by such an exchange, one-sided."""


@dataclass(frozen=True)
class LDS:
    """How well scores of documents predict outcomes; correlations of both kinds."""

    spearman: Correlation
    pearson: Correlation
    n_subsets: int
    n_questions: int
    n_constant_outcomes: int
    """Questions whose outcome is the same in all subsets, left out of every mean."""
    n_constant_predictions: int
    """Questions for which the scores tell no two subsets apart; they count as 0."""


def lds(
    scores_QD: npt.ArrayLike,
    trained_SD: npt.ArrayLike,
    values_SKQ: npt.ArrayLike,
    *,
    entities: Sequence[Hashable] | None = None,
    crossed: bool = False,
    draws_S: Ints | None = None,
    n_resamples: int = N_RESAMPLES,
    n_permutations: int = N_PERMUTATIONS,
    seed: int = 0,
) -> LDS:
    """Score `scores_QD` on these subsets.

    `entities` (Q,) say whom each question is about; questions of one entity are drawn together in
    the bootstrap (None: each by itself). `crossed`: all subsets were run with the same seeds,
    though some may be missing (`noise.same_seeds`). `draws_S` says which subsets were drawn
    together (`draws.drawn_together`; None: each by itself). Raises ValueError for shapes that do
    not fit, scores that are not finite, and fewer than three subsets or draws.
    """
    predicted = np.asarray(trained_SD, np.float64) @ np.asarray(scores_QD, np.float64).T
    return lds_of_predictions(
        predicted,
        values_SKQ,
        entities=entities,
        crossed=crossed,
        draws_S=draws_S,
        n_resamples=n_resamples,
        n_permutations=n_permutations,
        seed=seed,
    )


def lds_of_predictions(
    predicted_SQ: npt.ArrayLike,
    values_SKQ: npt.ArrayLike,
    *,
    entities: Sequence[Hashable] | None = None,
    crossed: bool = False,
    draws_S: Ints | None = None,
    n_resamples: int = N_RESAMPLES,
    n_permutations: int = N_PERMUTATIONS,
    seed: int = 0,
) -> LDS:
    """The same of predictions that are no sums of scores, such as a datamodel by facts."""
    predicted = np.asarray(predicted_SQ, dtype=np.float64)
    values = np.asarray(values_SKQ, dtype=np.float64)
    if predicted.shape != (values.shape[0], values.shape[2]):
        raise ValueError(
            f"predictions {predicted.shape} do not fit outcomes of {values.shape[0]} subsets and "
            f"{values.shape[2]} questions"
        )
    if not np.isfinite(predicted).all():
        raise ValueError("a score is not finite: a predictor must say something of each document")
    if len(predicted) < 3:
        raise ValueError(f"a correlation over {len(predicted)} subsets says nothing: at least 3")
    draws = each_alone(len(predicted), draws_S)
    if len(np.unique(draws)) < 3:
        raise ValueError(
            f"a correlation over {len(np.unique(draws))} pairs of subsets says nothing: at least 3"
        )
    means = subset_means(values)
    known_Q = varies(means)
    predicts_Q = varies(predicted)
    groups = _groups(entities, len(known_Q))
    random = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(6)]

    def one(prepare: Callable[[Floats], Floats], draw: list[np.random.Generator]) -> Correlation:
        return _correlation(
            predicted[:, known_Q],
            means[:, known_Q],
            values[:, :, known_Q],
            known_Q,
            prepare,
            groups[known_Q],
            (n_resamples, n_permutations),
            draw,
            crossed,
            draws,
        )

    return LDS(
        spearman=one(ranks, random[:3]),
        pearson=one(lambda values_SQ: values_SQ, random[3:]),
        n_subsets=len(predicted),
        n_questions=len(known_Q),
        n_constant_outcomes=int((~known_Q).sum()),
        n_constant_predictions=int((known_Q & ~predicts_Q).sum()),
    )


def noise_ceiling(
    values_SKQ: Floats,
    prepare: Callable[[Floats], Floats] = ranks,
    *,
    crossed: bool = False,
    draw: np.random.Generator | None = None,
    n_splits: int = N_SPLITS,
) -> float:
    """The mean correlation that the outcomes' expectation itself has with means over these runs.

    From the agreement of random halves of the runs, averaged over splits, of each question, r:
    means over all runs have the reliability 2 r / (1 + r) (Spearman 1910, Brown 1910), and its
    square root is the correlation with what they would be without noise. (The root of the mean
    would be more than the mean of the roots, far more where some questions have no signal.)
    Agreements are first drawn to their mean (`noise.shrunken`). `crossed`: the same halves of
    the seeds for all subsets, since what a seed does to all alike is no noise between them. NaN
    with one run a subset.
    """
    draw = draw or np.random.default_rng(0)
    runs = complete_runs(values_SKQ)
    enough = [s for s, of_subset in enumerate(runs) if len(of_subset) > 1]
    if len(enough) < 3:
        return float("nan")
    agreements = []
    for _ in range(n_splits):
        halves: tuple[list[Floats], list[Floats]] = ([], [])
        mixed = draw.permutation(values_SKQ.shape[1])
        for s in enough:
            if crossed:
                own = mixed[np.isin(mixed, runs[s])]
                cut = int(np.isin(own, mixed[: len(mixed) // 2]).sum())
            else:
                own = draw.permutation(runs[s])
                cut = len(own) // 2
            if 0 < cut < len(own):
                halves[0].append(values_SKQ[s, own[:cut]].mean(axis=0))
                halves[1].append(values_SKQ[s, own[cut:]].mean(axis=0))
        if len(halves[0]) < 3:
            continue
        agreements.append(correlations(*(prepare(np.stack(half)) for half in halves)))
    if not agreements:
        return float("nan")
    agreements_NQ = np.stack(agreements)
    r_Q = np.nanmean(agreements_NQ[:, np.isfinite(agreements_NQ).any(axis=0)], axis=0)
    if not len(r_Q):
        return float("nan")
    r_Q = np.maximum(shrunken(r_Q, len(enough)), 0.0)
    return float(np.sqrt(2 * r_Q / (1 + r_Q)).mean())


def _correlation(
    predicted_SQ: Floats,
    means_SQ: Floats,
    values_SKQ: Floats,
    known_Q: npt.NDArray[np.bool_],
    prepare: Callable[[Floats], Floats],
    groups_Q: npt.NDArray[np.int64],
    n: tuple[int, int],
    draw: list[np.random.Generator],
    crossed: bool,
    draws_S: Ints,
) -> Correlation:
    of_question = np.full(len(known_Q), np.nan)
    if not known_Q.any():
        nothing = float("nan")
        return Correlation(of_question, *[nothing] * 6)
    prepared = prepare(predicted_SQ), prepare(means_SQ)
    z_predicted = np.nan_to_num(standardised(prepared[0]))  # says nothing: correlates with nothing
    z_means = standardised(prepared[1])
    found_Q = (z_predicted * z_means).sum(axis=0)
    of_question[known_Q] = found_Q
    low, high = _interval(predicted_SQ, means_SQ, prepare, groups_Q, draws_S, n[0], draw[0])
    of_size = by_size(draws_S)
    null = np.array(
        [(z_predicted[exchanged(of_size, draw[1])] * z_means).sum(0).mean() for _ in range(n[1])]
    )
    return Correlation(
        of_question=of_question,
        mean=float(found_Q.mean()),
        low=low,
        high=high,
        ceiling=noise_ceiling(values_SKQ, prepare, crossed=crossed, draw=draw[2]),
        null_high=float(np.quantile(null, 0.95)),
        p_value=float((1 + (null >= found_Q.mean() - 1e-12).sum()) / (1 + len(null))),
    )


def _interval(
    predicted_SQ: Floats,
    means_SQ: Floats,
    prepare: Callable[[Floats], Floats],
    groups_Q: npt.NDArray[np.int64],
    draws_S: Ints,
    n_resamples: int,
    draw: np.random.Generator,
) -> tuple[float, float]:
    """Percentiles of the mean with subsets and entities drawn anew, independently (Owen 2007)."""
    n_groups, of_draw, found = int(groups_Q.max()) + 1, members(draws_S), []
    for _ in range(n_resamples):
        chosen = drawn_anew(of_draw, draw)
        r_Q = correlations(prepare(predicted_SQ[chosen]), prepare(means_SQ[chosen]))
        times_Q = np.bincount(draw.integers(n_groups, size=n_groups), minlength=n_groups)[groups_Q]
        # An outcome that does not vary among the drawn has no correlation to count.
        varies_Q = np.ptp(means_SQ[chosen], axis=0) > 0
        weight_Q = times_Q * varies_Q
        if weight_Q.sum():
            found.append((np.nan_to_num(r_Q) * weight_Q).sum() / weight_Q.sum())
    low, high = np.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _groups(entities: Sequence[Hashable] | None, n: int) -> npt.NDArray[np.int64]:
    if entities is None:
        return np.arange(n)
    if len(entities) != n:
        raise ValueError(f"{len(entities)} entities for {n} questions")
    places = {entity: i for i, entity in enumerate(sorted(set(entities), key=str))}
    return np.array([places[entity] for entity in entities], dtype=np.int64)
