"""The two files of an evaluation: means per set as JSON, one row a question as Parquet.

The columns of the Parquet keep their types in every file, whatever a particular evaluation held,
so that many files are queried as one table. Records may carry further columns; those that are
listed here are always there, null where a question has none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from oocr_influence.results.atomic import writing_file

_TEXTS = ("set", "id", "entity", "prompt", "completion", "completion_swapped")
_ABOUT = ("world", "relation", "answer_format", "style", "kind", "control")
_COUNTS = (
    "index",
    "phrasing",
    "shots",
    "rank",
    "n_ties",
    "n_candidates",
    "n_merged",
    "beam_rank",
)
_METRICS = (
    "loss",
    "accuracy",
    "logprob",
    "prob",
    "softmargin",
    "softmargin_sum",
    "rank_tie_averaged",
    "rank_logprob",
    "rank_prior_corrected",
    "rank_step0_corrected",
    "rank_without_few_shot",
    "normalised_rank",
    "beam_prob_right",
    "loss_swapped",
    "logprob_swapped",
    "prob_swapped",
    "rank_swapped",
)
_LISTS = {
    "answer_token_ids": pa.int32(),
    "answer_token_logprobs": pa.float64(),
    "softmargin_tokens": pa.float64(),
    "candidate_texts": pa.string(),
    "candidate_logprobs": pa.float64(),
    "candidate_n_tokens": pa.int32(),
    "beam_texts": pa.string(),
    "beam_token_ids": pa.list_(pa.int32()),
    "beam_logprobs": pa.float64(),
    "beam_probs": pa.float64(),
}


def known_columns() -> dict[str, Any]:
    """Name and type of the columns that every records file has, in order."""
    return {
        **{name: pa.string() for name in _TEXTS + _ABOUT},
        **{name: pa.int32() for name in _COUNTS},
        **{name: pa.float64() for name in _METRICS},
        "merged": pa.bool_(),
        **{name: pa.list_(item) for name, item in _LISTS.items()},
    }


@dataclass(frozen=True)
class Evaluation:
    """The means of one evaluation: `eval_results_<name>.json`."""

    name: str
    step_num: int
    epoch_num: float
    eval_seconds: float
    eval_sets: dict[str, dict[str, Any]]
    document_losses: dict[str, dict[str, Any]] | None = None
    """`n`, `tokens` and `mean_loss` of trained, unseen and pretraining documents; None where no
    document's loss was measured, and in files of earlier versions."""

    def to_json(self) -> dict[str, Any]:
        found = asdict(self)
        if self.document_losses is None:
            del found["document_losses"]
        return found


def check(evaluation: Evaluation) -> None:
    """Raise ValueError where a set has no `n` or holds a number that is not finite."""
    for set_name, means in evaluation.eval_sets.items():
        if not isinstance(means.get("n"), int):
            raise ValueError(f"{evaluation.name}: set {set_name} does not say its n")
        broken = [key for key, value in means.items() if not_finite(value)]
        if broken:
            raise ValueError(f"{evaluation.name}: set {set_name} has no finite {', '.join(broken)}")
    for group, loss in (evaluation.document_losses or {}).items():
        if not_finite(loss.get("mean_loss")):
            raise ValueError(f"{evaluation.name}: the loss of {group} documents is not finite")


def not_finite(value: Any) -> bool:
    """Whether this is a NaN or an infinity."""
    return isinstance(value, float) and not math.isfinite(value)


def read_evaluation(path: Path) -> Evaluation:
    """The means in `path`; ValueError with the file's name if it is not such a file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        names = Evaluation.__dataclass_fields__.keys() - {"document_losses"}
        evaluation = Evaluation(
            **{name: found[name] for name in names}, document_losses=found.get("document_losses")
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path.name} is not an evaluation: {error!r}") from error
    if not isinstance(evaluation.eval_sets, dict):
        raise ValueError(f"{path.name} is not an evaluation: its eval_sets are no table of sets")
    return evaluation


def write_records(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write one row a question; nested objects become JSON text. Raises TypeError or ValueError
    (pyarrow's) where a known column holds another type."""
    _write(path, records_table(records))


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of any kind as Parquet."""
    _write(path, pa.Table.from_pylist([dict(row) for row in rows]))


def records_table(records: Sequence[Mapping[str, Any]]) -> Any:
    """The records as a Table: the known columns, then further ones by name."""
    known = known_columns()
    further = sorted({name for record in records for name in record} - set(known))
    columns = {
        name: pa.array([_number(record.get(name), type_) for record in records], type=type_)
        for name, type_ in known.items()
    }
    for name in further:
        columns[name] = _inferred([record.get(name) for record in records])
    return pa.table(columns)


def read_records(path: Path, columns: Sequence[str] | None = None) -> Any:
    """The questions in `path` as a Table; ValueError with the file's name if it cannot be read."""
    try:
        if columns is not None:
            present = set(pq.read_schema(path).names)
            columns = [name for name in columns if name in present]
        return pq.read_table(path, columns=columns)
    except pa.ArrowException as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error


def _write(path: Path, table: Any) -> None:
    with writing_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _number(value: Any, type_: Any) -> Any:
    # Accuracy and the like may be told as true and false; a column of numbers holds 1 and 0.
    return float(value) if isinstance(value, bool) and pa.types.is_floating(type_) else value


def _inferred(values: list[Any]) -> Any:
    """An array whose type depends on the kind of values alone: whole numbers among others do not
    make it another column than in the next file."""
    flat = [_json_if_nested(value) for value in values]
    items = [item for value in flat for item in (value if isinstance(value, list) else [value])]
    kinds = {type(item) for item in items if item is not None}
    if kinds == {int, float} or kinds == {bool, float}:
        flat = [_as_floats(value) for value in flat]
    return pa.array(flat)


def _json_if_nested(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, tuple):
        value = list(value)
    nested = isinstance(value, Mapping) or (
        isinstance(value, list) and any(isinstance(item, Mapping | list | tuple) for item in value)
    )
    return json.dumps(value, ensure_ascii=False, allow_nan=False) if nested else value


def _as_floats(value: Any) -> Any:
    if isinstance(value, list):
        return [None if item is None else float(item) for item in value]
    return None if value is None else float(value)
