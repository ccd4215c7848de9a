"""Write docs/reference.md: every command and flag, as the code says them.

    python scripts/reference.py

A command's text is its module's docstring, a flag's the docstring below its field. Flags that a
command has from another one, or that a sweep and a run share, are told once and referred to.
`tests/docs/test_reference.py` fails where the committed page is another than this writes.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from oocr_influence.cli.arguments import CommandArguments, Flag, flags_of
from oocr_influence.cli.main import COMMANDS
from oocr_influence.cli.options import TrainingOptions

EMPTY = '""'
PAGE = Path(__file__).parents[1] / "docs" / "reference.md"

HEAD = """\
# Reference: commands and flags

This page is written out of the code by `python scripts/reference.py`; `oocr COMMAND --help` tells
the same. Columns of results are listed in [results.md](results.md), metrics in
[metrics.md](metrics.md), the files of a run in [architecture.md](architecture.md#a-run-folder),
those of a sweep in [sweeps.md](sweeps.md), keys of a world in [worlds.md](worlds.md).

## How flags are written

- Underscores or dashes: `--batch_size 4`, `--batch-size 4`, `--batch_size=4`. Only whole names
  count; a name that is unknown is an error which says the nearest one.
- What is true or false (bool): `--dry_run`, `--no-dry_run`, `--dry_run False`.
- `None` is a value like another, where the type names it: `--max_grad_norm None`.
- Lists: with commas, as repeated words, or as JSON: `--eval_sets a,b`, `--eval_sets a b`,
  `--eval_sets '["a", "b"]'`.
- A name in capitals is a word without a flag: `oocr verify outputs`.
- Every command takes `--config FILE`, YAML or JSON of these names; flags override it.
- The unit stands in parentheses behind the meaning. Default –: there is none; **required**: it
  must be given.

Exit status: 0 all is well; 1 something that was run or checked is not; 2 the command line or an
input is wrong; 75 a run was stopped early and can be gone on with; 130 interrupted.

## Commands
"""

SHARED = """\
## Training flags

Of every training run: `oocr train_extractive` takes them, and `oocr data_modeling` and `oocr plan`
for each of their runs.
"""


def render() -> str:
    """The page."""
    parts = [HEAD, _contents(), SHARED, _table(flags_of(TrainingOptions))]
    told: dict[type[CommandArguments], str] = {TrainingOptions: "Training flags"}
    texts: set[str] = set()
    for name, (class_name, _) in COMMANDS.items():
        module = importlib.import_module(f"oocr_influence.cli.{name.partition(' ')[0]}")
        arguments = getattr(module, class_name)
        parts.append(f"## oocr {name}\n")
        text = (module.__doc__ or "").strip()
        if text in texts:
            group = next(other for other in COMMANDS if other.split()[0] == name.split()[0])
            parts.append(f"See [`oocr {group}`](#{_anchor(f'oocr {group}')}).\n")
        else:
            parts.append(f"{_prose(text)}\n")
        texts.add(text)
        parts.append(_own_flags(arguments, told))
        told[arguments] = f"oocr {name}"
    return "\n".join(parts)


def _contents() -> str:
    rows = [
        f"| [`oocr {name}`](#{_anchor(f'oocr {name}')}) | {what} |"
        for name, (_, what) in COMMANDS.items()
    ]
    return "\n".join(["| command | what it does |", "|---|---|", *rows, ""])


def _own_flags(arguments: type[CommandArguments], told: dict[type[CommandArguments], str]) -> str:
    """The flags that are not told elsewhere, or are told otherwise there."""
    flags = flags_of(arguments)
    base = next((parent for parent in arguments.__mro__[1:] if parent in told), None)
    if base is None:
        return _table(flags) if flags else "No flags.\n"
    known = {flag.name: flag for flag in flags_of(base)}
    own = [flag for flag in flags if known.get(flag.name) != flag]
    title = told[base]
    shown = f"flags of `{title}`" if title.startswith("oocr") else title.lower()
    return f"All [{shown}](#{_anchor(title)}), and these, or these otherwise:\n\n{_table(own)}"


def _table(flags: list[Flag]) -> str:
    rows = ["| flag | type | default | meaning |", "|---|---|---|---|"]
    for flag in flags:
        default = "–" if flag.default is None else f"`{flag.default or EMPTY}`"
        cells = [
            _written(flag),
            flag.type.replace("|", ", "),
            "**required**" if flag.required else _cell(default),
            _cell(_prose(" ".join(flag.meaning.split()))),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([*rows, ""])


def _written(flag: Flag) -> str:
    """Its names; `--no-x` only where it says anything else than the default does."""
    off = flag.type == "bool" and flag.default == "False"
    ways = [w for w in flag.written.split(" / ") if not (off and w.startswith("--no-"))]
    return " ".join(f"`{way}`" for way in ways)


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _anchor(title: str) -> str:
    """The anchor that forges give a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _prose(text: str) -> str:
    """Docstrings as Markdown: pages become links, names become code; indented lines stay."""
    lines = [line if line.startswith("    ") else _marked(line) for line in text.split("\n")]
    return "\n".join(lines)


def _marked(line: str) -> str:
    pieces = re.split(r"(`[^`]*`|docs/\w+\.md)", line)
    return "".join(
        _link(piece) if i % 2 else _NAME.sub(_code, piece) for i, piece in enumerate(pieces)
    )


# A word that is a flag or a variable, or holds what Markdown would take for markup.
_NAME = re.compile(r"""[^\s(;'"]*(?:--\w|[$_*<])[^\s;'"]*""")


def _code(found: re.Match[str]) -> str:
    name = found[0].rstrip(".,:")
    while name.endswith(")") and name.count("(") < name.count(")"):
        name = name[:-1].rstrip(".,:")
    return f"`{name}`{found[0][len(name) :]}"


def _link(piece: str) -> str:
    name = piece.removeprefix("docs/")
    return piece if piece.startswith("`") else f"[{name}]({name})"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
