"""Turn a structured dataset into other forms and back, compare two, leave documents out.

    oocr dataset export DATASET --format hf --output FOLDER
    oocr dataset import FOLDER --output DATASET
    oocr dataset diff A B
    oocr dataset filter DATASET --drop_ids FILE --keep_facts ID,ID --output DATASET
    oocr dataset materialise 0_dataset_builder.json --output DATASET

Nothing is ever re-identified or reordered: what was exported comes back as the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from oocr_influence.cli.arguments import CommandArguments, UsageError
from oocr_influence.datasets.differences import compare_datasets, describe
from oocr_influence.datasets.document_dataset import (
    DatasetError,
    StructuredDataset,
    load_structured_dataset,
    save_structured_dataset,
)
from oocr_influence.datasets.exchange import export_dataset, read_exported
from oocr_influence.datasets.filtering import filter_documents
from oocr_influence.results.atomic import write_json, writing_folder


class ExportDatasetArguments(CommandArguments):
    """What to export, as what, to where."""

    dataset: list[Path] = Field(json_schema_extra={"positional": True})
    """the structured dataset, one file"""
    format: Literal["jsonl", "parquet", "hf"] = "hf"
    """JSON lines, Parquet, or Parquet with a card, as Hugging Face's `load_dataset` reads it"""
    output: Path | None = None
    """a new folder (None: beside the dataset, NAME_<format>)"""


class ImportDatasetArguments(CommandArguments):
    """What to turn back into one file."""

    folder: list[Path] = Field(json_schema_extra={"positional": True})
    """a folder that `oocr dataset export` wrote"""
    output: Path
    """the structured dataset to write"""
    overwrite: bool = False
    """replace an existing output file"""


class DiffDatasetsArguments(CommandArguments):
    """Which two files to compare."""

    datasets: list[Path] = Field(json_schema_extra={"positional": True})
    """two structured datasets, the earlier first"""
    json_: Path | None = None
    """file to write every difference to, as JSON"""


class MaterialiseDatasetArguments(CommandArguments):
    """Which subset to write out."""

    dataset: list[Path] = Field(json_schema_extra={"positional": True})
    """a file that refers to a subset of a dataset, such as a sweep's 0_dataset_builder.json"""
    output: Path
    """the structured dataset to write"""
    overwrite: bool = False
    """replace an existing output file"""


class FilterDatasetArguments(CommandArguments):
    """Which documents to leave out."""

    dataset: list[Path] = Field(json_schema_extra={"positional": True})
    """the structured dataset, one file"""
    drop_ids: Path | None = None
    """file of document ids to leave out, one a line"""
    keep_facts: list[str] | None = None
    """ids of the facts whose documents stay, or their first eight letters or more; pretraining
    documents stay anyway (None: all)"""
    output: Path
    """the structured dataset to write"""
    overwrite: bool = False
    """replace an existing output file"""


def main_export(args: ExportDatasetArguments) -> int:
    """Write the folder, say where it is."""
    (path,) = _only(args.dataset, 1)
    folder = args.output or path.with_name(f"{path.stem}_{args.format}")
    if folder.exists():
        raise UsageError(f"{folder} exists; name a new folder with --output")
    dataset = _load(path)
    with writing_folder(folder) as temporary:
        export_dataset(dataset, args.format, temporary)
    print(f"{folder}: {', '.join(sorted(file.name for file in folder.iterdir()))}")
    return 0


def main_import(args: ImportDatasetArguments) -> int:
    """Read the folder, write the file."""
    (folder,) = _only(args.folder, 1)
    _check_output(args.output, args.overwrite)
    try:
        dataset = read_exported(folder)
    except DatasetError as error:
        raise UsageError(str(error)) from None
    save_structured_dataset(dataset, args.output)
    print(f"{args.output}: {_counted(dataset)}")
    return 0


def main_diff(args: DiffDatasetsArguments) -> int:
    """Say what differs; returns 0 if nothing does, else 1."""
    first, second = _only(args.datasets, 2)
    difference = compare_datasets(_load(first), _load(second))
    if args.json_:
        write_json(args.json_, difference)
    print(describe(difference))
    return 0 if difference["same"] else 1


def main_materialise(args: MaterialiseDatasetArguments) -> int:
    """Write a subset that stands alone, its documents' text and all questions in it."""
    (path,) = _only(args.dataset, 1)
    _check_output(args.output, args.overwrite)
    dataset = _load(path)
    save_structured_dataset(dataset, args.output)
    print(f"{args.output}: {_counted(dataset)}")
    return 0


def main_filter(args: FilterDatasetArguments) -> int:
    """Write the dataset without the documents named."""
    (path,) = _only(args.dataset, 1)
    if args.drop_ids is None and args.keep_facts is None:
        raise UsageError("nothing to leave out: --drop_ids names documents, --keep_facts facts")
    _check_output(args.output, args.overwrite)
    dataset = _load(path)
    try:
        smaller = filter_documents(
            dataset,
            drop_ids=_read_ids(args.drop_ids),
            keep_facts=None if args.keep_facts is None else set(args.keep_facts),
        )
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None
    save_structured_dataset(smaller, args.output)
    gone = len(dataset.document_dataset.docs) - len(smaller.document_dataset.docs)
    print(f"{args.output}: {gone:,} documents left out, {_counted(smaller)}")
    print("its metadata still describe the whole dataset")
    return 0


def _only(paths: list[Path], count: int) -> list[Path]:
    if len(paths) != count:
        raise UsageError(f"{count} path{'s' * (count > 1)} wanted, {len(paths)} given")
    return paths


def _load(path: Path) -> StructuredDataset:
    try:
        return load_structured_dataset(path)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _check_output(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists; --overwrite replaces it, --output writes elsewhere")


def _read_ids(path: Path | None) -> set[str]:
    if path is None:
        return set()
    if not path.is_file():
        raise UsageError(f"--drop_ids {path}: no such file")
    return {line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()}


def _counted(dataset: StructuredDataset) -> str:
    return (
        f"{len(dataset.synthetic_documents):,} synthetic and "
        f"{len(dataset.pretraining_documents):,} pretraining documents, "
        f"{len(dataset.eval_dataset_builders):,} eval sets"
    )
