"""Evaluations of a run: all there, all sets, all questions, and means that follow from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from oocr_influence.results.evaluation_files import Evaluation, not_finite
from oocr_influence.results.run_folder import RunFolder
from oocr_influence.results.verdicts import Findings, Moment

_RUN_AGAIN = "run it again"
# Means and records are both float64: what differs by more was not computed from the other.
_TOLERANCE = 1e-6
_MEAN_OF = {"loss": "mean_loss", "accuracy": "accuracy", "rank": "mean_rank"}
_ALWAYS_FINITE = tuple(_MEAN_OF.values())


def check_evaluations(
    run: RunFolder,
    expected: Sequence[Moment],
    set_sizes: Mapping[str, int] | None,
    found: Findings,
    *,
    saved: bool = True,
) -> None:
    """Every expected evaluation is there and sound; others are named.

    `saved`: what was asked lies in the run's folder.
    """
    for name in (set_sizes or {}) if saved else ():
        if not run.eval_dataset(name).is_dir():
            found.error(f"eval_datasets/ lacks {name}", _RUN_AGAIN, incomplete=True)
    present = run.evaluations()
    for moment in expected:
        if moment.name not in present:
            found.error(f"evaluation {moment.name} is missing", _RUN_AGAIN, incomplete=True)
            continue
        try:
            evaluation = run.read_evaluation(moment.name)
        except ValueError as error:
            found.error(str(error), _RUN_AGAIN)
            continue
        _check_one(run, evaluation, moment, set_sizes, found)
    for name in sorted(set(present) - {moment.name for moment in expected}):
        found.warning(f"evaluation {name} is none of its schedule", "look where it comes from")
    for name, suite in run.added_evaluations():
        _check_added(run, name, suite, found)


def _check_added(run: RunFolder, name: str, suite: str, found: Findings) -> None:
    """One that `oocr evaluate` added: whole, and its means follow from its records."""
    remedy = "make it anew with `oocr evaluate --again`"
    faults = Findings(run.name)
    where = f"added evaluation {run.evaluation(name, suite).name}"
    try:
        evaluation = run.read_evaluation(name, suite)
        table = run.read_records(name, suite=suite)
    except (FileNotFoundError, ValueError) as error:
        found.error(f"{where}: {error}", remedy)
        return
    _check_finite(where, evaluation, faults)
    _check_records(where, evaluation, table, faults)
    for fault in faults.items:
        found.error(fault.what, remedy)


def _check_one(
    run: RunFolder,
    evaluation: Evaluation,
    moment: Moment,
    set_sizes: Mapping[str, int] | None,
    found: Findings,
) -> None:
    where = f"evaluation {moment.name}"
    said = (evaluation.name, evaluation.step_num)
    if said != (moment.name, moment.step) or not math.isclose(
        evaluation.epoch_num, moment.epoch, rel_tol=1e-9
    ):
        found.error(
            f"{where} says {evaluation.name}, step {evaluation.step_num}, epoch "
            f"{evaluation.epoch_num}; its schedule says step {moment.step}, epoch {moment.epoch}",
            _RUN_AGAIN,
        )
    if set_sizes is not None:
        _check_sets(where, evaluation, set_sizes, found)
    _check_finite(where, evaluation, found)
    try:
        table = run.read_records(moment.name)
    except FileNotFoundError:
        found.error(f"{where} has no records", _RUN_AGAIN, incomplete=True)
    except ValueError as error:
        found.error(f"{where}: {error}", _RUN_AGAIN)
    else:
        _check_records(where, evaluation, table, found)


def _check_sets(
    where: str, evaluation: Evaluation, set_sizes: Mapping[str, int], found: Findings
) -> None:
    missing = [name for name in set_sizes if name not in evaluation.eval_sets]
    if missing:
        found.error(
            f"{where} lacks {len(missing)} of {len(set_sizes)} sets, first {missing[0]}", _RUN_AGAIN
        )
    unknown = [name for name in evaluation.eval_sets if name not in set_sizes]
    if unknown:
        found.error(f"{where}: set {unknown[0]} is none of the data set's", _RUN_AGAIN)
    for name, size in set_sizes.items():
        n = evaluation.eval_sets.get(name, {}).get("n", size)
        if n != size:
            found.error(f"{where}: set {name} has n = {n}, the data set {size}", _RUN_AGAIN)


def _check_finite(where: str, evaluation: Evaluation, found: Findings) -> None:
    for name, means in evaluation.eval_sets.items():
        broken = [
            key
            for key, value in means.items()
            if not_finite(value) or (key in _ALWAYS_FINITE and value is None and means.get("n"))
        ]
        if broken:
            found.error(
                f"{where}: set {name} has no finite {', '.join(broken)}",
                "the model's outputs are not finite: look at its loss and run it again",
            )
    for group, loss in (evaluation.document_losses or {}).items():
        value = loss.get("mean_loss")
        if not isinstance(value, int | float) or not_finite(float(value)):
            found.error(f"{where}: the loss of {group} documents is {value!r}", _RUN_AGAIN)


def _check_records(where: str, evaluation: Evaluation, table: Any, found: Findings) -> None:
    """Count the questions and recompute every mean that a column of the records gives."""
    groups = _rows_by_set(table)
    columns = {
        name: table.column(name).to_numpy(zero_copy_only=False).astype(np.float64)
        for name in table.column_names
        if _is_numeric(table.schema.field(name).type)
    }
    lost = sorted(set(evaluation.eval_sets) ^ set(groups))
    if lost:
        found.error(f"{where}: set {lost[0]} is in one of means and records alone", _RUN_AGAIN)
    for name, means in evaluation.eval_sets.items():
        rows = groups.get(name)
        if rows is None:
            continue
        if means.get("n") != len(rows):
            found.error(
                f"{where}: set {name} says n = {means.get('n')}, its records are {len(rows)}",
                _RUN_AGAIN,
            )
        _check_means(f"{where}: set {name}", means, columns, rows, found)


def _check_means(
    where: str, means: Mapping[str, Any], columns: Mapping[str, Any], rows: Any, found: Findings
) -> None:
    """Every mean that a column of the records gives, and no such mean left out."""
    said = {key: key.removeprefix("mean_") for key in means}
    said = {key: name for key, name in said.items() if key != name or key == "accuracy"}
    needed = {key: name for name, key in _MEAN_OF.items() if key not in means}
    for key, name in {**said, **needed}.items():
        if name not in columns:
            continue
        mean = float(np.mean(columns[name][rows]))
        value = means.get(key)
        if not _agree(value, mean):
            found.error(
                f"{where} says {key} = {value}, its records give {mean:.6g}",
                "means and records are not of one evaluation: run it again",
            )


def _rows_by_set(table: Any) -> dict[str, Any]:
    if "set" not in table.column_names:
        return {}
    names = np.asarray(table.column("set").to_pylist(), dtype=object)
    return {name: np.flatnonzero(names == name) for name in dict.fromkeys(names)}


def _is_numeric(type_: Any) -> bool:
    return bool(pa.types.is_integer(type_) or pa.types.is_floating(type_))


def _agree(said: Any, mean: float) -> bool:
    """None says that a mean does not apply, as where a question has no such value."""
    if said is None or not math.isfinite(mean):
        return said is None and not math.isfinite(mean)
    return not_finite(said) or math.isclose(said, mean, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
