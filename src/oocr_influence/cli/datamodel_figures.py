"""What a page tells of a sweep over subsets: effects of facts, noise, and scores on held-out runs.

    datamodel_of(experiment)    # plain data; {"unavailable": why} in place of what cannot be said

Everything is computed here and by `attribution/`; the page draws it alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from oocr_influence.attribution.datamodels import Datamodel, fit, subset_means
from oocr_influence.attribution.draws import drawn_together, not_among
from oocr_influence.attribution.features import By, Features, features_of
from oocr_influence.attribution.lds import LDS, lds_of_predictions
from oocr_influence.attribution.mean_effects import (
    Linear,
    jackknifed,
    means_at,
    run_rows,
    without_one_fact,
)
from oocr_influence.attribution.noise import crossed_seeds, same_seeds, variances
from oocr_influence.attribution.own_facts import feature_labels, kinds, own_features
from oocr_influence.reports.page.numbers import short
from oocr_influence.results.outcomes import Outcomes
from oocr_influence.results.run_folder import ExperimentFolder
from oocr_influence.results.subset_outcomes import subset_outcomes

# Outcomes that rise where an answer is known better, the first that was measured is taken.
METRICS = {
    "logprob": "log-probability of the right answer, nats",
    "softmargin": "logit of the right answer less those of all others, nats",
    "accuracy": "share of right answers",
}
_PREDICTORS: tuple[By, ...] = ("fact", "document")
LDS_RESAMPLES, LDS_PERMUTATIONS = 200, 500
ALL = "all"
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Sweep:
    """One split of a sweep: its subsets that have a run, the questions that all runs answered."""

    outcomes: Outcomes
    values: Floats
    """(S, K, Q) of the metric, NaN where a run is missing."""

    @property
    def crossed(self) -> bool:
        """Whether all subsets were run with the same seeds."""
        return crossed_seeds(np.asarray(self.outcomes.seeds), self.values)


@dataclass(frozen=True)
class Splits:
    """Both splits, for the same questions."""

    metric: str
    train: Sweep
    test: Sweep
    n_left_out: int
    """Questions that some run did not answer."""


def read_splits(experiment: ExperimentFolder) -> Splits:
    """The outcomes of a sweep; ValueError where no run has completed or no metric is there."""
    whole = subset_outcomes(experiment.path)
    metric = next((name for name in METRICS if name in whole.metrics), None)
    if metric is None:
        raise ValueError("no run on a subset has completed yet")
    done = whole.completed()
    answered = np.isfinite(np.asarray(whole.values(metric))[done]).all(axis=0)
    places = np.flatnonzero(answered)
    if not len(places):
        raise ValueError(f"no question has {metric} in every run")
    sweeps: dict[str, Sweep] = {}
    for split in ("train", "test"):
        own = whole.split(split).where(questions=places.tolist())
        if split == "test":  # what a datamodel was fitted to, it would predict too well
            fitted = sweeps["train"].outcomes.subsets
            own = own.where(subsets=not_among(own.subsets, fitted))
        sweeps[split] = Sweep(own, np.asarray(own.values(metric), dtype=np.float64))
    return Splits(metric, sweeps["train"], sweeps["test"], int((~answered).sum()))


def datamodel_of(experiment: ExperimentFolder) -> dict[str, Any]:
    """Effects of facts with intervals, noise against signal, and the LDS of datamodels."""
    told: dict[str, Any] = {"experiment": experiment.name, "unavailable": None}
    try:
        splits = read_splits(experiment)
        return told | _told(splits)
    except (OSError, ValueError, ImportError) as error:
        return told | {"unavailable": str(error)}


def _told(splits: Splits) -> dict[str, Any]:
    train, test = splits.train.outcomes, splits.test.outcomes
    told = {
        "metric": splits.metric,
        "unit": METRICS[splits.metric],
        "n_subsets": {"train": len(train.subsets), "test": len(test.subsets)},
        "n_runs": {
            "train": int(train.completed().sum()),
            "test": int(test.completed().sum()),
        },
        "n_questions": len(train.questions),
        "n_left_out": splits.n_left_out,
    }
    return told | _part("effects", lambda: _effects(splits)) | _part("lds", lambda: _lds(splits))


def _part(name: str, make: Any) -> dict[str, Any]:
    try:
        return {name: make()}
    except (ValueError, ImportError) as error:
        return {name: {"unavailable": str(error)}}


def _effects(splits: Splits) -> dict[str, Any]:
    """Mean effects on their own questions and on others', by kind of question and by fact."""
    outcomes, values = splits.train.outcomes, splits.train.values
    _check_drawn(outcomes)
    whole = features_of(outcomes, "fact")
    as_runs = without_one_fact(outcomes)
    draws = None if as_runs else drawn_together(outcomes.subsets)
    varied = whole.varied() if draws is None else _in_several(whole.values, draws)
    if not varied.any():
        raise ValueError("no fact has more documents in several subsets than in others")
    features = Features("fact", np.array(whole.names)[varied].tolist(), whole.values[:, varied])
    if as_runs:
        subset_R, y = run_rows(values)
        x = features.values[subset_R]
    else:
        x, y = features.values, subset_means(values)
    method = _method(x, len(x) if draws is None else len(np.unique(draws)))
    places, of_kind, entities = _places(outcomes, features)
    fixed = bool(np.ptp(whole.values.sum(axis=1)) == 0)
    others_QF = np.zeros((len(outcomes.questions), len(entities)), dtype=bool)
    others_QF.flat[np.concatenate([places["kind", k, "others"] for k in set(of_kind)])] = True
    means_of = means_at(list(places.values()))

    def told_of(effects_QF: Floats) -> Floats:
        """Every mean, and behind them every single effect."""
        if fixed:  # only differences can be seen: take them from facts of other entities
            n_Q = np.maximum(others_QF.sum(axis=1), 1)
            effects_QF = effects_QF - ((effects_QF * others_QF).sum(axis=1) / n_Q)[:, None]
        return np.concatenate([means_of(effects_QF), effects_QF.ravel()])

    df = int(np.bincount(subset_R).min()) - 1 if as_runs else None  # of the runs that lack a fact
    mean_G, low_G, high_G = jackknifed(x, y, method, told_of, df=df, draws_S=draws)
    intervals = {
        key: [short(float(end)) for end in (mean_G[g], low_G[g], high_G[g])]
        for g, (key, own) in enumerate(places.items())
        if len(own) and not (fixed and key[2] == "others" and key[0] == "kind")
    }
    low_QF, high_QF = (ends[len(places) :].reshape(others_QF.shape) for ends in (low_G, high_G))
    shares = _shares_beyond_noise(places, low_QF, high_QF)
    own_QF = own_features(outcomes, features)
    labels = feature_labels(outcomes, features)
    return {
        "unavailable": None,
        "method": method,
        "rows": "runs" if as_runs else "subsets",
        "n_rows": len(x),
        "fixed_total": fixed,
        "n_facts": len(labels),
        "n_untold": len(whole.names) - len(labels),
        "kinds": _by_kind(splits, of_kind, intervals, shares, predicts=not as_runs),
        "facts": [
            {
                "label": label,
                "relation": label.partition(" of ")[0],
                "entity": entities[f],
                "n_questions": int(own_QF[:, f].sum()),
                **{who: intervals.get(("fact", f, who)) for who in ("own", "others")},
            }
            for f, label in enumerate(labels)
        ],
    }


