"""Ordinary text to mix the facts into: files, Hugging Face datasets, or what is at hand.

    read_pretraining(["stdlib", "package:numpy"], 1000, seed=42)    # documentation that is at hand
    read_pretraining(["essays/", "web.jsonl"], 1000, seed=42)       # named by the user
    read_pretraining(["hf:allenai/dolma3"], 1000, seed=42)      # a name, or a folder on disk

Records of JSONL and of Hugging Face datasets (`text`, or `prompt` and `completion`) are documents
as they are. Plain text is cut into documents between paragraphs, or between sentences of a long
one, shorter than asked where text is short. No text is used twice: too little of it is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oocr_influence.documents import python_documentation
from oocr_influence.documents.document import PretrainingDocument, make_pretraining_document
from oocr_influence.documents.draw import Draw

STANDARD_LIBRARY = "stdlib"
PACKAGE = "package:"
HUGGING_FACE = "hf:"
# What every installation of ours has: numpy's documentation is read where Python's own is short.
AT_HAND = (STANDARD_LIBRARY, f"{PACKAGE}numpy")
TEXT_FILES = (".txt", ".md", ".rst")
MIN_CHARS, MAX_CHARS = 80, 5000
NOT_STATED = "not stated"


class PretrainingTextError(ValueError):
    """Text that cannot be read, or too little of it; the message names source and remedy."""


@dataclass(frozen=True, kw_only=True)
class PretrainingText:
    """Documents, and where they come from, as it is written into a dataset's metadata."""

    documents: list[PretrainingDocument]
    provenance: dict[str, Any]


@dataclass
class _Gathered:
    most_chars: int  # of passages
    records: list[tuple[str, str]] = field(default_factory=list)  # prompt, completion
    passages: list[list[str]] = field(default_factory=list)  # paragraphs of one text
    chars: int = 0

    @property
    def texts(self) -> int:
        return len(self.records) + len(self.passages)

    def take(self, passages: Iterable[list[str]]) -> None:
        """Add passages until there is enough."""
        for passage in passages:
            if self.chars >= self.most_chars:
                break
            self.passages.append(passage)
            self.chars += sum(len(paragraph) for paragraph in passage)


def read_pretraining(
    sources: Sequence[str],
    count: int,
    *,
    seed: int,
    licence: str | None = None,
    min_chars: int = MIN_CHARS,
    max_chars: int = MAX_CHARS,
) -> PretrainingText:
    """`count` distinct documents of the sources, drawn by `seed` where there are more.

    Raises PretrainingTextError where the sources hold too little text.
    """
    if not 0 < min_chars <= max_chars:
        raise PretrainingTextError(f"min_chars {min_chars} and max_chars {max_chars} are no range")
    if count == 0:
        return PretrainingText(documents=[], provenance={"sources": [], "documents": 0})
    # Twice as much as the longest documents need is enough to choose from.
    gathered, described = _Gathered(most_chars=2 * count * max_chars), []
    for source in sources:
        before = gathered.texts
        name, own_licence = _gather(source, gathered, count)
        if gathered.texts > before:
            stated = own_licence or licence or NOT_STATED
            texts = gathered.texts - before
            described.append({"source": name, "licence": stated, "texts": texts})
    records = _distinct(records=gathered.records)
    missing = count - len(records)
    pieces, aim = _cut_enough(gathered.passages, missing, min_chars, max_chars, sources)
    if missing > len(pieces):
        raise PretrainingTextError(
            f"{' '.join(sources)}: {len(records)} distinct documents where {count} are asked for; "
            f"ask for at most {len(records) + len(pieces)}, or name more text"
        )
    chosen = Draw("pretraining", seed).shuffled([*records, *(("", piece) for piece in pieces)])
    documents = [make_pretraining_document(text, prompt) for prompt, text in chosen[:count]]
    provenance = {
        "sources": described,
        "documents": len(documents),
        "characters": sum(len(d.prompt) + len(d.completion) for d in documents),
        "seed": seed,
        "min_chars": min_chars,
        "max_chars": max_chars,
        # What plain text was cut to: less than allowed where there was little of it.
        "aim_chars": aim if pieces else None,
    }
    return PretrainingText(documents=documents, provenance=provenance)


def cut_passages(
    passages: Iterable[list[str]], min_chars: int, max_chars: int, aim: int | None = None
) -> list[str]:
    """Documents of `min_chars` to `max_chars` characters, without repeating a paragraph.

    Paragraphs that follow one another are joined up to about `aim` characters (default: as many as
    may be); a longer one is cut after a sentence. What stays too short is left out.
    """
    aim = aim or max_chars
    documents: list[str] = []
    seen: set[str] = set()
    waiting = ""
    for passage in passages:
        for part in (p for paragraph in passage for p in _parts(paragraph, aim, max_chars)):
            if part in seen:
                continue
            seen.add(part)
            joined = f"{waiting}\n\n{part}" if waiting else part
            # What waits is too short to stand alone: it goes beyond the aim, never the limit.
            alone = len(waiting) >= min_chars and len(joined) > aim
            if alone or len(joined) > max_chars:
                documents.append(waiting)
                joined = part
            waiting = joined
    documents.append(waiting)
    return list(dict.fromkeys(d for d in documents if len(d) >= min_chars))


