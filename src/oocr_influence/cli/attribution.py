"""How good scores of documents are: do they find what states a fact, do they predict other runs?

    oocr attribution score scored/final scored/e1
    oocr attribution score scored/final --outcomes outputs/…_subsets --json methods.json
    oocr attribution removal outputs/…_removal --csv removal.csv

Each table is a folder that `oocr attribute` wrote. Without outcomes of a subset sweep there is
retrieval alone. docs/attribution.md says how ties, intervals and chance are counted.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv
from pydantic import Field, model_validator

from oocr_influence.attribution.lds import Correlation
from oocr_influence.attribution.scoring import (
    MethodLDS,
    RetrievalGroup,
    lds_of_methods,
    retrieval_groups,
)
from oocr_influence.cli.arguments import CommandArguments, UsageError
from oocr_influence.cli.removal_results import removal_results
from oocr_influence.reports.attribution_text import render_lds, render_retrieval
from oocr_influence.reports.removal_text import render_removal
from oocr_influence.results.atomic import plain, write_json, writing_file
from oocr_influence.results.attributions import Attributions
from oocr_influence.results.intervals import Interval
from oocr_influence.results.outcomes import Outcomes
from oocr_influence.results.subset_outcomes import subset_outcomes


class ScoreArguments(CommandArguments):
    """Which tables, and against what."""

    tables: list[Path] = Field(json_schema_extra={"positional": True})
    """folders that `oocr attribute` wrote"""
    outcomes: Path | None = None
    """a sweep over subsets, for the LDS: its folder, or one that Outcomes.save wrote"""
    split: Literal["test", "train"] = "test"
    """which of the sweep's subsets; what was fitted to one split is scored on the other"""
    metric: str = "logprob"
    """the outcome that scores are to predict, of those that rise with knowledge"""
    at: list[int] = [10, 100]
    """how many documents on top are looked at for recall and precision (documents)"""
    lds_resamples: int = Field(default=200, ge=20)
    """draws of subsets and entities behind an interval of the LDS, which takes most of the time"""
    seed: int = 0
    """draws the resamples of intervals"""
    json_: Path | None = None
    """file to write every number to, as JSON"""

    @model_validator(mode="after")
    def _consistent(self) -> ScoreArguments:
        faults = []
        if not self.tables:
            faults.append("name a folder that `oocr attribute` wrote")
        if any(k < 1 for k in self.at):
            faults.append(f"--at {min(self.at)}: at least 1 document")
        stated = {"split", "metric", "lds_resamples"} & self.model_fields_set
        if self.outcomes is None and stated:
            faults += [f"--{name} goes with --outcomes" for name in sorted(stated)]
        if faults:
            raise ValueError("\n       ".join(faults))
        return self


class RemovalArguments(CommandArguments):
    """A sweep of removals, and where to write what came of it."""

    experiment: Path = Field(json_schema_extra={"positional": True})
    """the sweep's folder (data_modeling --subset_design removal); it may still be going on"""
    metrics: list[str] = ["logprob", "accuracy"]
    """what changes: logprob, loss, accuracy, softmargin, or other columns of the records"""
    json_: Path | None = None
    """file to write every number to, and what each removal was, as JSON"""
    csv: Path | None = None
    """file to write every number to, a row each, as CSV"""

    @model_validator(mode="after")
    def _has_metrics(self) -> RemovalArguments:
        if not self.metrics:
            raise ValueError("--metrics: name one")
        return self


def main_removal(args: RemovalArguments) -> int:
    """Print how answers changed without the documents on top, and without as many others."""
    for flag, file in (("json", args.json_), ("csv", args.csv)):
        if file is not None and not file.parent.is_dir():
            raise UsageError(f"--{flag} {file}: there is no folder {file.parent}")
    try:
        rows, cells = removal_results(args.experiment, args.metrics)
    except (OSError, ImportError, ValueError) as error:
        raise UsageError(f"{args.experiment}: {error}") from None
    print(render_removal(rows, cells))
    if args.json_ is not None:
        about = {"args": args.model_dump(mode="json")}
        write_json(args.json_, plain({**about, "removals": cells, "effects": rows}))
    if args.csv is not None:
        with writing_file(args.csv) as temporary:
            pyarrow.csv.write_csv(pa.Table.from_pylist(rows), temporary)
    return 0


def main_score(args: ScoreArguments) -> int:
    """Print retrieval and, with outcomes, the LDS; write both where asked to."""
    outcomes = None if args.outcomes is None else _held_out(args.outcomes, args.split)
    tables = {_name(path, args.tables): _load(path) for path in args.tables}
    found: list[dict[str, Any]] = []
    predicted: list[dict[str, Any]] = []
    for name, table in tables.items():
        try:
            groups = retrieval_groups(table, args.at, seed=args.seed)
            found += [_retrieval_row(name, group) for group in groups]
            if outcomes is not None:
                scores = lds_of_methods(
                    table,
                    outcomes,
                    args.metric,
                    n_resamples=args.lds_resamples,
                    seed=args.seed,
                )
                predicted += [_lds_row(name, score) for score in scores]
        except (ImportError, ValueError) as error:
            raise UsageError(f"{name}: {error}") from None
    print(render_retrieval(found, args.at))
    if predicted:
        print("\n" + render_lds(predicted, args.metric, args.split))
    if args.json_ is not None:
        about = {"args": args.model_dump(mode="json")}
        write_json(args.json_, plain({**about, "retrieval": found, "lds": predicted}))
    return 0


def _load(folder: Path) -> Attributions:
    try:
        return Attributions.load(folder)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _held_out(folder: Path, split: str) -> Outcomes:
    saved = (folder / "about.json").is_file()
    try:
        outcomes = Outcomes.load(folder) if saved else subset_outcomes(folder)
    except ValueError as error:
        raise UsageError(str(error)) from None
    chosen = outcomes.split(split)
    if len(chosen.subsets) < 3:
        raise UsageError(
            f"--outcomes {folder}: {len(chosen.subsets)} subsets of the {split} split have a "
            "completed run, at least 3 are needed (--split names the other)"
        )
    return chosen


def _name(path: Path, paths: list[Path]) -> str:
    """The folder's own name, or all of its path where two are called alike."""
    alike = [other for other in paths if other.name == path.name]
    return path.name if len(alike) == 1 else str(path)


def _retrieval_row(table: str, group: RetrievalGroup) -> dict[str, Any]:
    return {
        "table": table,
        "method": group.method,
        "relation": group.relation,
        "kind": group.kind,
        "n_documents": group.n_documents,
        "mean_relevant": group.mean_relevant,
        "mrr": _interval(group.mrr),
        "recall": {str(k): _interval(one) for k, one in group.recall.items()},
        "precision": {str(k): _interval(one) for k, one in group.precision.items()},
    }


def _lds_row(table: str, method: MethodLDS) -> dict[str, Any]:
    score = method.score
    return {
        "table": table,
        "method": method.method,
        "kind": method.kind,
        "n_subsets": score.n_subsets,
        "n_questions": score.n_questions,
        "n_constant_outcomes": score.n_constant_outcomes,
        "n_constant_predictions": score.n_constant_predictions,
        "spearman": _correlation(score.spearman),
        "pearson": _correlation(score.pearson),
    }


def _interval(interval: Interval) -> dict[str, Any]:
    return asdict(interval)


def _correlation(correlation: Correlation) -> dict[str, Any]:
    names = ("mean", "low", "high", "ceiling", "null_high", "p_value")
    return {name: getattr(correlation, name) for name in names}
