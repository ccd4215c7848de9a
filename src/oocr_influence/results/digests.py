"""Fingerprints that a run records and a verification recomputes; no torch.

All are sha256 in hex. Weights and train sets are digested by content, not by file, so that other
shards or a newer library's metadata change nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

TRAIN_SET_COLUMNS = ("input_ids", "labels", "attention_mask", "position_ids")


def file_digest(path: Path) -> str:
    """Of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_digest(text: str) -> str:
    """Of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def json_digest(value: Any) -> str:
    """Of a JSON value, whatever the order of its keys."""
    return text_digest(json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False))


def window_id(tokens: Sequence[int] | np.ndarray[Any, Any]) -> str:
    """The `id` of a window: the sha256 of its tokens as little-endian int64."""
    return hashlib.sha256(np.ascontiguousarray(tokens, dtype="<i8").tobytes()).hexdigest()


def train_set_digest(columns: Iterable[tuple[str, Iterable[Any]]]) -> str:
    """Of a train set's numbers: those of TRAIN_SET_COLUMNS, row by row, in that order.

    Each column is digested as the bytes of its rows' lengths and values as little-endian int64.
    Columns that are not there are left out; others, such as spans, do not enter.
    """
    given = dict(columns)
    whole = hashlib.sha256()
    for name in TRAIN_SET_COLUMNS:
        if name not in given:
            continue
        whole.update(f"{name}:".encode())
        for row in given[name]:
            values = np.ascontiguousarray(row, dtype="<i8")
            whole.update(len(values).to_bytes(8, "little"))
            whole.update(values.tobytes())
    return whole.hexdigest()
