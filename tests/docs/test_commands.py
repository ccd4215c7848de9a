"""What pages mark as runnable runs, in the order of the page, in one empty folder.

`<!-- runnable -->` before a block of bash or Python: it takes seconds. `<!-- runnable: slow -->`:
it takes longer. `<!-- prints -->` before a block: the one above it prints these lines, and `…`
stands for others. Of each page every test run takes the blocks up to the first slow one, and
`make slow` all.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
MARKED = re.compile(
    r"^<!-- (runnable|runnable: slow|prints) -->\n```(\w*)\n(.*?)^```$", re.M | re.S
)
ANY_MARK = re.compile(r"^<!-- (?:runnable|prints)", re.M)


@dataclass(frozen=True)
class Block:
    mark: str
    language: str
    text: str


def blocks(page_text):
    found = [Block(*match.groups()) for match in MARKED.finditer(page_text)]
    assert len(found) == len(ANY_MARK.findall(page_text)), "a mark stands right before a block"
    return found


def quick(found):
    slow = [i for i, block in enumerate(found) if block.mark == "runnable: slow"]
    return found[: slow[0]] if slow else found


def marked(choose):
    """(page, blocks) of the pages of which anything is chosen."""
    pages = [(page, choose(blocks(page.read_text(encoding="utf-8")))) for page in PAGES]
    return [pytest.param(chosen, id=page.stem) for page, chosen in pages if chosen]


def environment(folder):
    """`oocr` and `python` are this checkout's, whatever is installed."""
    programs = folder / "programs"
    programs.mkdir()
    for name, words in {"oocr": "-m oocr_influence.cli.main ", "python": ""}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words}"$@"\n')
        (programs / name).chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "OMP_NUM_THREADS": "1",
        "LAUNCHER_HOST_FOLDER": str(folder / "host"),
        "OOCR_CACHE": str(folder / "cache"),
    }


def follow(found, folder):
    """Run the blocks; what is said to be printed must have been."""
    env, place, said = environment(folder), folder / "here", ""
    place.mkdir()
    for block in found:
        if block.mark == "prints":
            missing = [line for line in lines_of(block.text) if line not in lines_of(said)]
            assert not missing, f"{missing} is not in\n{said}"
            continue
        shell = ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else ["python", "-c"]
        done = subprocess.run(
            [*shell, block.text],
            cwd=place,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        said = done.stdout
        assert done.returncode == 0, f"{block.text}\n{said}"


def lines_of(text):
    return [line.strip() for line in text.splitlines() if line.strip() not in ("", "…")]


@pytest.mark.parametrize("found", marked(quick))
def test_quick_commands_of_a_page_run(found, tmp_path):
    follow(found, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("found", marked(lambda found: found if quick(found) != found else []))
def test_all_commands_of_a_page_run(found, tmp_path):
    follow(found, tmp_path)


PAGE = """
<!-- runnable -->
```bash
oocr world show
echo one; echo two
```
<!-- prints -->
```
…
two
```
<!-- runnable: slow -->
```python
import oocr_influence
```
"""


def test_pages_are_followed(tmp_path):
    found = blocks(PAGE)
    assert [block.mark for block in found] == ["runnable", "prints", "runnable: slow"]
    assert quick(found) == found[:2]
    follow(found, tmp_path)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("oocr world show", "oocr world shew"), ("\ntwo\n", "\nthree\n"), ("echo one", "false")],
)
def test_what_fails_or_prints_otherwise_is_found(tmp_path, right, wrong):
    assert right in PAGE
    with pytest.raises(AssertionError):
        follow(quick(blocks(PAGE.replace(right, wrong))), tmp_path)


def test_a_mark_without_a_block_is_found():
    with pytest.raises(AssertionError, match="right before a block"):
        blocks(PAGE.replace("-->\n```bash", "-->\n\n```bash"))
