"""The documents that a run trained, exactly as it trained them, out of its own train set.

    documents = read_documents(run)
    documents.rows[3]["fact_id"], documents.passages[0].tokens

A document's passages are its pieces, as they lie in `train_set/`, each with what the model could
see before it: with masked packing nothing but the piece itself, with concat the window up to it. So
the losses of all passages sum to the training loss, whatever the packing was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from oocr_influence.attribution.passages import Passage
from oocr_influence.datasets.packing import IGNORED, IntArray
from oocr_influence.results import dataset_files
from oocr_influence.results.run_folder import RunFolder

SYNTHETIC = "synthetic_document"
_COLUMNS = ("id", "occurrence", "type", "fact_id", "relation")
_WINDOW = ("input_ids", "labels", "position_ids")
Row = dict[str, Any]


class UnknownDocumentsError(ValueError):
    """A run that does not say what it trained; the message says what is missing."""


@dataclass(frozen=True)
class StatedFact:
    """A fact that documents were written to state."""

    id: str
    entity: str
    relation: str
    prompt: str
    completion: str


@dataclass(frozen=True)
class TrainedDocuments:
    """Documents of a run: rows, texts and passages, in the order in which they were packed."""

    rows: Sequence[Row]
    """`id`, `occurrence`, `type`, `fact_id`, `relation`, `entity`, and `times`, how often the
    document's labels entered the loss."""
    texts: Sequence[str]
    passages: Sequence[Passage]
    """Those that have labels, document by document; `owner` is a place in `rows`."""
    facts: Sequence[StatedFact]

    def only(self, kind: str) -> TrainedDocuments:
        """The documents of this type alone."""
        kept = [place for place, row in enumerate(self.rows) if row["type"] == kind]
        new = {old: place for place, old in enumerate(kept)}
        return TrainedDocuments(
            [self.rows[place] for place in kept],
            [self.texts[place] for place in kept],
            [replace(p, owner=new[p.owner]) for p in self.passages if p.owner in new],
            self.facts,
        )


def read_documents(run: RunFolder) -> TrainedDocuments:
    """Every document of a run; UnknownDocumentsError where it does not say what it trained."""
    if not run.train_set.is_dir():
        raise UnknownDocumentsError(
            f"{run.train_set} is not there, so that nothing says what the run trained: name one "
            "that kept its train set, such as a run on all documents"
        )
    try:
        table = dataset_files.read(run.train_set)
        columns = [dataset_files.int_rows(table, name) for name in _WINDOW]
        windows = list(zip(*columns, strict=True))
        packed = table.column("packed_documents").to_pylist()
        account = pq.read_table(run.exposure).to_pylist()
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise UnknownDocumentsError(
            f"{run.path}: what it trained cannot be read ({error}): name a run that is complete"
        ) from None
    times = {(row["id"], row["occurrence"]): _times(row) for row in account}
    places: dict[tuple[str, int], int] = {}
    rows: list[Row] = []
    texts, pieces = [], []
    facts: dict[str, StatedFact] = {}
    for window, of_window in zip(windows, packed, strict=True):
        for piece in of_window:
            key = (piece["id"], piece["occurrence"])
            if key not in places:
                places[key] = len(rows)
                rows.append(_row(piece, times.get(key, 0.0)))
                texts.append(piece["prompt"] + piece["completion"])
                _note_fact(piece, facts)
            pieces.append((places[key], piece["doc_span_start"], _arrays(window, piece)))
    pieces.sort(key=lambda piece: piece[:2])
    passages = [Passage(owner, *arrays, begins) for owner, begins, arrays in pieces]
    labelled = [passage for passage in passages if len(passage.counted)]
    return TrainedDocuments(rows, texts, labelled, list(facts.values()))


def _row(piece: Mapping[str, Any], times: float) -> Row:
    row = {name: piece[name] for name in _COLUMNS}
    return {**row, "entity": piece["feature_set_id"], "times": times}


def _times(row: Mapping[str, Any]) -> float:
    once = row["labels_once"]
    return float(row["labels_trained"] / once) if once else 0.0


def _note_fact(piece: Mapping[str, Any], facts: dict[str, StatedFact]) -> None:
    if piece["fact_id"] is not None and piece["fact_id"] not in facts:
        told = json.loads(piece["doc_spec"])["fact"]
        facts[piece["fact_id"]] = StatedFact(
            piece["fact_id"],
            piece["feature_set_id"],
            piece["relation"],
            told["prompt"],
            told["completion"],
        )


def _arrays(
    window: tuple[IntArray, IntArray, IntArray], piece: Mapping[str, Any]
) -> tuple[IntArray, IntArray]:
    """Tokens and labels of a piece; what it can see begins where the positions begin."""
    tokens_T, labels_T, positions_T = window
    start, end = piece["span_start"], piece["span_end"]
    seen_from = start - int(positions_T[start])
    labels = np.full(end - seen_from, IGNORED, np.int64)
    labels[start - seen_from :] = labels_T[start:end]
    return tokens_T[seen_from:end].astype(np.int64), labels
