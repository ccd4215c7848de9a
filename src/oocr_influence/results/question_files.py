"""Many files of questions as one table that is read when it is asked, and then in part.

    dataset, left_out = question_dataset(files)      # a pyarrow Dataset

Files are opened once, for their schema. What belongs to a whole file (its run, its evaluation) is
stated to the reader as such: a query about one run opens no other's files. Nothing can be written
through a Dataset.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq

from oocr_influence.results.collected_sets import OF_EVALUATION, QuestionFile
from oocr_influence.results.evaluation_files import known_columns

_READERS = 4  # waiting for a disk, not computing
# Columns of few values: read as numbers into a list of texts, they are grouped without comparing.
_WORDS = ("set", "world", "relation", "answer_format", "style", "kind", "control")
_WORD = pa.dictionary(pa.int32(), pa.string())
OF_FILE = {
    **{name: _WORD if pa.types.is_string(t) else t for name, t in OF_EVALUATION.items()},
    "file": pa.int32(),
}


def question_dataset(files: Sequence[QuestionFile]) -> tuple[Any, list[str]]:
    """A Dataset, and the names of the columns that were left out since their types are unlike.

    It has the columns of OF_FILE (`file` is the place in `files`), those that every file of records
    has, and further ones of any file.
    """
    if not files:
        empty = pa.schema({**OF_FILE, **known_columns()})
        return ds.dataset(empty.empty_table()), []
    with ThreadPoolExecutor(_READERS) as readers:
        schemas = list(readers.map(lambda file: pq.read_schema(file.path), files))
    own, left_out = _unified([pa.schema(known_columns()), *schemas])
    words = [field.name for field in own if field.name in _WORDS]
    fields = [field.with_type(_WORD) if field.name in words else field for field in own]
    schema = pa.schema([*OF_FILE.items(), *fields])
    layout = ds.ParquetFileFormat(dictionary_columns=words)
    disk = pyarrow.fs.LocalFileSystem()
    fragments = [
        layout.make_fragment(
            str(file.path), filesystem=disk, partition_expression=_of_file(file, number)
        )
        for number, file in enumerate(files)
    ]
    return ds.FileSystemDataset(fragments, schema, layout, filesystem=disk), left_out


def _of_file(file: QuestionFile, number: int) -> Any:
    values = {**file.told, "file": number}
    whole = ds.scalar(True)
    for name, type_ in OF_FILE.items():
        field = ds.field(name)
        whole &= field.is_null() if values[name] is None else field == _scalar(values[name], type_)
    return whole


def _scalar(value: Any, type_: Any) -> Any:
    if type_ != _WORD:
        return pa.scalar(value, type_)
    return pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), pa.array([value]))[0]


def _unified(schemas: Sequence[Any]) -> tuple[Any, list[str]]:
    """Every column of any schema, whole numbers among decimals as decimals; and the names of those
    that are texts in one file and numbers in another."""
    types: dict[str, list[Any]] = {}
    for schema in schemas:
        for field in schema:
            if field.name in OF_FILE:
                continue
            known = types.setdefault(field.name, [])
            if field.type not in known:
                known.append(field.type)
    fields, left_out = [], []
    for name, found in types.items():
        try:
            each = [pa.schema([(name, type_)]) for type_ in found]
            fields.append(pa.unify_schemas(each, promote_options="permissive").field(0))
        except pa.ArrowTypeError:
            left_out.append(name)
    return pa.schema(fields), left_out


__all__ = ["OF_FILE", "question_dataset"]
