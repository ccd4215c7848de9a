"""What W&B has really stored of an offline run.

Its service writes to disk every 15 seconds or so: of a process that is killed the last seconds are
lost, though they were told. W&B has no reader of its files in Python; they are LevelDB's log format
behind seven bytes of its own, with W&B's own protocol buffers as records.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_HEADER = b":W&B"
_HEADER_BYTES = 7
_BLOCK = 32768
_PIECE = struct.Struct("<IHB")  # checksum, length, kind
_WHOLE, _LAST = 1, 4


def stored_values(folder: Path, key: str) -> Iterator[float]:
    """The values of `key` in the histories of all offline runs in `folder`.

    A record that a killed writer tore is left out. Raises ValueError for a file that is not W&B's.
    """
    from wandb.proto import wandb_internal_pb2

    made: Any = wandb_internal_pb2.Record
    for path in sorted(folder.glob("offline-run-*/*.wandb")):
        for content in _records(path):
            record = made()
            record.ParseFromString(content)
            if record.WhichOneof("record_type") != "history":
                continue
            for item in record.history.item:
                if key in (item.key, *item.nested_key):
                    yield float(json.loads(item.value_json))


def _records(path: Path) -> Iterator[bytes]:
    content = path.read_bytes()
    if not content.startswith(_HEADER):
        raise ValueError(f"{path} is not a file of W&B's")
    at, record = _HEADER_BYTES, b""
    while at + _PIECE.size <= len(content):
        left = _BLOCK - at % _BLOCK
        if left < _PIECE.size:  # the rest of a block is too short for a piece
            at += left
            continue
        _, size, kind = _PIECE.unpack_from(content, at)
        at += _PIECE.size
        if at + size > len(content):  # torn
            return
        record += content[at : at + size]
        at += size
        if kind in (_WHOLE, _LAST):
            yield record
            record = b""
