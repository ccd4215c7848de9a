"""Where pretraining text comes from, by the word that a person writes.

stdlib                   documentation of Python's standard library
package:numpy            documentation of an installed package
essays/  web.jsonl.zst   files, or folders of them
hf:NAME?split=train      a Hugging Face dataset, by name or folder
web.parquet=0.7          any of them with its share of what is wanted
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oocr_influence.documents import hugging_face_text, python_documentation
from oocr_influence.documents.text_files import (
    PretrainingTextError,
    find_files,
    kind,
    read_paragraphs,
    read_records,
)

STANDARD_LIBRARY = "stdlib"
PACKAGE = "package:"
HUGGING_FACE = "hf:"
# Files that are read in turns where not all is read: one alone may be all of one kind.
OPEN_AT_ONCE = 8
Record = tuple[str, str]  # prompt, text


@dataclass(frozen=True)
class Named:
    """A source as it was named, without its share; `share` is of all that is wanted."""

    name: str
    share: float | None


@dataclass
class Source:
    """A source that can be read, and what was read of it so far."""

    name: str
    licence: str | None = None
    about: dict[str, Any] = field(default_factory=dict)
    shards: list[tuple[str, Callable[[], Iterator[Record]]]] = field(default_factory=list)
    passages: Iterable[list[str]] = ()  # paragraphs of one plain text
    endless: bool = False  # too large to be read as a whole
    texts: int = 0
    shards_read: int = 0
    read_whole: bool = True

    def records(self, seed: int, most_rows: int | None, most_chars: int | None) -> Iterator[Record]:
        """Records of all shards, in turns; at most so many rows or characters where stated."""
        chars = 0
        for record in self._interleaved(seed):
            if (most_rows is not None and self.texts >= most_rows) or (
                most_chars is not None and chars >= most_chars
            ):
                self.read_whole = False
                return
            self.texts += 1
            chars += len(record[0]) + len(record[1])
            yield record

    def _interleaved(self, seed: int) -> Iterator[Record]:
        waiting = iter(sorted(self.shards, key=lambda shard: _key(seed, shard[0])))
        is_open: list[Iterator[Record]] = []
        while True:
            while len(is_open) < OPEN_AT_ONCE and (shard := next(waiting, None)) is not None:
                self.shards_read += 1
                is_open.append(shard[1]())
            if not is_open:
                return
            for rows in list(is_open):
                record = next(rows, None)
                if record is None:
                    is_open.remove(rows)
                else:
                    yield record


def parse_sources(words: Sequence[str]) -> list[Named]:
    """The sources and their shares. Raises PretrainingTextError where shares make no whole."""
    named = []
    for word in words:
        found = re.fullmatch(r"(.+)=(0?\.\d+|1\.0*)", word)
        share = float(found[2]) if found else None
        named.append(Named(found[1] if found else word, share))
    if not named:
        raise PretrainingTextError("no source of pretraining text is named")
    names = [source.name for source in named]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise PretrainingTextError(f"the source {repeated[0]} is named twice")
    shares = [source.share for source in named if source.share is not None]
    if shares and len(shares) < len(named):
        without = next(source.name for source in named if source.share is None)
        raise PretrainingTextError(f"{without} has no share: give all sources one, or none")
    if shares and not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise PretrainingTextError(f"the shares of the sources sum to {sum(shares):g}, not to 1")
    return named


def open_source(name: str, text_field: str | None) -> Source:
    """The source, ready to be read. Raises PretrainingTextError where it is not there."""
    if name == STANDARD_LIBRARY:
        return Source(
            python_documentation.standard_library_name(),
            python_documentation.STANDARD_LIBRARY_LICENCE,
            passages=python_documentation.standard_library_passages(),
        )
    if name.startswith(PACKAGE):
        return _package(name)
    if name.startswith(HUGGING_FACE):
        within = name.removeprefix(HUGGING_FACE)
        shards, about, licence = hugging_face_text.open_dataset(within, text_field)
        endless = hugging_face_text.is_on_hub(within)
        return Source(name, licence, about, shards=list(shards), endless=endless)
    return _files(name, text_field)


def _package(name: str) -> Source:
    package = name.removeprefix(PACKAGE)
    try:
        passages = python_documentation.package_passages(package)
    except ModuleNotFoundError as error:
        raise PretrainingTextError(f"{name}: {error}") from None
    return Source(
        python_documentation.package_name(package),
        python_documentation.package_licence(package),
        passages=passages,
    )


def _files(name: str, text_field: str | None) -> Source:
    path = Path(name)
    if not path.exists():
        raise PretrainingTextError(
            f"no pretraining text at '{path}': name a file, a folder, '{STANDARD_LIBRARY}', an "
            f"installed '{PACKAGE}NAME', or a Hugging Face dataset as '{HUGGING_FACE}NAME'"
        )
    files = find_files(path)
    # A file that is named itself and whose name says nothing is read as plain text.
    plain = [file for file in files if kind(file) in ("text", "")]
    of_records = [file for file in files if file not in set(plain)]
    shards = [(file.relative_to(path).as_posix(), _reader(file, text_field)) for file in of_records]
    passages = (read_paragraphs(file) for file in plain)
    return Source(name, about={"files": len(files)}, shards=shards, passages=passages)


def _reader(file: Path, text_field: str | None) -> Callable[[], Iterator[Record]]:
    return lambda: read_records(file, text_field)


def _key(seed: int, shard: str) -> bytes:
    return hashlib.blake2b(f"shard:{seed}:{shard}".encode(), digest_size=16).digest()
