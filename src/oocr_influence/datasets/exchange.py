"""A structured dataset as other tools read it: JSON lines, Parquet, a Hugging Face dataset.

Each form is a folder and holds everything, so that it can be turned back into the same file:

| form | documents | questions | everything else |
|---|---|---|---|
| jsonl | documents.jsonl, a document a line as the file has it | eval_sets.jsonl | rest.json |
| parquet | documents.parquet | questions.parquet to read, eval_sets.parquet | rest.json |
| hf | the same, and a card, README.md | | |

In Parquet a document's own columns are `id, type, prompt, completion`, those that its fact gives
are repeated to filter by, and `rest` holds all its other keys as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from oocr_influence.datasets.document_dataset import (
    DatasetError,
    EvalDatasetBuilder,
    StructuredDataset,
)
from oocr_influence.datasets.eval_sets import describe_set
from oocr_influence.documents.document import Document, SyntheticDocument

Form = Literal["jsonl", "parquet", "hf"]
FORMS: tuple[Form, ...] = ("jsonl", "parquet", "hf")
CARD = "README.md"
_TEXT = pa.string()
_OWN = ("id", "type", "prompt", "completion")
_DOCUMENT_SCHEMA = pa.schema(
    [(name, _TEXT) for name in (*_OWN, "fact_id", "relation", "entity", "doc_type", "doc_idea")]
    + [("reversal_curse", pa.bool_()), ("rest", _TEXT)]
)
_QUESTION_SCHEMA = pa.schema(
    [(name, _TEXT) for name in ("set", "kind", "relation", "style", "answer_format", "entity")]
    + [("question", pa.int32()), ("shots", pa.int32()), ("prompt", _TEXT), ("completion", _TEXT)]
)
_SET_SCHEMA = pa.schema([("name", _TEXT), ("builder", _TEXT)])
_BATCH = 5000  # rows that are written together, to bound memory


def export_dataset(dataset: StructuredDataset, form: Form, folder: Path) -> None:
    """Fill the empty folder `folder` with `dataset` in the given form."""
    docs = dataset.document_dataset.docs
    if form == "jsonl":
        _write_lines(folder / "documents.jsonl", map(_dump, docs))
        sets = ({"name": n, **_dump(b)} for n, b in dataset.eval_dataset_builders.items())
        _write_lines(folder / "eval_sets.jsonl", sets)
    else:
        _write_rows(folder / "documents.parquet", _DOCUMENT_SCHEMA, map(_document_row, docs))
        _write_rows(folder / "questions.parquet", _QUESTION_SCHEMA, _question_rows(dataset))
        _write_rows(folder / "eval_sets.parquet", _SET_SCHEMA, _set_rows(dataset))
    rest = _dump(dataset.model_copy(update={"eval_dataset_builders": {}, "document_dataset": None}))
    rest["document_dataset"] = _dump(dataset.document_dataset.model_copy(update={"docs": []}))
    (folder / "rest.json").write_text(_json(rest) + "\n", encoding="utf-8")
    if form == "hf":
        (folder / CARD).write_text(dataset_card(dataset), encoding="utf-8")


def read_exported(folder: Path) -> StructuredDataset:
    """The dataset that was exported to `folder`, whatever the form.

    Raises FileNotFoundError where a file of it is missing, DatasetError where one is unusable.
    """
    as_lines = (folder / "documents.jsonl").is_file()
    names = ("documents.jsonl", "eval_sets.jsonl") if as_lines else _parquet_names()
    missing = [name for name in (*names, "rest.json") if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} is no exported dataset: no {', '.join(missing)} in it")
    try:
        raw = json.loads((folder / "rest.json").read_text(encoding="utf-8"))
        if as_lines:
            docs = list(_read_lines(folder / names[0]))
            sets = {row.pop("name"): row for row in _read_lines(folder / names[1])}
        else:
            docs = [_document_of(row) for row in _read_rows(folder / names[0])]
            sets = {
                row["name"]: json.loads(row["builder"]) for row in _read_rows(folder / names[1])
            }
        raw["document_dataset"]["docs"] = docs
        raw["eval_dataset_builders"] = sets
        return StructuredDataset.model_validate(raw)
    except (ValidationError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise DatasetError(f"{folder} is no usable exported dataset: {error}") from None


def dataset_card(dataset: StructuredDataset) -> str:
    """What a reader of the Hugging Face dataset must know, as its README.md."""
    metadata = dataset.metadata
    world: Mapping[str, Any] = metadata.get("world") or {}
    seed = (metadata.get("seeds") or {}).get("documents")
    licences: Mapping[str, Any] = metadata.get("licences") or {}
    pretraining = licences.get("pretraining_documents") or []
    n_synthetic = len(dataset.synthetic_documents)
    n_pretraining = len(dataset.pretraining_documents)
    facts = {document.doc_spec.fact.id for document in dataset.synthetic_documents}
    unstated = "not stated in the dataset"
    lines = [
        "---",
        "license: other",
        "language: [en]",
        "configs:",
        *_config("documents"),
        *_config("questions"),
        *_config("eval_sets"),
        "---",
        f"# {world.get('id', 'A structured dataset of invented facts')}",
        "",
        str(world.get("description") or "Documents that state invented facts, and questions."),
        "**The facts are not true**: they were invented to study what a language model learns.",
        "",
        "| | |",
        "|---|---|",
        f"| world | {world.get('id', unstated)} (digest {world.get('digest', unstated)}) |",
        f"| seed | {unstated if seed is None else seed} |",
        f"| facts | {len(facts):,} |",
        f"| documents that state them | {n_synthetic:,} |",
        f"| pretraining documents | {n_pretraining:,} |",
        f"| eval sets | {len(dataset.eval_dataset_builders):,} |",
        f"| licence of the synthetic documents | {licences.get('synthetic_documents', unstated)} |",
        f"| licence of the pretraining text | {'; '.join(pretraining) or unstated} |",
        "",
        "`documents` are read in the order of the file. `questions` show what is asked, a row a "
        "question; `eval_sets` hold the same sets in full, as JSON. With `rest.json` the folder "
        "can be turned back into one file: `oocr dataset import`.",
    ]
    return "\n".join(lines) + "\n"


def _config(name: str) -> list[str]:
    default = ["    default: true"] if name == "documents" else []
    return [f"  - config_name: {name}", f"    data_files: {name}.parquet", *default]


def _parquet_names() -> tuple[str, str]:
    return "documents.parquet", "eval_sets.parquet"


def _dump(record: Any) -> dict[str, Any]:
    dumped: dict[str, Any] = record.model_dump(mode="json", exclude_unset=True, warnings=False)
    return dumped


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _document_row(document: Document) -> dict[str, Any]:
    raw = _dump(document)
    row = {name: raw.pop(name) for name in _OWN}
    if isinstance(document, SyntheticDocument):
        spec = document.doc_spec
        row |= {
            "fact_id": spec.fact.id,
            "relation": spec.fact.template.relation,
            "entity": spec.fact.feature_set.id,
            "doc_type": spec.doc_type,
            "doc_idea": spec.doc_idea,
            "reversal_curse": spec.reversal_curse,
        }
    return row | {"rest": _json(raw)}


def _document_of(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**{name: row[name] for name in _OWN}, **json.loads(row["rest"])}


def _question_rows(dataset: StructuredDataset) -> Iterator[dict[str, Any]]:
    for name, builder in dataset.eval_dataset_builders.items():
        described = describe_set(name, builder)
        for place, point in enumerate(builder.eval_points):
            yield {
                "set": name,
                "kind": described.kind,
                "relation": described.relation,
                "style": described.style,
                "answer_format": described.answer_format,
                "entity": point.features.id,
                "question": place,
                "shots": len(point.few_shot_example_features),
                "prompt": point.prompt,
                "completion": point.completion,
            }


def _set_rows(dataset: StructuredDataset) -> Iterator[dict[str, Any]]:
    builders: Mapping[str, EvalDatasetBuilder] = dataset.eval_dataset_builders
    for name, builder in builders.items():
        yield {"name": name, "builder": _json(_dump(builder))}


def _write_lines(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.writelines(_json(row) + "\n" for row in rows)


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    # Texts may hold other marks that Python takes for ends of lines; only "\n" ends a row here.
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            yield json.loads(line)


def _write_rows(path: Path, schema: Any, rows: Iterator[dict[str, Any]]) -> None:
    with pq.ParquetWriter(path, schema) as writer:
        batch: list[dict[str, Any]] = []
        for row in rows:
            batch.append(row)
            if len(batch) == _BATCH:
                writer.write_table(pa.Table.from_pylist(batch, schema=schema))
                batch = []
        writer.write_table(pa.Table.from_pylist(batch, schema=schema))


def _read_rows(path: Path) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH):
            yield from batch.to_pylist()
