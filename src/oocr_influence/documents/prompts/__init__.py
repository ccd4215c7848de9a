"""What a language model is asked, word for word: the text files of this folder, and their holes.

    fill("types", fact="The mayor of Tokyo is Marian Holloway", count=10, ...)

`types`, `ideas`, `document` and `revision` are the four requests; the other files are passages of
them, used where they apply. A hole is a name in braces; braces inside a value are text.
"""

from __future__ import annotations

import re
import string
from functools import cache
from importlib import resources

from oocr_influence.universe.facts import sha256_hex


def fill(name: str, **values: str | int) -> str:
    """The text of `<name>.txt` with its holes filled, without blanks around it.

    Raises KeyError naming a hole without a value, ValueError naming a value without a hole.
    """
    text = _texts()[name]
    unused = values.keys() - holes(name)
    if unused:
        raise ValueError(f"{name}.txt has no hole {', '.join(sorted(unused))}")
    # A passage that does not apply leaves no gap.
    return re.sub(r"\n{3,}", "\n\n", text.format_map(values)).strip()


def holes(name: str) -> set[str]:
    """The names of the holes of `<name>.txt`."""
    return {hole for _, hole, _, _ in string.Formatter().parse(_texts()[name]) if hole}


def prompts_digest() -> str:
    """First 16 hex digits of the sha256 of all the texts: another wording is another version."""
    return sha256_hex("\n".join(f"{name}\n{text}" for name, text in _texts().items()))[:16]


@cache
def _texts() -> dict[str, str]:
    folder = resources.files(__package__)
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".txt")), key=lambda f: f.name)
    return {f.name.removesuffix(".txt"): f.read_text(encoding="utf-8") for f in files}
