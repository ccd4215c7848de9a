"""The rows of `train_set/`: what a run trained, window by window, with every document's span."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from oocr_influence.datasets.packing import PackedWindows, Piece
from oocr_influence.datasets.selection import TrainingDocument
from oocr_influence.documents.document import SyntheticDocument


def window_columns(
    windows: PackedWindows, documents: Sequence[TrainingDocument]
) -> dict[str, list[Any]]:
    """One row a window: tokens, unshifted labels, mask, positions, id, packed_documents."""
    packed: list[list[dict[str, Any]]] = [[] for _ in range(len(windows))]
    described = [_document_columns(document) for document in documents]
    for piece in windows.pieces:
        packed[piece.window].append({**described[piece.document], **_span_columns(piece)})
    return {
        "input_ids": list(windows.input_ids),
        "labels": list(windows.labels),
        "attention_mask": list((windows.segments >= 0).astype(np.int64)),
        "position_ids": list(windows.position_ids),
        "id": windows.window_ids(),
        "packed_documents": packed,
    }


def piece_columns(
    windows: PackedWindows, documents: Sequence[TrainingDocument]
) -> dict[str, list[Any]]:
    """One row a piece exactly as trained, for tools that forward whole rows."""
    columns: dict[str, list[Any]] = {"input_ids": [], "labels": [], "attention_mask": []}
    rows = []
    for piece in windows.pieces:
        span = (piece.window, slice(piece.start, piece.end))
        columns["input_ids"].append(windows.input_ids[span])
        columns["labels"].append(windows.labels[span])
        columns["attention_mask"].append(np.ones(piece.end - piece.start, dtype=np.int64))
        rows.append({**_document_columns(documents[piece.document]), **_span_columns(piece)})
    for name in rows[0]:
        columns[name] = [row[name] for row in rows]
    columns["window"] = [piece.window for piece in windows.pieces]
    return columns


def _document_columns(training: TrainingDocument) -> dict[str, Any]:
    document = training.document
    columns: dict[str, Any] = {
        "id": document.id,
        "occurrence": training.key[1],
        "type": document.type,
        "prompt": document.prompt,
        "completion": document.completion,
        "doc_spec": None,
        "fact_id": None,
        "universe_id": None,
        "template_id": None,
        "feature_set_id": None,
        "relation": None,
    }
    if isinstance(document, SyntheticDocument):
        fact = document.doc_spec.fact
        columns |= {
            "doc_spec": document.doc_spec.model_dump_json(exclude_unset=True),
            "fact_id": fact.id,
            "universe_id": fact.universe_id,
            "template_id": fact.template.id,
            "feature_set_id": fact.feature_set.id,
            "relation": fact.template.relation,
        }
    return columns


def _span_columns(piece: Piece) -> dict[str, Any]:
    spans = asdict(piece)
    return {
        "span_start": spans["start"],
        "span_end": spans["end"],
        "doc_span_start": spans["doc_start"],
        "doc_span_end": spans["doc_end"],
        "truncated": spans["truncated"],
    }
