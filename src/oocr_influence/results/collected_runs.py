"""What a run was made with and how far it came: one row a run, whole or unfinished.

row = run_row(RunFolder(path))
row["status"], row["learning_rate"]
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from oocr_influence.results.experiment_log import LoggedExperiment, read_experiment_log
from oocr_influence.results.run_folder import RunFolder
from oocr_influence.results.verification import is_earlier

_NUMBER, _COUNT, _TEXT = pa.float64(), pa.int64(), pa.string()
# The arguments that have a column in every table of means; `args` of `runs` has all of them.
CONFIGURATION = {
    "model": _TEXT,
    "revision": _TEXT,
    "dataset": _TEXT,
    "epochs": _NUMBER,
    "learning_rate": _NUMBER,
    "batch_size": _COUNT,
    "lr_schedule": _TEXT,
    "warmup_proportion": _NUMBER,
    "weight_decay": _NUMBER,
    "burn_in_epochs": _NUMBER,
    "max_steps": _COUNT,
    "precision": _TEXT,
    "optimizer": _TEXT,
    "lora_rank": _COUNT,
    "packing": _TEXT,
    "chunk_size": _COUNT,
    "compat": _TEXT,
    "n_pretraining_examples": _COUNT,
    "seed": _COUNT,
    "packing_seed": _COUNT,
    "data_order_seed": _COUNT,
}
_LOGGED = {
    "model_commit": _TEXT,
    "commit_hash": _TEXT,
    "dataset_digest": _TEXT,
    "sweep_id": _TEXT,
    "n_documents": _COUNT,
    "n_tokens": _COUNT,
    "total_steps": _COUNT,
    "time_taken": _NUMBER,
}
IDENTITY = {"experiment": _TEXT, "run": _TEXT, "status": _TEXT}
RUN_COLUMNS = {
    **IDENTITY,
    "path": _TEXT,
    "earlier": pa.bool_(),
    **CONFIGURATION,
    **_LOGGED,
    "args": _TEXT,
}


def read_log(run: RunFolder) -> tuple[LoggedExperiment | None, str | None]:
    """The run's log, or None and what is wrong with it."""
    try:
        return read_experiment_log(run.experiment_log), None
    except FileNotFoundError:
        return None, f"{run.path} has no experiment_log.json"
    except (OSError, ValueError) as error:
        return None, str(error)


def run_row(run: RunFolder, log: LoggedExperiment | None) -> dict[str, Any]:
    """The run's row, every column of RUN_COLUMNS; None where the run does not say."""
    args = (log.args if log else None) or {}
    logged = log.log_dict if log else {}
    values: dict[str, Any] = {**args, "dataset": _file_name(args.get("structured_dataset"))}
    return {
        "experiment": run.experiment.name,
        "run": run.name,
        "status": status_of(run, log),
        "path": str(run.path),
        "earlier": is_earlier(run, log),
        **{name: _typed(values.get(name), type_) for name, type_ in CONFIGURATION.items()},
        **{name: _typed(logged.get(name), type_) for name, type_ in _LOGGED.items()},
        "args": json.dumps(args, ensure_ascii=False, default=str),
    }


def status_of(run: RunFolder, log: LoggedExperiment | None) -> str:
    """`completed`, `failed`, `running`; `unfinished` where nobody works on it any more.

    `unknown` is a run whose owner cannot be asked from here, or one of the earlier system that
    does not say how long it took.
    """
    if is_earlier(run, log):
        return "completed" if log and "time_taken" in log.log_dict else "unknown"
    if log is not None and log.status in ("completed", "failed"):
        return log.status
    state, _ = run.ownership()
    return {"alive": "running", "unknown": "unknown"}.get(state, "unfinished")


def rows_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Any]) -> Any:
    """Rows as a pyarrow Table of `columns`, name and type."""
    return pa.table(
        {name: pa.array([row[name] for row in rows], type_) for name, type_ in columns.items()}
    )


def _file_name(path: Any) -> str | None:
    return Path(path).name if isinstance(path, str) else None


def _typed(value: Any, type_: Any) -> Any:
    """The value as the column holds it; None where it is of another kind."""
    if type_ == _TEXT:
        return value if isinstance(value, str) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if type_ == _NUMBER:
        return float(value)
    return int(value) if float(value).is_integer() else None


__all__ = [
    "CONFIGURATION",
    "IDENTITY",
    "RUN_COLUMNS",
    "read_log",
    "rows_table",
    "run_row",
    "status_of",
]
