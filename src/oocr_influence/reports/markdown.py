"""Pieces of Markdown, and values as a person reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

UNKNOWN = "unknown"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """A table; cells are made to fit."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return [*lines, *("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows)]


def fenced(text: str, language: str = "") -> list[str]:
    """A block of code; a longer fence where the text has one itself."""
    fence = "```"
    while fence in text:
        fence += "`"
    return [f"{fence}{language}", *text.splitlines(), fence]


def code(value: Any) -> str:
    """Inline code that a backtick inside does not end."""
    text = str(value)
    mark = "`"
    while mark in text:
        mark += "`"
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{mark}{pad}{text}{pad}{mark}"


def moment(iso: Any) -> str:
    """A moment in UTC to the second; unknown where there is none."""
    try:
        when = datetime.fromisoformat(iso).astimezone(UTC)
    except (TypeError, ValueError):
        return UNKNOWN
    return when.strftime("%Y-%m-%d %H:%M:%S UTC")


def duration(seconds: Any) -> str:
    """`2 h 10 min 1 s`; seconds below a minute with a decimal."""
    if not isinstance(seconds, int | float):
        return UNKNOWN
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours} h " if hours else "") + f"{minutes} min {rest} s"


def size(n_bytes: Any) -> str:
    """`79.1 MB (79,123,456 bytes)`: a unit of thousands as disks are sold, and the number."""
    if not isinstance(n_bytes, int | float):
        return UNKNOWN
    exact = f"{n_bytes:,.0f} bytes"
    return exact if n_bytes < 1e3 else f"{short_size(n_bytes)} ({exact})"


def short_size(n_bytes: float) -> str:
    """`79.1 MB`."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.1f} {unit}"
    return f"{n_bytes:,.0f} bytes"


def memory(n_bytes: Any) -> str:
    """`79.2 GiB`: memory comes in powers of two."""
    return f"{n_bytes / 2**30:.1f} GiB" if isinstance(n_bytes, int | float) else UNKNOWN


def count(n: int, thing: str) -> str:
    """`1 run`, `13,905 documents`."""
    return f"{n:,} {thing}{'' if n == 1 else 's'}"


def value(anything: Any) -> str:
    """An argument as it is written on a command line."""
    if isinstance(anything, str):
        return anything
    if isinstance(anything, float) and anything.is_integer() and abs(anything) < 1e15:
        return str(int(anything))
    if isinstance(anything, list | dict):
        return json.dumps(anything, ensure_ascii=False)
    return str(anything)


def _cell(cell: Any) -> str:
    return str(cell).replace("|", "\\|").replace("\n", " ")
