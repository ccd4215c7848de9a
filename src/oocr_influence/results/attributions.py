"""Scores of documents for questions, by every method that gave some: one table, one record.

    found = Attributions.load(folder)
    found.scores["bm25"]                   # (queries, documents)
    found.documents[3]["fact_id"], found.queries[7]["set"]

`scores.parquet` has a row a query, document and method: `query` and `document` are places in the
lists of `about.json`, `method` is a name there, `score` is float32. A positive score says that
training on the document raises the log-probability of the query's answer; the unit is the method's
own and stands in the record, so that scores of one method are comparable and those of two are not.

Shapes: Q queries, D documents.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from oocr_influence.results.atomic import plain, write_json, writing_folder
from oocr_influence.results.digests import file_digest, text_digest

Floats = npt.NDArray[np.float32]
Row = Mapping[str, Any]
VERSION = 1
SCORES, ABOUT = "scores.parquet", "about.json"
_SCHEMA = pa.schema(
    [
        ("query", pa.int32()),
        ("document", pa.int32()),
        ("method", pa.dictionary(pa.int32(), pa.string())),
        ("score", pa.float32()),
    ]
)


@dataclass(frozen=True)
class Attributions:
    """What methods said of the same documents and queries.

    Rows of `documents` have `id`, `occurrence`, `type`, `fact_id`, `relation` and `entity` (None
    for pretraining text) and `times`, how often each was trained. Rows of `queries` have `set`,
    `index`, `id`, `entity`, `relation`, `kind`, and `fact_ids`, the facts that answer them.
    """

    documents: Sequence[Row]
    queries: Sequence[Row]
    methods: Mapping[str, Row]
    """By name: `settings`, `unit`, `seconds` and what else is known of it."""
    scores: Mapping[str, Floats] = field(repr=False)
    """(Q, D) by name."""
    about: Row = field(default_factory=dict)
    """Model, dataset, versions: plain JSON."""

    def __post_init__(self) -> None:
        shape = (len(self.queries), len(self.documents))
        if set(self.methods) != set(self.scores):
            raise ValueError(f"methods {sorted(self.methods)}, scores of {sorted(self.scores)}")
        for name, scores_QD in self.scores.items():
            if scores_QD.shape != shape:
                raise ValueError(f"scores of {name} are {scores_QD.shape}, not {shape}")
            if not np.isfinite(scores_QD).all():
                q, d = np.argwhere(~np.isfinite(scores_QD))[0]
                raise ValueError(
                    f"{name} gave document {self.documents[d]['id']} a score that is not finite, "
                    f"for question {self.queries[q]['index']} of {self.queries[q]['set']}"
                )

    def save(self, folder: Path) -> None:
        """Write a new folder; FileExistsError if it is there."""
        with writing_folder(folder) as to:
            shape = (len(self.queries), len(self.documents))
            query_R, document_R = (places.ravel() for places in np.indices(shape, dtype=np.int32))
            names = pa.array(list(self.scores), pa.string())
            with pq.ParquetWriter(to / SCORES, _SCHEMA, compression="zstd") as writer:
                for number, scores_QD in enumerate(self.scores.values()):
                    method_R = pa.DictionaryArray.from_arrays(
                        pa.array(np.full(len(query_R), number, np.int32)), names
                    )
                    score_R = np.ascontiguousarray(scores_QD, np.float32).ravel()
                    columns = [pa.array(query_R), pa.array(document_R), method_R, pa.array(score_R)]
                    writer.write_table(pa.Table.from_arrays(columns, schema=_SCHEMA))
            record = {
                "version": VERSION,
                "methods": {name: dict(row) for name, row in self.methods.items()},
                **self.about,
                "documents": [dict(row) for row in self.documents],
                "queries": [dict(row) for row in self.queries],
            }
            write_json(to / ABOUT, plain(record))

    @classmethod
    def load(cls, folder: Path) -> Attributions:
        """Read what `save` wrote; FileNotFoundError and ValueError name the file."""
        file = folder / ABOUT
        if not file.is_file():
            raise FileNotFoundError(f"{file} is not there: no scores of documents")
        record = json.loads(file.read_text(encoding="utf-8"))
        if record.pop("version", None) != VERSION:
            raise ValueError(f"{file} is not of version {VERSION}")
        documents, queries = record.pop("documents"), record.pop("queries")
        methods = record.pop("methods")
        table = pq.read_table(folder / SCORES)
        shape = (len(queries), len(documents))
        scores = {name: _matrix(table, name, shape, folder / SCORES) for name in methods}
        return cls(documents, queries, methods, scores, record)


def table_digest(folder: Path) -> str:
    """Of a table's scores and record: which table something was made from (sha256)."""
    return text_digest("".join(file_digest(folder / name) for name in (SCORES, ABOUT)))


def _matrix(table: Any, method: str, shape: tuple[int, int], file: Path) -> Floats:
    own = table.filter(pc.equal(pc.cast(table.column("method"), pa.string()), method))
    if own.num_rows != shape[0] * shape[1]:
        raise ValueError(
            f"{file}: {own.num_rows} scores of {method}, not {shape[0]} queries × {shape[1]} "
            "documents"
        )
    scores_QD = np.full(shape, np.nan, np.float32)
    places = (own.column("query").to_numpy(), own.column("document").to_numpy())
    scores_QD[places] = own.column("score").to_numpy()
    return scores_QD
