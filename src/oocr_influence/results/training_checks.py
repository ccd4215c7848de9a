"""What a run trained on: its windows, their order in every epoch, how often each document came."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from oocr_influence.results import dataset_files
from oocr_influence.results.digests import window_id
from oocr_influence.results.experiment_log import LoggedExperiment
from oocr_influence.results.run_folder import RunFolder
from oocr_influence.results.step_log import StepRow, read_steps
from oocr_influence.results.verdicts import Expected, Findings

_RUN_AGAIN = "run it again"
SYNTHETIC = "synthetic_document"

DocumentKey = tuple[str, int]
"""A document's id, and which of those with that id it is."""


@dataclass(frozen=True)
class TrainSet:
    """What is known of a train set once it was read."""

    window_ids: list[str]
    labels: Mapping[DocumentKey, int] | None
    """Labels of each document in one pass; None where its spans cannot be read."""
    labels_of_windows: Sequence[int] | None = None


def check_train_set(run: RunFolder, log: LoggedExperiment, found: Findings) -> TrainSet | None:
    """Compare the train set with its records; returns what it holds, if it can be read."""
    if (log.args or {}).get("save_datasets") is False:
        ids = log.log_dict.get("window_ids")
        if not isinstance(ids, list):
            found.error("log_dict.window_ids is missing", _RUN_AGAIN, incomplete=True)
            return None
        return TrainSet([str(one) for one in ids], None)
    if not run.train_set.is_dir():
        found.error("train_set/ is missing", _RUN_AGAIN, incomplete=True)
        return None
    try:
        table = dataset_files.read(run.train_set)
        digest = dataset_files.digest_of(table)
        ids = [str(one) for one in table.column("id").to_pylist()]
        tokens = dataset_files.int_rows(table, "input_ids")
        wrong = [
            n for n, (one, row) in enumerate(zip(ids, tokens, strict=True)) if one != window_id(row)
        ]
    except (ValueError, KeyError) as error:
        found.error(f"train_set/ cannot be read: {error}", _RUN_AGAIN)
        return None
    recorded = log.log_dict.get("train_set_digest")
    if digest != recorded:
        found.error(
            f"train_set/ has digest {digest[:16]}…, recorded is {str(recorded)[:16]}…",
            "it is not what was trained: restore it or run it again",
        )
    if wrong:
        found.error(
            f"the ids of {len(wrong)} windows are not those of their tokens, first {wrong[0]}",
            "restore train_set/ or run it again",
        )
    if log.log_dict.get("n_windows") != len(ids):
        found.error(
            f"train_set/ has {len(ids)} windows, recorded are {log.log_dict.get('n_windows')}",
            "restore train_set/ or run it again",
        )
    try:
        return TrainSet(
            ids, dataset_files.labels_per_document(table), dataset_files.labels_per_window(table)
        )
    except (ValueError, TypeError, KeyError, pa.ArrowException) as error:
        found.error(f"train_set/ gives no labels of its documents: {error}", _RUN_AGAIN)
        return TrainSet(ids, None)


def check_steps(run: RunFolder, train_set: TrainSet, expected: Expected, found: Findings) -> None:
    """Compare windows, labels and rate of every update with what the arguments give."""
    batches = expected.batches
    try:
        logged = list(read_steps(run.steps))
    except FileNotFoundError:
        found.error("saved_objects/steps.jsonl is missing", _RUN_AGAIN, incomplete=True)
        return
    except ValueError as error:
        found.error(str(error), _RUN_AGAIN)
        return
    # A resumed run logs a step again: the last one is the one that counts.
    rows = {row.step: row for row in logged if not row.burn_in}
    missing = [step for step in range(1, len(batches) + 1) if step not in rows]
    if missing:
        found.error(
            f"{len(missing)} of {len(batches)} steps are not logged, first {missing[0]}",
            _RUN_AGAIN,
            incomplete=True,
        )
    further = sorted(set(rows) - set(range(1, len(batches) + 1)))
    if further:
        found.error(f"step {further[0]} was trained beyond the last of its schedule", _RUN_AGAIN)
    _check_order(rows, train_set.window_ids, batches, found)
    if train_set.labels_of_windows is not None:
        _check_denominators(rows, train_set.labels_of_windows, batches, found)
    _check_rates(rows, expected.learning_rates, found)
    _check_burn_in([row for row in logged if row.burn_in], expected.burn_in_steps, found)
    broken = [step for step, row in sorted(rows.items()) if row.loss is None]
    if broken:
        found.error(f"the loss of step {broken[0]} is not finite", "lower learning_rate")


def _check_order(
    rows: dict[int, StepRow],
    window_ids: Sequence[str],
    batches: Sequence[Sequence[int]],
    found: Findings,
) -> None:
    for step, batch in enumerate(batches, start=1):
        wanted = [window_ids[window] for window in batch]
        if step not in rows or rows[step].window_ids == wanted:
            continue
        same = Counter(rows[step].window_ids) == Counter(wanted)
        found.error(
            f"step {step} trained "
            + ("its windows in another order" if same else "other windows")
            + " than data_order_seed gives",
            "the order is not the one that its arguments say: run it again",
        )
        break  # the first says it; a shifted order would be wrong at every step
    once = Counter(window for batch in batches for window in (window_ids[w] for w in batch))
    trained = Counter(window for row in rows.values() for window in row.window_ids)
    uneven = [window for window in once if trained[window] != once[window]]
    if uneven and len(rows) >= len(batches):
        found.error(
            f"{len(uneven)} windows were not trained as often as every epoch asks, first "
            f"{uneven[0][:16]}… ({trained[uneven[0]]} times, not {once[uneven[0]]})",
            _RUN_AGAIN,
        )


