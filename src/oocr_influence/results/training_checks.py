"""What a run trained on: its windows, their order in every epoch, how often each document came."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from oocr_influence.results import dataset_files
from oocr_influence.results.digests import window_id
from oocr_influence.results.experiment_log import LoggedExperiment
from oocr_influence.results.run_folder import RunFolder
from oocr_influence.results.step_log import StepRow, read_steps
from oocr_influence.results.verdicts import Expected, Findings

_RUN_AGAIN = "run it again"


def check_train_set(run: RunFolder, log: LoggedExperiment, found: Findings) -> list[str] | None:
    """Compare the train set with its records; returns the ids of its windows, if it is there."""
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
    return ids


def check_steps(
    run: RunFolder, window_ids: Sequence[str], expected: Expected, found: Findings
) -> None:
    """Compare the windows and the rate of every update with what the arguments give."""
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
    _check_order(rows, window_ids, batches, found)
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


def check_exposure(run: RunFolder, times: int, found: Findings) -> None:
    """Every label of every document entered the loss `times` times, by the loop's own count."""
    try:
        table = pq.read_table(run.exposure, columns=["labels_once", "labels_trained"])
    except FileNotFoundError:
        found.error("saved_objects/exposure.parquet is missing", _RUN_AGAIN, incomplete=True)
        return
    except (pa.ArrowException, ValueError) as error:
        found.error(f"saved_objects/exposure.parquet cannot be read: {error}", _RUN_AGAIN)
        return
    once, trained = (table.column(i).to_numpy() for i in (0, 1))
    wrong = np.flatnonzero(trained != once * times)
    if len(wrong):
        found.error(f"{len(wrong)} documents were not trained {times} times", _RUN_AGAIN)
