"""Plain text cut into documents, between paragraphs, or between sentences of a long one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator


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
