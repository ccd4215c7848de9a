"""How documents move answers: datamodels of a sweep over subsets (docs/data_modeling.md).

oocr datamodel fit outputs/2026_…_mayors --by fact --to effects.parquet
oocr datamodel lds outputs/2026_…_mayors --by document --method ridge
oocr datamodel plan outputs/2026_…_pilot --half_width 0.1
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from oocr_influence.attribution.datamodels import Datamodel, Method, fit
from oocr_influence.attribution.draws import not_among
from oocr_influence.attribution.features import By, features_of
from oocr_influence.attribution.lds import Correlation, lds_of_predictions
from oocr_influence.attribution.noise import crossed_seeds, same_seeds, variances
from oocr_influence.attribution.own_facts import feature_labels, kinds, own_features
from oocr_influence.attribution.sample_size import Pilot
from oocr_influence.attribution.scoring import falls
from oocr_influence.cli.arguments import CommandArguments, UsageError
from oocr_influence.datasets.set_names import fits
from oocr_influence.reports.results_text import aligned
from oocr_influence.results.atomic import writing_file
from oocr_influence.results.outcomes import Outcomes
from oocr_influence.results.subset_outcomes import subset_outcomes

_OF_A_QUESTION = ("set", "index", "id", "entity", "relation", "kind", "control")


class DatamodelArguments(CommandArguments):
    """A sweep over subsets, and what of it."""

    experiment: Path = Field(json_schema_extra={"positional": True})
    """the sweep's folder; it may still be going on"""
    metric: str = "logprob"
    """the outcome: logprob, loss, accuracy, softmargin, or another column of the records"""
    sets: list[str] = ["*"]
    """patterns of the names of the sets whose questions are taken"""
    by: By = "fact"
    """what effects are of: each document, or the number of documents of each fact or relation"""


class FitArguments(DatamodelArguments):
    """Fit a datamodel to the train split."""

    method: Method = "least_squares"
    """least_squares, ridge, lasso, or marginal: each feature by itself"""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """of the intervals"""
    to: Path | None = None
    """write the effects to this Parquet file: one row a question and feature"""


class LdsArguments(DatamodelArguments):
    """Fit a datamodel to the train split and score it on the test split."""

    method: Method = "ridge"
    """least_squares, ridge, lasso, or marginal: each feature by itself"""


class PlanArguments(DatamodelArguments):
    """From a pilot: how many subsets and runs a precision needs."""

    half_width: float = Field(gt=0)
    """of a typical effect's 95 % interval, in the metric's unit"""
    ceiling: float | None = Field(default=None, gt=0, lt=1)
    """a perfect predictor's LDS must be at least this (None: whatever it is)"""


def main_fit(args: FitArguments) -> int:
    """Print how much of the outcomes the documents explain, and whose documents move them."""
    outcomes, values = _train(args)
    features = features_of(outcomes, args.by)
    crossed = crossed_seeds(outcomes.seeds, values)
    parts = variances(values, crossed=crossed)
    with _as_usage_errors():
        model = fit(features, values, method=args.method, confidence=args.confidence)
    own_QF = own_features(outcomes, features)
    of_kind = kinds(outcomes.questions)
    rows = [["asked", "questions", "own", "others", "own on top", "reliable", "explained"]]
    for kind in dict.fromkeys(of_kind):
        chosen = np.array([one == kind for one in of_kind])
        best_QF = -model.effects if falls(args.metric) else model.effects
        shares = _own_on_top(best_QF[chosen], own_QF[chosen])
        rows.append(_fit_row(kind, chosen, model, own_QF, parts.reliability(), shares))
    print(
        f"{len(outcomes.subsets)} subsets, {parts.runs:.1f} runs each; {len(outcomes.questions)} "
        f"questions; {len(features.names)} {args.by}s, {args.method}\n"
    )
    print("\n".join(aligned(rows)))
    print(
        f"\nown, others: mean effect on {args.metric} of one more document of the fact that is "
        "asked for, and of others"
        + ("\n  (beside the mean of all: every subset has as many)" if model.fixed_total else "")
        + "\nown on top: questions that the fact asked for helps most, of all (equal ones: a share)"
        "\nreliable: share of a subset mean's variance that is no noise of the seeds, median"
        "\nexplained: share predicted for subsets left out, median"
    )
    if args.to is not None:
        _write_effects(args.to, outcomes, model, own_QF)
        print(f"\n{args.to}: {model.effects.size:,} effects")
    return 0