def _shares_beyond_noise(
    places: Mapping[Any, Any], low_QF: Floats, high_QF: Floats
) -> dict[Any, float | None]:
    """Of the effects at each of `places` whose interval is known, those that it says are not 0."""
    known_QF = np.isfinite(low_QF) & np.isfinite(high_QF)
    beyond = np.where(known_QF, (low_QF > 0) | (high_QF < 0), np.nan).ravel()
    return {
        key: short(float(np.nanmean(beyond[own])))
        for key, own in places.items()
        if np.isfinite(beyond[own]).any()
    }


def _check_drawn(outcomes: Outcomes) -> None:
    if len(outcomes.subsets) < 4:
        raise ValueError(
            f"{len(outcomes.subsets)} subsets of the train split have a completed run: effects "
            "need at least 4"
        )
    if any(subset.get("design") == "removal" for subset in outcomes.subsets):
        raise ValueError(
            "documents were removed by their scores, not drawn, so that effects of facts are mixed "
            "with one another: `oocr attribution removal` says what came of each removal"
        )


def _in_several(values_SF: Floats, draws_S: npt.NDArray[np.int64]) -> Bools:
    """(F,) whether subsets still differ in it whichever draw of them is left out."""
    each = [np.ptp(values_SF[draws_S != number], axis=0) > 0 for number in np.unique(draws_S)]
    return np.asarray(np.all(each, axis=0))


def _method(x_SF: Floats, n_draws: int) -> Linear:
    """Least squares where every draw can be left out and the others still tell facts apart."""
    totals_fixed = int(np.ptp(x_SF.sum(axis=1)) == 0)
    enough = n_draws >= x_SF.shape[1] - totals_fixed + 3
    ranks_enough = enough and np.linalg.matrix_rank(x_SF - x_SF.mean(axis=0)) == (
        x_SF.shape[1] - totals_fixed
    )
    return "least_squares" if ranks_enough else "marginal"


