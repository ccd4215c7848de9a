"""Windows that are tokenised and packed once, for all runs of a sweep and all later ones.

The key of an entry is the digest of all that windows follow from: the documents' texts in order,
the tokenizer, how they are packed, and the sources of this package.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from oocr_influence.datasets.packing import (
    IntArray,
    PackedWindows,
    Packing,
    Piece,
    pack,
    tokenize_documents,
)
from oocr_influence.evaluation.plan_cache import sources_digest, tokenizer_digest
from oocr_influence.results.cache import Cache
from oocr_influence.results.digests import json_digest

KIND = "windows"
_FILE = "windows.npz"
_ARRAYS = ("input_ids", "labels", "position_ids", "segments")


def packed_windows(
    texts: Sequence[str],
    tokenizer: Any,
    kept: Cache | None,
    *,
    packing: Packing,
    chunk_size: int,
    pad_id: int,
    overlap_cuts: bool,
    drop_last: bool,
) -> PackedWindows:
    """The texts tokenised and packed, or the same out of the cache.

    Raises ValueError as `tokenize_documents` and `pack` do.
    """

    def make() -> PackedWindows:
        return pack(
            tokenize_documents(texts, tokenizer, packing),
            chunk_size=chunk_size,
            packing=packing,
            pad_id=pad_id,
            overlap_cuts=overlap_cuts,
            drop_last=drop_last,
        )

    # The rules of a tokenizer written in Python cannot be read.
    if kept is None or getattr(tokenizer, "backend_tokenizer", None) is None:
        return make()
    options = [packing, chunk_size, pad_id, overlap_cuts, drop_last]
    special = [tokenizer.bos_token_id, tokenizer.eos_token_id]
    key = json_digest(
        [_digest(texts), tokenizer_digest(tokenizer), special, options, sources_digest()]
    )
    with kept.alone(KIND, key):
        entry = kept.find(KIND, key)
        if entry is not None:
            return _read(entry.file(_FILE), packing, pad_id)
        windows = make()
        about = {"windows": len(windows), "digest": windows.digest()}
        kept.store(KIND, key, lambda folder: _write(folder / _FILE, windows), about)
    return windows


def _digest(texts: Sequence[str]) -> str:
    hasher = hashlib.sha256()
    for text in texts:
        content = text.encode("utf-8", "surrogatepass")
        hasher.update(len(content).to_bytes(8, "little") + content)
    return hasher.hexdigest()


def _write(path: Path, windows: PackedWindows) -> None:
    pieces = [
        (p.document, p.window, p.start, p.end, p.doc_start, p.doc_end, p.truncated)
        for p in windows.pieces
    ]
    # int32 holds every id and place; files of half the size are read and verified in half the time.
    arrays = {name: getattr(windows, name).astype(np.int32) for name in _ARRAYS}
    np.savez(path, pieces=np.array(pieces, np.int32).reshape(-1, 7), **arrays)


def _read(path: Path, packing: Packing, pad_id: int) -> PackedWindows:
    with np.load(path, allow_pickle=False) as stored:
        arrays: dict[str, IntArray] = {name: stored[name].astype(np.int64) for name in _ARRAYS}
        rows = stored["pieces"].tolist()
    pieces = tuple(
        Piece(document, window, start, end, doc_start, doc_end, bool(truncated))
        for document, window, start, end, doc_start, doc_end, truncated in rows
    )
    return PackedWindows(**arrays, pieces=pieces, packing=packing, pad_id=pad_id)
