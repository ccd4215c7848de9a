"""`experiment_log.json`: what was asked for, what happened, what it was run with.

    {experiment_name, experiment_output_dir, args, history: [...], log_dict: {...}}

Plain JSON in one atomic file, for scripts that read it whole. Numbers that are not finite are
written as null: a loss that diverged is a result, and must not cost the log. Each set's
per-question `records` stand inline while the file stays small; past the limit they are left out
and `log_dict.inline_records` says where they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from oocr_influence.results.atomic import plain, write_text

INLINE_RECORDS_LIMIT = 20 * 1024 * 1024
PICKLED = "pickled://"


class ExperimentLog:
    """The log of a run, or of an experiment, as it grows."""

    def __init__(
        self,
        path: Path,
        *,
        experiment_name: str,
        args: Mapping[str, Any],
        records_limit: int = INLINE_RECORDS_LIMIT,
    ) -> None:
        self.path = path
        self.log_dict: dict[str, Any] = {}
        self._head = {
            "experiment_name": experiment_name,
            "experiment_output_dir": str(path.parent),
            "args": plain(args),
        }
        self._limit = records_limit
        # Entries as they stand in the file: writing again costs no second look at old records.
        self._entries: list[str] = []
        self._bare_entries: list[str] = []
        self._with_records = True

    @classmethod
    def resume(cls, path: Path, *, records_limit: int = INLINE_RECORDS_LIMIT) -> ExperimentLog:
        """Go on with the log in `path`."""
        found = json.loads(path.read_text(encoding="utf-8"))
        log = cls(
            path,
            experiment_name=found["experiment_name"],
            args=found["args"],
            records_limit=records_limit,
        )
        log.log_dict = found["log_dict"]
        log._with_records = "inline_records" not in log.log_dict
        for entry in found["history"]:
            log.append(entry)
        return log

    @property
    def steps(self) -> list[int]:
        """The steps of the history, in its order."""
        return [int(json.loads(entry)["step_num"]) for entry in self._bare_entries]

    @property
    def history(self) -> list[dict[str, Any]]:
        """The entries so far, without their questions."""
        return [json.loads(entry) for entry in self._bare_entries]

    def rewind(self, step: int) -> None:
        """Leave out what the history says of later steps, which will be made again."""
        kept = [at <= step for at in self.steps]
        self._bare_entries = [e for e, keep in zip(self._bare_entries, kept, strict=True) if keep]
        if self._with_records:
            self._entries = [e for e, keep in zip(self._entries, kept, strict=True) if keep]

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add one entry to the history; sets in its `eval_results` may hold `records`.

        Of records, lists (token ids, candidates and their scores) are left to the Parquet.
        """
        full = plain({**entry, "eval_results": _short_records(entry.get("eval_results") or {})})
        bare = {**full, "eval_results": _without_records(full["eval_results"])}
        self._bare_entries.append(_line(bare))
        if self._with_records:
            self._entries.append(_line(full))

    def update(self, **values: Any) -> None:
        """Set values of `log_dict`."""
        self.log_dict.update(plain(values))

    def write(self) -> None:
        """Replace the file, atomically."""
        if self._with_records and sum(map(len, self._entries)) > self._limit:
            self._with_records = False
            self._entries = []
            self.log_dict["inline_records"] = (
                f"left out, since this file would pass {self._limit} bytes: "
                "the questions are in eval_results/records_*.parquet"
            )
        entries = self._entries if self._with_records else self._bare_entries
        head = ",\n".join(
            f" {json.dumps(key)}: {_line(value)}" for key, value in self._head.items()
        )
        history = "[\n  " + ",\n  ".join(entries) + "\n ]" if entries else "[]"
        tail = json.dumps(plain(self.log_dict), allow_nan=False, ensure_ascii=False, indent=1)
        tail = tail.replace("\n", "\n ")
        write_text(self.path, f'{{\n{head},\n "history": {history},\n "log_dict": {tail}\n}}\n')


@dataclass(frozen=True)
class PickledReference:
    """A value that the earlier system kept in a pickle: named, never opened."""

    path: str


class HistoryEntry(BaseModel):
    """One moment of a run's history; further keys are kept as they are."""

    model_config = ConfigDict(extra="allow", arbitrary_types_allowed=True)

    step_num: int
    epoch_num: float
    train_loss: float | PickledReference | None = None
    global_grad_norm: float | PickledReference | None = None
    eval_time: float | PickledReference | None = None
    """Minutes."""
    eval_results: dict[str, dict[str, Any]] = Field(default_factory=dict)


class LoggedExperiment(BaseModel):
    """An `experiment_log.json`, ours or the earlier system's."""

    model_config = ConfigDict(extra="allow")

    experiment_name: str
    experiment_output_dir: str | None = None
    args: dict[str, Any] | None = None
    history: list[HistoryEntry] = Field(default_factory=list)
    log_dict: dict[str, Any] = Field(default_factory=dict)

    @property
    def status(self) -> str | None:
        """`running`, `completed` or `failed`; None in logs of the earlier system."""
        status = self.log_dict.get("status")
        return status if isinstance(status, str) else None


def read_experiment_log(path: Path) -> LoggedExperiment:
    """Read a log; values such as "pickled://saved_objects/3.pckl" become PickledReference.

    Raises ValueError, with the place in the file, if it is not such a log.
    """
    try:
        return LoggedExperiment.model_validate(
            _with_references(json.loads(path.read_text(encoding="utf-8")))
        )
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in fault["loc"])
        raise ValueError(f"{path}: {place}: {fault['msg']}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def _with_references(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(PICKLED):
        return PickledReference(value.removeprefix(PICKLED))
    if isinstance(value, dict):
        return {key: _with_references(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_references(item) for item in value]
    return value


def _short_records(eval_results: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {**means, "records": [_scalars(record) for record in means["records"]]}
        if "records" in means
        else means
        for name, means in eval_results.items()
    }


def _scalars(record: Mapping[str, Any]) -> dict[str, Any]:
    """What of a record is one value: its texts and numbers."""
    kept = (bool, int, float, str, type(None))
    return {
        key: value
        for key, value in record.items()
        if isinstance(value, kept) or getattr(value, "shape", None) == ()
    }


def _without_records(eval_results: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {key: value for key, value in means.items() if key != "records"}
        for name, means in eval_results.items()
    }


def _line(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False)