def main_lds(args: LdsArguments) -> int:
    """Print how well the datamodel of the train split predicts the test split."""
    outcomes, values, held_out, held_out_values, n_fitted = _both(args)
    features, test = features_of(outcomes, args.by), features_of(held_out, args.by)
    with _as_usage_errors():
        model = fit(features, values, method=args.method)
    crossed = same_seeds(held_out.seeds)
    of_kind = kinds(held_out.questions)
    rows = [["asked", "questions", "Spearman", "ceiling", "by chance", "p", "Pearson", "ceiling"]]
    for kind in dict.fromkeys(of_kind):
        chosen = [q for q, one in enumerate(of_kind) if one == kind]
        entities = [held_out.questions[q].get("entity") for q in chosen]
        with _as_usage_errors():
            if args.method == "marginal":
                predicted = test.values @ np.nan_to_num(model.effects[chosen]).T
            else:
                predicted = model.predict(test.values)[:, chosen]
            score = lds_of_predictions(
                predicted,
                held_out_values[:, :, chosen],
                entities=entities,
                crossed=crossed,
                draws_S=test.draws,
            )
        pearson = _told(score.pearson)
        rows.append([kind, str(len(chosen)), *_told(score.spearman), *pearson[:2]])
    print(
        f"{args.method} by {args.by}, fitted to {len(outcomes.subsets)} subsets, scored on "
        f"{len(held_out.subsets)}; {args.metric}\n"
    )
    print("\n".join(aligned(rows)))
    if n_fitted:
        print(f"\n{n_fitted} subsets of the test split are left out: the train split has them too")
    print(
        "\n[…]: 95 % over subsets and entities; ceiling: a perfect predictor, given the noise of "
        "the seeds\nby chance: 95 % of the means with subsets exchanged lie below"
    )
    return 0


def main_plan(args: PlanArguments) -> int:
    """Print what the asked precision takes."""
    outcomes, values = _train(args)
    features = features_of(outcomes, args.by)
    crossed = crossed_seeds(outcomes.seeds, values)
    with _as_usage_errors():
        pilot = Pilot.of(features, values, crossed=crossed)
    needed = pilot.needed(half_width=args.half_width, ceiling=args.ceiling)
    if needed is None:
        raise UsageError("no number of subsets up to a million is enough: ask for less")
    rows = [["subsets", "runs each", "runs", "± 95 %", "LDS at most"]]
    plans = dict.fromkeys([(len(outcomes.subsets), round(pilot.variances.runs)), needed])
    for subsets, runs in plans:
        half = float(np.nanmedian(pilot.half_width(subsets, runs)))
        most = f"{pilot.ceiling(runs):.2f}"
        rows.append([str(subsets), str(runs), f"{subsets * runs:,}", f"{half:.3g}", most])
    print("\n".join(aligned(rows)))
    print(
        f"\nthe first line is the pilot; ±: the median question's effect of a {args.by} on "
        f"{args.metric}, by least squares"
    )
    return 0


def _train(args: DatamodelArguments) -> tuple[Outcomes, npt.NDArray[np.float64]]:
    return _chosen(args, "train")


def _both(
    args: LdsArguments,
) -> tuple[Outcomes, npt.NDArray[np.float64], Outcomes, npt.NDArray[np.float64], int]:
    """Both splits with their values, of the same questions, and how many test subsets are left out:
    those that the train split has too."""
    (train, of_train), (test, of_test) = _train(args), _chosen(args, "test")
    new = not_among(test.subsets, train.subsets)
    if len(new) < 3:
        raise UsageError(
            f"{args.experiment}: {len(new)} subsets of the test split are held out, and "
            f"{len(test.subsets) - len(new)} are subsets of the train split: at least 3 are needed"
        )
    names = [[(q["set"], q["index"]) for q in one.questions] for one in (train, test)]
    common = set(names[0]) & set(names[1])
    if not common:
        raise UsageError(f"no question has {args.metric} in every run of both splits")
    here, there = ([i for i, name in enumerate(own) if name in common] for own in names)
    return (
        train.where(questions=here),
        of_train[:, :, here],
        test.where(subsets=new, questions=there),
        of_test[new][:, :, there],
        len(test.subsets) - len(new),
    )