def _check_denominators(
    rows: dict[int, StepRow],
    labels: Sequence[int],
    batches: Sequence[Sequence[int]],
    found: Findings,
) -> None:
    """What the loss of every update was divided by: the labels of its windows."""
    for step, batch in enumerate(batches, start=1):
        wanted = sum(labels[window] for window in batch)
        if step in rows and rows[step].labelled_tokens != wanted:
            found.error(
                f"step {step} was made with {rows[step].labelled_tokens} labelled tokens, its "
                f"windows have {wanted}",
                _RUN_AGAIN,
            )
            break  # the first says it


def _check_rates(rows: dict[int, StepRow], rates: Sequence[float], found: Findings) -> None:
    wrong = [
        (step, rows[step].learning_rate, rate)
        for step, rate in enumerate(rates, start=1)
        if step in rows and not _is_rate(rows[step].learning_rate, rate)
    ]
    if wrong:
        step, logged, rate = wrong[0]
        found.error(
            f"{len(wrong)} of {len(rates)} steps were made at another learning rate than the "
            f"arguments give, first step {step} at {logged}, not {rate}",
            "the run did not follow its arguments: run it again",
        )


def _check_burn_in(rows: Sequence[StepRow], n_steps: int, found: Findings) -> None:
    made = {row.step for row in rows}
    if made != set(range(1, n_steps + 1)):
        found.error(
            f"{len(made)} burn-in steps are logged, its arguments give {n_steps}",
            _RUN_AGAIN,
            incomplete=len(made) < n_steps,
        )
    taught = [row for row in rows if not _is_rate(row.learning_rate, 0)]
    if taught:
        found.error(
            f"burn-in step {taught[0].step} was made at the learning rate "
            f"{taught[0].learning_rate}, not 0",
            _RUN_AGAIN,
        )


def _is_rate(logged: Any, rate: float) -> bool:
    """Whether a step's rate is this one; what is logged may be anything, None included."""
    return isinstance(logged, int | float) and math.isclose(logged, rate, rel_tol=1e-9)


def check_exposure(
    run: RunFolder, labels: Mapping[DocumentKey, int] | None, times: int | None, found: Findings
) -> None:
    """Compare the loop's own count of each document's labels with those of the train set.

    Every one of them entered the loss `times` times; None where not all did equally often.
    """
    names = ["id", "occurrence", "labels_once", "labels_trained"]
    try:
        table = pq.read_table(run.exposure, columns=names)
        ids, occurrences, once, trained = (table.column(name).to_pylist() for name in names)
    except FileNotFoundError:
        found.error("saved_objects/exposure.parquet is missing", _RUN_AGAIN, incomplete=True)
        return
    except (pa.ArrowException, ValueError, KeyError) as error:
        found.error(f"saved_objects/exposure.parquet cannot be read: {error}", _RUN_AGAIN)
        return
    keys = list(zip(ids, occurrences, strict=True))
    if labels is not None:
        _check_labels(keys, once, labels, found)
    if times is not None:
        wrong = [key for key, n, all_ in zip(keys, once, trained, strict=True) if all_ != n * times]
        if wrong:
            found.error(f"{len(wrong)} documents were not trained {times} times", _RUN_AGAIN)


def check_subset(run: RunFolder, subset: Set[DocumentKey], found: Findings) -> None:
    """The synthetic documents that were trained are those of the run's subset, and no others."""
    try:
        table = pq.read_table(run.exposure, columns=["id", "occurrence", "type", "labels_trained"])
        rows = table.to_pylist()
    except (FileNotFoundError, pa.ArrowException, ValueError, KeyError):
        return  # check_exposure has said so
    trained = {
        (row["id"], row["occurrence"])
        for row in rows
        if row["type"] == SYNTHETIC and row["labels_trained"] > 0
    }
    if wrong := sorted(trained.symmetric_difference(subset)):
        found.error(
            f"{len(wrong)} documents were trained without being of its subset, or the other way "
            f"round, first {wrong[0][0]} (occurrence {wrong[0][1]})",
            _RUN_AGAIN,
        )


def _check_labels(
    keys: Sequence[DocumentKey],
    once: Sequence[int],
    labels: Mapping[DocumentKey, int],
    found: Findings,
) -> None:
    # A document that was dropped with the last window is listed with no label.
    wrong = [key for key, n in zip(keys, once, strict=True) if n != labels.get(key, 0)]
    wrong += [key for key, n in Counter(keys).items() if n > 1]
    wrong += sorted(labels.keys() - set(keys))
    if wrong:
        document, occurrence = wrong[0]
        found.error(
            f"saved_objects/exposure.parquet has other labels than train_set/ for {len(wrong)} "
            f"documents, first {document} (occurrence {occurrence})",
            "the account is not of what was trained: run it again",
        )
