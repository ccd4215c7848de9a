"""The means of a run's sets: one row an evaluation and set, what `oocr evaluate` added too.

table = SetTable()
files = add_run(table, run, log, notices)     # and the files that hold the questions
table.to_arrow()
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from oocr_influence.datasets.set_names import asked, describe_by_name, kind_named
from oocr_influence.results.experiment_log import LoggedExperiment
from oocr_influence.results.merged_evaluations import Part, evaluated, merged_parts
from oocr_influence.results.run_folder import RunFolder

DESCRIPTION = {
    "world": pa.string(),
    "relation": pa.string(),
    "answer_format": pa.string(),
    "style": pa.string(),
    "phrasing": pa.int64(),
    "shots": pa.int64(),
    "kind": pa.string(),
    "control": pa.string(),
}
SET_COLUMNS = {
    "run": pa.string(),
    "evaluation": pa.string(),
    "suite": pa.string(),
    "step": pa.int64(),
    "epoch": pa.float64(),
    "train_loss": pa.float64(),
    "eval_seconds": pa.float64(),
    "set": pa.string(),
    **DESCRIPTION,
    "asked": pa.string(),
    "n": pa.int64(),
}


# What all questions of a file have in common.
OF_EVALUATION = {
    "experiment": pa.string(),
    "run": pa.string(),
    "evaluation": pa.string(),
    "suite": pa.string(),
    "step": pa.int64(),
    "epoch": pa.float64(),
    "data_order_seed": pa.int64(),
}


@dataclass(frozen=True)
class QuestionFile:
    """A file of questions: of which evaluation, and which of its sets count under which name."""

    path: Path
    told: Mapping[str, Any]
    """The values of OF_EVALUATION."""
    called: Mapping[str, str] | None
    """None where every set counts under its own name."""


@dataclass
class SetTable:
    """Rows column by column: means differ in which numbers they have."""

    n_rows: int = 0
    columns: dict[str, list[Any]] = field(
        default_factory=lambda: {name: [] for name in SET_COLUMNS}
    )

    def add(
        self,
        told: Mapping[str, Any],
        eval_sets: Mapping[str, Mapping[str, Any]],
        described: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Add the sets of one evaluation; `told` holds what all of them have in common.

        Of the means the numbers are kept, and the names of those that are None.
        """
        n = len(eval_sets)
        own: dict[str, list[Any]]
        own = {"set": list(eval_sets), "n": [means.get("n") for means in eval_sets.values()]}
        for name in SET_COLUMNS:
            if name in own:
                self.columns[name] += own[name]
            elif name in told:
                self.columns[name] += [told[name]] * n
            else:
                self.columns[name] += [described[set_name].get(name) for set_name in eval_sets]
        for name in dict.fromkeys(key for means in eval_sets.values() for key in means):
            values = [_number(means.get(name)) for means in eval_sets.values()]
            stated = any(means.get(name, "") is None for means in eval_sets.values())
            if name == "n" or not (stated or any(value is not None for value in values)):
                continue
            column = self.columns.setdefault(f"mean_{name}" if name in SET_COLUMNS else name, [])
            column += [None] * (self.n_rows - len(column))
            column += values
        self.n_rows += n

    def asked_since(self, n_rows: int) -> set[tuple[Any, str]]:
        """(step, set) and (evaluation, set) of the rows that were added after `n_rows` of them."""
        step, name, asked = (
            self.columns[column][n_rows:] for column in ("step", "evaluation", "set")
        )
        return {*zip(step, asked, strict=True), *zip(name, asked, strict=True)}

    def to_arrow(self) -> Any:
        """The rows as a pyarrow Table; absent means are null."""
        arrays = {}
        for name, column in self.columns.items():
            column += [None] * (self.n_rows - len(column))
            arrays[name] = pa.array(column, SET_COLUMNS.get(name, pa.float64()))
        return pa.table(arrays)


def add_run(
    table: SetTable,
    run: RunFolder,
    log: LoggedExperiment | None,
    of_run: Mapping[str, Any],
    notices: list[str],
) -> list[QuestionFile]:
    """Add the sets of every evaluation of `run`; returns where their questions are.

    `of_run` is its row (see `collected_runs.run_row`).

    An evaluation that cannot be read is left out, and `notices` says so.
    """
    losses = {entry.step_num: entry.train_loss for entry in log.history} if log else {}
    described: dict[str, dict[str, Any]] = {}
    files = []
    for name in evaluated(run):
        try:
            parts = merged_parts(run, name)
            for part in parts:
                _describe(described, run, name, part)
        except (OSError, ValueError) as error:
            notices.append(f"{run.path}: left out: {error}")
            continue
        for part in parts:
            one = part.evaluation
            loss = losses.get(one.step_num)
            base: dict[str, Any] = {"run": run.name, "evaluation": name, "suite": part.suite}
            base |= {"step": one.step_num, "epoch": one.epoch_num}
            told = base | {key: of_run[key] for key in ("experiment", "data_order_seed")}
            measured: dict[str, Any] = {"eval_seconds": one.eval_seconds}
            measured["train_loss"] = loss if isinstance(loss, float) else None
            table.add(base | measured, part.eval_sets, described)
            whole = all(old == new for old, new in part.called.items())
            whole &= part.called.keys() == one.eval_sets.keys()
            path = run.records(name, part.suite)
            files.append(QuestionFile(path, told, None if whole else part.called))
    _note_missing(run, notices)
    return files


def described_by_name(name: str) -> dict[str, Any]:
    """What a set asks, as far as its name says."""
    return _with_asked(asdict(describe_by_name(name)))


def _describe(described: dict[str, dict[str, Any]], run: RunFolder, name: str, part: Part) -> None:
    """Learn what sets ask from the first file of the run that has them."""
    new = {old: called for old, called in part.called.items() if called not in described}
    if not new:
        return
    records = run.read_records(name, ["set", *DESCRIPTION], part.suite)
    present = [column for column in DESCRIPTION if column in records.column_names]
    firsts = records.group_by("set", use_threads=False).aggregate([(c, "first") for c in present])
    rows = {row["set"]: row for row in firsts.to_pylist()}
    for old, called in new.items():
        row = rows.get(old, {})
        own = {column: row.get(f"{column}_first") for column in DESCRIPTION}
        stated = own["kind"] is not None
        described[called] = _with_asked(own) if stated else described_by_name(old)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def _with_asked(described: dict[str, Any]) -> dict[str, Any]:
    kind = kind_named(described["kind"], described["control"])
    return {**described, "asked": asked(kind, described["answer_format"])}


def _note_missing(run: RunFolder, notices: list[str]) -> None:
    """Say which means stand without their questions: something deleted them."""
    for name in run.evaluations():
        if not run.records(name).is_file():
            notices.append(f"{run.path}: {name} left out: {run.records(name).name} is missing")


__all__ = [
    "DESCRIPTION",
    "OF_EVALUATION",
    "SET_COLUMNS",
    "QuestionFile",
    "SetTable",
    "add_run",
    "described_by_name",
]
