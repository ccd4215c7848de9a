"""Files of text: plain, JSON lines or Parquet, each also compressed by gzip or Zstandard.

    for prompt, text in read_records(Path("dolma/books-0000.json.gz"), field="text"): ...

Files are read as streams: one that is larger than memory is no trouble.
"""

from __future__ import annotations

import gzip
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

TEXT = (".txt", ".md", ".rst")
LINES = (".jsonl", ".ndjson")
PARQUET = ".parquet"
COMPRESSED = (".gz", ".zst")
ROWS_AT_ONCE = 256


class PretrainingTextError(ValueError):
    """Text that cannot be read, or too little of it; the message names source and remedy."""


def kind(path: Path) -> str:
    """`text`, `lines`, `parquet`, or nothing where the name says none of them."""
    suffixes = [s.lower() for s in path.suffixes]
    compressed = bool(suffixes) and suffixes[-1] in COMPRESSED
    last = suffixes[-2 if compressed else -1] if len(suffixes) > compressed else ""
    # Corpora call compressed JSON lines .json.gz; a plain .json may be anything.
    if last in LINES or (last == ".json" and compressed):
        return "lines"
    if last in TEXT:
        return "text"
    return "parquet" if last == PARQUET and not compressed else ""


def find_files(path: Path) -> list[Path]:
    """The file, or all files of a folder whose names say that they hold text, sorted.

    Raises PretrainingTextError where there are none.
    """
    if path.is_file():
        return [path]
    files = sorted(p for p in path.rglob("*") if p.is_file() and kind(p))
    if not files:
        known = ", ".join((*TEXT, *LINES, PARQUET))
        raise PretrainingTextError(f"no {known} files under '{path}', plain or .gz or .zst")
    return files


def read_paragraphs(path: Path) -> list[str]:
    """The paragraphs of a plain text."""
    with _opened(path) as file:
        try:
            text = file.read().decode("utf-8")
        except (OSError, EOFError) as error:
            raise PretrainingTextError(f"{path}: {error}") from None
        except UnicodeDecodeError as error:
            raise PretrainingTextError(f"{path} is not UTF-8 text: {error}") from None
    paragraphs = re.split(r"\n\s*\n", text)
    return [p.strip() for p in paragraphs if p.strip()]


def read_records(path: Path, field: str | None = None) -> Iterator[tuple[str, str]]:
    """(prompt, text) of each record of JSON lines or Parquet; see `prompt_and_text`."""
    rows = _parquet_rows(path, field) if kind(path) == "parquet" else _json_lines(path)
    for place, row in rows:
        yield prompt_and_text(row, place, field)


def prompt_and_text(record: Any, place: str, field: str | None = None) -> tuple[str, str]:
    """The record's `field`; by default its `text`, or else its `prompt` and `completion`.

    Raises PretrainingTextError naming `place` and what the record has instead.
    """
    known = record if isinstance(record, Mapping) else {}
    whole = field is not None or "text" in known
    keys = (field or "text",) if whole else ("prompt", "completion")
    if not all(isinstance(known.get(key), str) for key in keys):
        needed = f"'{field}'" if field else "'text', or 'prompt' and 'completion'"
        has = ", ".join(map(str, known)) or type(record).__name__
        raise PretrainingTextError(
            f"{place}: a record needs {needed} (found: {has}); --pretraining_field names another"
        )
    return ("", known[keys[0]]) if whole else (known["prompt"], known["completion"])


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    with _opened(path) as file:
        number = 0
        try:
            # Lines of bytes: str.splitlines would also cut at characters that JSON may hold.
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path}:{number}", json.loads(line)
        except json.JSONDecodeError as error:
            raise PretrainingTextError(f"{path}:{number}: not JSON: {error}") from None
        except UnicodeDecodeError as error:
            raise PretrainingTextError(f"{path}:{number} is not UTF-8 text: {error}") from None
        except (OSError, EOFError) as error:
            raise PretrainingTextError(f"{path}, after line {number}: {error}") from None


def _parquet_rows(path: Path, field: str | None) -> Iterator[tuple[str, Any]]:
    # Imported here: it takes a moment, and few need it.
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = set(file.schema_arrow.names)
            wanted = columns & ({field} if field else {"text", "prompt", "completion"})
            # Without them the first row says what is missing, and what there is.
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=sorted(wanted or columns)):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except (OSError, pyarrow.ArrowException) as error:
        raise PretrainingTextError(f"{path}, after row {number}: {error}") from None


def _opened(path: Path) -> IO[bytes]:
    if path.suffix.lower() == ".gz":
        return io.BufferedReader(gzip.GzipFile(path))
    if path.suffix.lower() == ".zst":
        import pyarrow

        return io.BufferedReader(pyarrow.CompressedInputStream(str(path), "zstd"))
    return path.open("rb")
