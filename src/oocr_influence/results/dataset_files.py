"""Hugging Face datasets on disk: written through `datasets`, read back through pyarrow alone."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from oocr_influence.results.digests import TRAIN_SET_COLUMNS, train_set_digest

# What the library itself infers for tokenised text; half the disk of int64.
_TOKEN_TYPES = {
    "input_ids": pa.list_(pa.int32()),
    "labels": pa.list_(pa.int32()),
    "position_ids": pa.list_(pa.int32()),
    "attention_mask": pa.list_(pa.int8()),
}
_PIECE_COLUMNS = ("id", "occurrence", "span_start", "span_end")
_UNLABELLED = -100  # torch's own: tokens that do not enter the loss


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Rows as columns, nested values as JSON text, so that every set has the same schema."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [_flat(row.get(name)) for row in rows] for name in names}


def save(folder: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write a Hugging Face dataset that `datasets.load_from_disk` reads.

    Raises ValueError where columns differ in length.
    """
    import datasets

    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the columns of {folder.name} differ in length: {lengths}")
    table = pa.table({name: _array(name, values) for name, values in columns.items()})
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        datasets.Dataset(table).save_to_disk(str(folder))
    finally:
        if shown:
            datasets.enable_progress_bars()


def read(folder: Path) -> Any:
    """The dataset in `folder` as a pyarrow Table, read without `datasets`.

    Raises ValueError if it is incomplete or cannot be read.
    """
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        names = [entry["filename"] for entry in state["_data_files"]]
        tables = [_read_arrow(folder / name) for name in names]
        return pa.concat_tables(tables)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise ValueError(f"{folder} is not a whole dataset: {error}") from error


def digest(folder: Path) -> str:
    """The content digest of a train set on disk; ValueError if it cannot be read."""
    return digest_of(read(folder))


def digest_of(table: Any) -> str:
    """The content digest of a train set as a Table."""
    present = [name for name in TRAIN_SET_COLUMNS if name in table.column_names]
    return train_set_digest((name, int_rows(table, name)) for name in present)


def int_rows(table: Any, name: str) -> Iterable[Any]:
    """The rows of a column of integer lists as numpy arrays, without a Python int a token."""
    for chunk in table.column(name).chunks:
        values = chunk.values.to_numpy(zero_copy_only=False)
        offsets = chunk.offsets.to_numpy()
        for begin, end in itertools.pairwise(offsets):
            yield values[begin:end]


def labels_per_document(table: Any) -> Counter[tuple[str, int]]:
    """Labelled tokens of each document in one pass over a train set, by (id, occurrence).

    They are counted anew, from `labels` within the spans of `packed_documents`. Raises KeyError
    where the train set has no such columns.
    """
    counts: Counter[tuple[str, int]] = Counter()
    labels = int_rows(table, "labels")
    for row, pieces in zip(labels, _pieces(table), strict=True):
        for document, occurrence, start, end in pieces:
            counts[document, occurrence] += int((row[start:end] != _UNLABELLED).sum())
    return counts


def labels_per_window(table: Any) -> list[int]:
    """Labelled tokens of each window whose prediction enters the loss: all but its first."""
    return [int((row[1:] != _UNLABELLED).sum()) for row in int_rows(table, "labels")]


def _pieces(table: Any) -> Iterable[list[tuple[str, int, int, int]]]:
    """(id, occurrence, start, end) of the pieces in each window, without their other columns."""
    for chunk in table.column("packed_documents").chunks:
        columns = [pc.struct_field(chunk.values, name).to_pylist() for name in _PIECE_COLUMNS]
        pieces = list(zip(*columns, strict=True))
        for begin, end in itertools.pairwise(chunk.offsets.to_pylist()):
            yield pieces[begin:end]


def _read_arrow(path: Path) -> Any:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_stream(source).read_all()


def _array(name: str, values: Sequence[Any]) -> Any:
    if name in _TOKEN_TYPES:
        rows = [np.asarray(row) for row in values]
        return pa.array(rows, type=_TOKEN_TYPES[name])
    return pa.array(list(values))


def _flat(value: Any) -> Any:
    nested = isinstance(value, Mapping) or (
        isinstance(value, list | tuple) and any(isinstance(item, Mapping | list) for item in value)
    )
    if not nested:
        return value
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
