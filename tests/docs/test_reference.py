"""docs/reference.md is what scripts/reference.py writes, and leaves out no flag."""

import importlib
import importlib.util
from pathlib import Path

import pytest

from oocr_influence.cli.arguments import flags_of
from oocr_influence.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")


def script():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def flags(command):
    module = importlib.import_module(f"oocr_influence.cli.{command.partition(' ')[0]}")
    return flags_of(getattr(module, COMMANDS[command][0]))


def sections():
    """The text below each heading of the second level."""
    parts = PAGE.split("\n## ")[1:]
    return {title: text for title, _, text in (part.partition("\n") for part in parts)}


def test_the_page_is_what_the_script_writes():
    assert script().render() == PAGE, "run: python scripts/reference.py"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_is_told_with_its_meaning_and_default(command):
    told = sections()[f"oocr {command}"]
    if "Training flags" in told or "(#training-flags)" in told:
        told += sections()["Training flags"]
    if "(#oocr-data_modeling)" in told:
        told += sections()["oocr data_modeling"] + sections()["Training flags"]
    for flag in flags(command):
        assert flag.meaning, f"{flag.name} says nothing of itself"
        name = flag.written.split(" / --no-")[0].split(" / ")[-1]
        rows = [line for line in told.splitlines() if line.startswith("|") and f"`{name}`" in line]
        default = "**required**" if flag.required else f"`{flag.default}`"
        assert any(default in row for row in rows) or flag.default in (None, ""), flag.name


def test_names_that_markdown_would_change_are_code():
    marked = script()._prose
    assert marked("say --x_y (see docs/a_b.md), or <file>_*.json.") == (
        "say `--x_y` (see [a_b.md](a_b.md)), or `<file>_*.json`."
    )
    assert marked("    oocr --x_y docs/a.md") == "    oocr --x_y docs/a.md"
