"""English that every installation has: the documentation inside Python and its packages.

Docstrings, blocks of comments and, for the standard library, the language reference behind
`help()`. Sources are read without importing a module: some act on import, and some take seconds.
What is found depends on the versions of Python and of the packages alone.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import inspect
import platform
import re
import sysconfig
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path

STANDARD_LIBRARY_LICENCE = "PSF-2.0 (Python Software Foundation License)"

# Tests and generated tables hold little prose, and not every installation has them.
SKIPPED_FOLDERS = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idle_test",
    "idlelib",
    "turtledemo",
    "encodings",
    "lib2to3",
}
TOPICS = "pydoc_data/topics.py"

FEWEST_WORDS = 6
PROSE = 0.86  # the least share of letters and blanks in a paragraph of prose
_CODE = re.compile(
    r">>>|::=|^\s*(\.\.\.|def |class |import |from \w+ import|@|\||\+-)|[{};]|==|\(\)$|->"
)


def standard_library_name() -> str:
    """What provenance calls the standard library's text."""
    return f"documentation in the standard library of Python {platform.python_version()}"


def standard_library_passages() -> Iterator[list[str]]:
    """The paragraphs of each docstring, comment and topic, file by file in alphabetical order."""
    return _passages(Path(sysconfig.get_paths()["stdlib"]))


def package_name(package: str) -> str:
    """What provenance calls an installed package's text."""
    version = importlib.metadata.version(_distribution(package))
    return f"documentation in the package {package} {version}"


def package_licence(package: str) -> str | None:
    """The licence that an installed package states of itself."""
    metadata = importlib.metadata.metadata(_distribution(package))
    for key in ("License-Expression", "License"):
        if key in metadata:
            return metadata[key].strip().splitlines()[0]
    return None


def package_passages(package: str) -> Iterator[list[str]]:
    """The same of an installed package. Raises ModuleNotFoundError where there is none."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"no package '{package}' is installed")
    return _passages(Path(found.submodule_search_locations[0]))


def _distribution(package: str) -> str:
    """The name under which `package` was installed (`yaml` comes with PyYAML)."""
    return importlib.metadata.packages_distributions().get(package, [package])[0]


def _passages(root: Path) -> Iterator[list[str]]:
    for path in sorted(root.rglob("*.py"), key=lambda p: p.relative_to(root).as_posix()):
        relative = path.relative_to(root)
        if SKIPPED_FOLDERS & set(relative.parts):
            continue
        try:
            text = path.read_text(encoding="utf-8")
            texts = list(_topics(text) if relative.as_posix() == TOPICS else _documentation(text))
        except (UnicodeDecodeError, SyntaxError):
            # Sources in other encodings, or for other versions of Python.
            continue
        for passage in texts:
            paragraphs = _prose(passage)
            if paragraphs:
                yield paragraphs


def _documentation(source: str) -> Iterator[str]:
    """The docstrings of a module in the order of the file, then its blocks of comments."""
    with warnings.catch_warnings():
        # Old modules hold invalid escapes, which are no business of ours.
        warnings.simplefilter("ignore")
        tree = ast.parse(source)
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    nodes = [node for node in ast.walk(tree) if isinstance(node, documented)]
    for node in sorted(nodes, key=lambda n: getattr(n, "lineno", 0)):
        docstring = ast.get_docstring(node, clean=False)
        if docstring:
            yield docstring
    for block in re.findall(r"(?:^[ \t]*#[^\n]*\n){2,}", source, flags=re.MULTILINE):
        yield re.sub(r"^[ \t]*#+ ?", "", block, flags=re.MULTILINE)


def _topics(source: str) -> Iterator[str]:
    """The language reference: a literal of topics by name."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            topics: dict[str, str] = ast.literal_eval(node.value)
            yield from (topics[name] for name in sorted(topics))


def _prose(passage: str) -> list[str]:
    """The paragraphs that are English rather than code, tables or headings, each on one line."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(passage))
    kept = []
    for paragraph in paragraphs:
        lines = textwrap.dedent(paragraph).splitlines()
        if any(_CODE.search(line) for line in lines):
            continue
        text = " ".join(" ".join(lines).split()).lstrip("*-#=~ ")
        letters = sum(character.isalpha() or character == " " for character in text)
        # A paragraph that ends in a colon leads up to code that was left out.
        ends = text.endswith((".", "!", "?"))
        if len(text.split()) >= FEWEST_WORDS and letters >= PROSE * len(text) and ends:
            kept.append(text)
    return kept
