"""Commands that pages show, runnable or not, are commands, and their flags are flags."""

import importlib
import re
from pathlib import Path

import pytest

from oocr_influence.cli.arguments import flags_of
from oocr_influence.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOWN = re.compile(r"^\s*(?:\$ |\w+\$\s+|\.venv/bin/)?(?:oocr|python experiments/(\w+)\.py) (.*)$")


def shown(text):
    """The words behind `oocr` of each command in the blocks of a page."""
    for block in re.findall(r"```\w*\n(.*?)```|((?:^    .*\n)+)", text, re.DOTALL | re.MULTILINE):
        for line in "".join(block).replace("\\\n", " ").splitlines():
            found = SHOWN.match(line)
            if found:
                yield f"{found[1] or ''} {found[2]}".split()


def flags(command):
    module = importlib.import_module(f"oocr_influence.cli.{command.partition(' ')[0]}")
    return {
        word.lstrip("-").replace("-", "_")
        for flag in flags_of(getattr(module, COMMANDS[command][0]))
        for word in flag.written.split(" / ")
    } | {"config", "help"}


def faults(words):
    command = next((c for c in (" ".join(words[:2]), words[0]) if c in COMMANDS), None)
    if command is None:
        yield f"oocr {words[0]}: no such command"
        return
    for word in words:
        name = re.match(r"--?([a-z][\w-]*)", word)
        if name and name[1].replace("-", "_") not in flags(command):
            yield f"oocr {command}: no flag {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_flags_of_a_page_exist(page):
    text = page.read_text(encoding="utf-8")
    assert [fault for words in shown(text) for fault in faults(words)] == []


def test_most_pages_show_some():
    assert sum(1 for page in PAGES if list(shown(page.read_text(encoding="utf-8")))) > 15


def test_what_does_not_exist_is_found():
    page = "```bash\noocr reprot outputs\n$ oocr report outputs \\\n  --figure\n```\n"
    found = [fault for words in shown(page) for fault in faults(words)]
    assert found == ["oocr reprot: no such command", "oocr report: no flag --figure"]