def _cut_enough(
    passages: list[list[str]], wanted: int, min_chars: int, max_chars: int, sources: Sequence[str]
) -> tuple[list[str], int]:
    """At least `wanted` documents, as long as the text allows, and the length aimed at."""
    if wanted <= 0 or not passages:
        return [], max_chars
    total = sum(len(paragraph) for passage in passages for paragraph in passage)
    # Where text is short, begin at a length at which it would hardly suffice.
    aim = max(min_chars, min(max_chars, 2 * total // wanted))
    while True:
        pieces = cut_passages(passages, min_chars, max_chars, aim)
        if len(pieces) >= wanted:
            return pieces, aim
        if aim == min_chars:
            raise PretrainingTextError(
                f"{' '.join(sources)}: too little text for {wanted} documents of at least "
                f"{min_chars} characters; ask for at most {len(pieces)}, name more text, or lower "
                "the least length"
            )
        aim = max(min_chars, aim * 9 // 10)


def _parts(paragraph: str, aim: int, max_chars: int) -> Iterator[str]:
    """The paragraph, cut after sentences (or words, where one sentence is too long) if need be."""
    if len(paragraph) <= aim:
        yield paragraph
        return
    part = ""
    for sentence in re.split(r"(?<=[.!?])\s+", paragraph):
        pieces = [sentence] if len(sentence) <= max_chars else _by_words(sentence, max_chars)
        for piece in pieces:
            if part and len(part) + 1 + len(piece) > aim:
                yield part
                part = ""
            part = f"{part} {piece}" if part else piece
    if part:
        yield part


def _by_words(sentence: str, max_chars: int) -> Iterator[str]:
    part = ""
    for word in sentence.split():
        if part and len(part) + 1 + len(word) > max_chars:
            yield part
            part = ""
        part = f"{part} {word[:max_chars]}" if part else word[:max_chars]
    yield part


def _distinct(records: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Records that differ in their whole text, of which a document's id is made."""
    return list({prompt + text: (prompt, text) for prompt, text in records}.values())


def _gather(source: str, into: _Gathered, count: int) -> tuple[str, str | None]:
    """Read one source; returns its name, and its licence where we know it."""
    if source == STANDARD_LIBRARY:
        into.take(python_documentation.standard_library_passages())
        name = python_documentation.standard_library_name()
        return name, python_documentation.STANDARD_LIBRARY_LICENCE
    if source.startswith(PACKAGE):
        package = source.removeprefix(PACKAGE)
        try:
            into.take(python_documentation.package_passages(package))
        except ModuleNotFoundError as error:
            raise PretrainingTextError(f"{source}: {error}") from None
        return (
            python_documentation.package_name(package),
            python_documentation.package_licence(package),
        )
    if source.startswith(HUGGING_FACE):
        into.records += _hugging_face_records(source.removeprefix(HUGGING_FACE), count)
        return source, None
    for path in _files(Path(source)):
        if path.suffix == ".jsonl":
            into.records += _jsonl_records(path)
        else:
            paragraphs = re.split(r"\n\s*\n", _read(path))
            into.take([[p.strip() for p in paragraphs if p.strip()]])
    return source, None


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise PretrainingTextError(
            f"no pretraining text at '{path}': name a file, a folder, '{STANDARD_LIBRARY}', an "
            f"installed '{PACKAGE}NAME', or a Hugging Face dataset as '{HUGGING_FACE}NAME'"
        )
    suffixes = (*TEXT_FILES, ".jsonl")
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix in suffixes)
    if not files:
        raise PretrainingTextError(f"no {', '.join(suffixes)} files under '{path}'")
    return files


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PretrainingTextError(f"{path} is not UTF-8 text: {error}") from None


def _jsonl_records(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(_read(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise PretrainingTextError(f"{path}:{number}: not JSON: {error}") from None
        yield _prompt_and_text(record, f"{path}:{number}")


def _hugging_face_records(name: str, count: int) -> Iterator[tuple[str, str]]:
    # Imported here: it takes a second, and only this source needs it.
    import datasets

    if Path(name).is_dir():
        loaded = datasets.load_from_disk(name)
        rows = loaded["train"] if isinstance(loaded, datasets.DatasetDict) else loaded
    else:
        rows = datasets.load_dataset(name, split="train", streaming=True)
    # Corpora are far larger than what is asked for: the first rows, twice as many as needed.
    for number, row in zip(range(2 * count), rows, strict=False):
        yield _prompt_and_text(row, f"{name}, row {number}")


def _prompt_and_text(record: Any, place: str) -> tuple[str, str]:
    keys = ("text",) if isinstance(record, dict) and "text" in record else ("prompt", "completion")
    if not isinstance(record, dict) or not all(isinstance(record.get(k), str) for k in keys):
        raise PretrainingTextError(f"{place}: a record needs 'text', or 'prompt' and 'completion'")
    prompt, text = (
        ("", record["text"]) if len(keys) == 1 else (record["prompt"], record["completion"])
    )
    if not (prompt + text).strip():
        raise PretrainingTextError(f"{place}: the text is empty")
    return prompt, text