def _chosen(args: DatamodelArguments, split: str) -> tuple[Outcomes, npt.NDArray[np.float64]]:
    """One split, and its values of the metric for the questions that all its runs answered."""
    try:
        outcomes = subset_outcomes(args.experiment).split(split)
        if not outcomes.subsets:
            raise ValueError(f"{args.experiment}: no run of the {split} split has completed")
        values = np.asarray(outcomes.values(args.metric), dtype=np.float64)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from None
    done = outcomes.completed()
    asked = [q for q, one in enumerate(outcomes.questions) if fits(one["set"], args.sets)]
    chosen = [q for q in asked if np.isfinite(values[:, :, q][done]).all()]
    if not chosen:
        raise UsageError(
            f"no question of the sets {' '.join(args.sets)} has {args.metric} in every run"
        )
    return outcomes.where(questions=chosen), values[:, :, chosen]


@contextmanager
def _as_usage_errors() -> Iterator[None]:
    try:
        yield
    except (ValueError, ImportError) as error:
        raise UsageError(str(error)) from None


def _fit_row(
    kind: str,
    chosen: npt.NDArray[np.bool_],
    model: Datamodel,
    own_QF: npt.NDArray[np.bool_],
    reliability_Q: npt.NDArray[np.float64],
    on_top: npt.NDArray[np.float64],
) -> list[str]:
    effects, own = model.effects[chosen], own_QF[chosen]
    known = np.isfinite(effects)
    return [
        kind,
        str(int(chosen.sum())),
        _mean(effects[own & known]),
        _mean(effects[~own & known]),
        f"{on_top.mean():.0%}" if on_top.size else "–",
        _median(reliability_Q[chosen]),
        _median(model.explained[chosen]),
    ]


def _own_on_top(
    best_QF: npt.NDArray[np.float64], own_QF: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Of each question that has a feature of its own: whether such a one helps most, and where
    several help as much, the share of its own among them."""
    known_QF = np.isfinite(best_QF)
    has_own_Q = (own_QF & known_QF).any(axis=1)
    best_QF = np.where(known_QF, best_QF, -np.inf)[has_own_Q]
    top_QF = best_QF == best_QF.max(axis=1, keepdims=True)
    return np.asarray((top_QF & own_QF[has_own_Q]).sum(axis=1) / top_QF.sum(axis=1))


def _mean(values: npt.NDArray[np.float64]) -> str:
    return f"{values.mean():+.4f}" if values.size else "–"


def _median(values: npt.NDArray[np.float64]) -> str:
    known = values[np.isfinite(values)]
    return f"{np.median(known):.2f}" if known.size else "–"


def _told(one: Correlation) -> list[str]:
    return [
        f"{one.mean:.2f} [{one.low:.2f}, {one.high:.2f}]",
        "–" if np.isnan(one.ceiling) else f"{one.ceiling:.2f}",
        f"{one.null_high:.2f}",
        f"{one.p_value:.3f}",
    ]


def _write_effects(
    path: Path, outcomes: Outcomes, model: Datamodel, own_QF: npt.NDArray[np.bool_]
) -> None:
    """One row a question and feature."""
    n_questions, n_features = model.effects.shape
    columns: dict[str, Any] = {
        name: np.repeat([str(q.get(name)) for q in outcomes.questions], n_features)
        for name in _OF_A_QUESTION
        if name != "index"
    }
    columns["index"] = np.repeat([q["index"] for q in outcomes.questions], n_features)
    columns["feature"] = np.tile(list(model.features.names), n_questions)
    columns["label"] = np.tile(feature_labels(outcomes, model.features), n_questions)
    columns["is_own"] = own_QF.ravel()
    columns |= {
        "effect": model.effects.ravel(),
        "low": model.low.ravel(),
        "high": model.high.ravel(),
    }
    if not path.parent.is_dir():
        raise UsageError(f"--to {path}: there is no folder {path.parent}")
    with writing_file(path) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")
