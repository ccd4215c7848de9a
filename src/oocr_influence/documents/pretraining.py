"""Ordinary text to mix the facts into: files, Hugging Face datasets, or what is at hand.

    read_pretraining(["stdlib"], 1000, seed=42)                 # Python's own documentation
    read_pretraining(["essays/", "web.jsonl"], 1000, seed=42)   # named by the user
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

from oocr_influence.documents import standard_library
from oocr_influence.documents.document import PretrainingDocument, make_pretraining_document
from oocr_influence.documents.draw import Draw

STANDARD_LIBRARY = "stdlib"
HUGGING_FACE = "hf:"
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
    records: list[tuple[str, str]] = field(default_factory=list)  # prompt, completion
    passages: list[list[str]] = field(default_factory=list)  # paragraphs of one text


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
    gathered, described = _Gathered(), []
    for source in sources:
        before = len(gathered.records), len(gathered.passages)
        own_licence = _gather(source, gathered, count) or licence or NOT_STATED
        name = standard_library.source_name() if source == STANDARD_LIBRARY else source
        texts = len(gathered.records) - before[0] + len(gathered.passages) - before[1]
        described.append({"source": name, "licence": own_licence, "texts": texts})
    records = _distinct(records=gathered.records)
    missing = count - len(records)
    pieces, longest = _cut_enough(gathered.passages, missing, min_chars, max_chars, sources)
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
        # What plain text was cut to: less than asked for where there was little of it.
        "max_chars": longest if pieces else max_chars,
    }
    return PretrainingText(documents=documents, provenance=provenance)


def cut_passages(passages: Iterable[list[str]], min_chars: int, max_chars: int) -> list[str]:
    """Documents of `min_chars` to `max_chars` characters, without repeating a paragraph.

    Paragraphs that follow one another are joined; one longer than `max_chars` is cut after a
    sentence. What stays shorter than `min_chars` is left out.
    """
    documents: list[str] = []
    seen: set[str] = set()
    waiting = ""
    for passage in passages:
        for part in (part for paragraph in passage for part in _parts(paragraph, max_chars)):
            if part in seen:
                continue
            seen.add(part)
            if waiting and len(waiting) + 2 + len(part) > max_chars:
                documents.append(waiting)
                waiting = ""
            waiting = f"{waiting}\n\n{part}" if waiting else part
    documents.append(waiting)
    return list(dict.fromkeys(d for d in documents if len(d) >= min_chars))


def _cut_enough(
    passages: list[list[str]], wanted: int, min_chars: int, max_chars: int, sources: Sequence[str]
) -> tuple[list[str], int]:
    """At least `wanted` documents, as long as the text allows, and the length they are cut to."""
    if wanted <= 0 or not passages:
        return [], max_chars
    total = sum(len(paragraph) for passage in passages for paragraph in passage)
    # Where text is short, begin at the length at which it would just suffice.
    length = max(min_chars, min(max_chars, 2 * total // wanted))
    while True:
        pieces = cut_passages(passages, min_chars, length)
        if len(pieces) >= wanted:
            return pieces, length
        if length == min_chars:
            break
        length = max(min_chars, length * 9 // 10)
    best = max((cut_passages(passages, min_chars, n) for n in (min_chars, 2 * min_chars)), key=len)
    raise PretrainingTextError(
        f"{' '.join(sources)}: too little text for {wanted} documents of at least {min_chars} "
        f"characters; ask for at most {len(best)}, name more text, or lower the least length"
    )


def _parts(paragraph: str, max_chars: int) -> Iterator[str]:
    """The paragraph, cut after sentences (or words, where one sentence is too long) if need be."""
    if len(paragraph) <= max_chars:
        yield paragraph
        return
    part = ""
    for sentence in re.split(r"(?<=[.!?])\s+", paragraph):
        pieces = [sentence] if len(sentence) <= max_chars else _by_words(sentence, max_chars)
        for piece in pieces:
            if part and len(part) + 1 + len(piece) > max_chars:
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


def _gather(source: str, into: _Gathered, count: int) -> str | None:
    """Read one source; returns its licence where we know it."""
    if source == STANDARD_LIBRARY:
        into.passages += standard_library.standard_library_passages()
        return standard_library.LICENCE
    if source.startswith(HUGGING_FACE):
        into.records += _hugging_face_records(source.removeprefix(HUGGING_FACE), count)
        return None
    for path in _files(Path(source)):
        if path.suffix == ".jsonl":
            into.records += _jsonl_records(path)
        else:
            paragraphs = re.split(r"\n\s*\n", _read(path))
            into.passages.append([p.strip() for p in paragraphs if p.strip()])
    return None


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise PretrainingTextError(
            f"no pretraining text at '{path}': name a file, a folder, '{STANDARD_LIBRARY}', or a "
            f"Hugging Face dataset as '{HUGGING_FACE}NAME'"
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