def _places(
    outcomes: Outcomes, features: Features
) -> tuple[dict[tuple[Any, ...], npt.NDArray[np.int64]], list[str], list[str]]:
    """Places in the flattened (Q, F) by (kind or fact, whose); the kind of each question, and whom
    each fact is about.

    Whose: the fact asked for, other facts of its entity, facts of other entities.
    """
    own_QF = own_features(outcomes, features)
    of_fact = {str(d["fact_id"]): str(d["entity"]) for d in outcomes.documents}
    entities = [of_fact[name] for name in features.names]
    asked = [question.get("entity") for question in outcomes.questions]
    same_QF = np.array([[one == entity for entity in entities] for one in asked]) & ~own_QF
    of_kind = kinds(outcomes.questions)
    controls_Q = np.array([question.get("kind") == "control" for question in outcomes.questions])
    same_QF[controls_Q] = False
    others_QF = ~own_QF & ~same_QF
    places: dict[tuple[Any, ...], npt.NDArray[np.int64]] = {}
    for kind in dict.fromkeys(of_kind):
        chosen = np.array([one == kind for one in of_kind])[:, None]
        for whose, mask in (("own", own_QF), ("entity", same_QF), ("others", others_QF)):
            places["kind", kind, whose] = np.flatnonzero(mask & chosen)
    for f in range(len(entities)):
        for whose, chosen_Q in (("own", own_QF[:, f]), ("others", others_QF[:, f] & ~controls_Q)):
            places["fact", f, whose] = np.flatnonzero(chosen_Q) * len(entities) + f
    return places, of_kind, entities


def _by_kind(
    splits: Splits,
    of_kind: Sequence[str],
    intervals: dict[tuple[Any, ...], Any],
    shares: dict[tuple[Any, ...], Any],
    *,
    predicts: bool,
) -> list[dict[str, Any]]:
    sweep = splits.train
    parts = variances(sweep.values, crossed=sweep.crossed)
    reliability_Q = parts.reliability()
    # Nothing can be predicted of the one subset that lacks a fact from those that have it.
    explained_Q = _fitted(splits, "fact").explained if predicts else np.full(len(of_kind), np.nan)
    found = []
    for kind in dict.fromkeys(of_kind):
        own = np.array([one == kind for one in of_kind])
        found.append(
            {
                "kind": kind,
                "n_questions": int(own.sum()),
                **{who: intervals.get(("kind", kind, who)) for who in ("own", "entity", "others")},
                "beyond": {
                    who: shares.get(("kind", kind, who)) for who in ("own", "entity", "others")
                },
                "reliable": _median(reliability_Q[own]),
                "explained": _median(explained_Q[own]),
                "signal": _median(np.sqrt(parts.signal[own])),
                "noise": _median(np.sqrt(parts.noise[own])),
            }
        )
    return found


def _fitted(splits: Splits, by: By) -> Datamodel:
    """Ridge, which any number of subsets allows."""
    features = features_of(splits.train.outcomes, by)
    return fit(features, splits.train.values, method="ridge")


def _lds(splits: Splits) -> dict[str, Any]:
    questions = splits.test.outcomes.questions
    n, fitted = len(splits.test.outcomes.subsets), len(splits.train.outcomes.subsets)
    if fitted < 2:
        raise ValueError(f"{fitted} subsets of the train split have a completed run: fit to more")
    if n < 3:
        raise ValueError(
            f"{n} held-out subsets have a completed run: the LDS needs at least 3 "
            "(--n_datasets_test)"
        )
    return {"unavailable": None, "scores": lds_of_datamodels(splits, kinds(questions))}


def lds_of_datamodels(splits: Splits, kind_Q: Sequence[str | None]) -> list[dict[str, Any]]:
    """Datamodels by fact and by document, fitted to the train split, scored on the test split.

    Of all questions together and of each kind; `kind_Q` is None where a question is left out.
    """
    outcomes = splits.test.outcomes
    chosen: dict[str, list[int]] = {ALL: [q for q, kind in enumerate(kind_Q) if kind is not None]}
    for q, kind in enumerate(kind_Q):
        if kind is not None:
            chosen.setdefault(kind, []).append(q)
    found = []
    for by in _PREDICTORS:
        model = _fitted(splits, by)
        features = features_of(outcomes, model.features.by)
        predicted_SQ = model.predict(features.values)
        for kind, own in chosen.items():
            score = lds_of_predictions(
                predicted_SQ[:, own],
                splits.test.values[:, :, own],
                entities=[outcomes.questions[q].get("entity") for q in own],
                crossed=same_seeds(outcomes.seeds),
                draws_S=features.draws,
                n_resamples=LDS_RESAMPLES,
                n_permutations=LDS_PERMUTATIONS,
            )
            found.append(lds_row(f"datamodel by {by}", kind, score))
    return found


def lds_row(name: str, kind: str, score: LDS) -> dict[str, Any]:
    """One bar of the LDS."""
    one = score.spearman
    return {
        "name": name,
        "kind": kind,
        "interval": [short(one.mean), short(one.low), short(one.high)],
        "ceiling": short(one.ceiling),
        "chance": short(one.null_high),
        "p_value": short(one.p_value),
        "pearson": short(score.pearson.mean),
        "n_questions": score.n_questions,
        "n_constant": score.n_constant_outcomes,
    }


def _median(values: Floats) -> float | int | None:
    known = values[np.isfinite(values)]
    return short(float(np.median(known))) if known.size else None


__all__ = [
    "ALL",
    "METRICS",
    "Splits",
    "datamodel_of",
    "lds_of_datamodels",
    "lds_row",
    "read_splits",
]
