"""What pages mark as runnable runs, in the order of the page, in one empty folder.

`<!-- runnable -->` before a block of bash or Python: it takes seconds. `<!-- runnable: slow -->`:
it takes longer. `<!-- prints -->` before a block: the one above it prints these lines, and `…`
stands for others. `<!-- file: NAME -->` before a block: its text is that file. Of each page every
test run takes the blocks up to the first slow one, and `make slow` all.

`<!-- after: PAGE -->`, anywhere in a page: it is followed in a copy of the folder that all blocks
of PAGE leave, since what trains models need not be made twice. Such a page is slow as a whole.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {path.stem: path for path in sorted((ROOT / "docs").glob("*.md"))}
MARKED = re.compile(
    r"^<!-- (runnable|runnable: slow|prints|file: \S+) -->\n```(\w*)\n(.*?)^```$", re.M | re.S
)
ANY_MARK = re.compile(r"^<!-- (?:runnable|prints|file)", re.M)
LARGE = 1_000_000
AFTER = re.compile(r"^<!-- after: (\w+) -->$", re.M)


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


def begins_after(page_text):
    """The page in whose folder this one begins, or None."""
    found = AFTER.findall(page_text)
    assert len(found) <= 1, "a page begins after one other"
    return found[0] if found else None


def pages(*, slow):
    """Pages to follow: up to the first slow block, or whole where that is more."""
    texts = {name: path.read_text(encoding="utf-8") for name, path in PAGES.items()}
    found = []
    for name, text in texts.items():
        whole = blocks(text)
        soon = [] if begins_after(text) else quick(whole)
        if whole and (soon != whole if slow else any(b.mark == "runnable" for b in soon)):
            found.append(name)
    return found


def environment(folder):
    """`oocr` and `python` are this checkout's, whatever is installed."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    for name, words in {"oocr": "-m oocr_influence.cli.main ", "python": ""}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words}"$@"\n')
        (programs / name).chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT / "src"),
        "OMP_NUM_THREADS": "1",
        "LAUNCHER_HOST_FOLDER": str(folder / "host"),
        "OOCR_CACHE": str(folder / "cache"),
    }


def follow(found, folder):
    """Run the blocks; what is said to be printed must have been."""
    env, place, said = environment(folder), folder / "here", ""
    place.mkdir(exist_ok=True)
    for block in found:
        if block.mark.startswith("file: "):
            (place / block.mark.removeprefix("file: ")).write_text(block.text, encoding="utf-8")
            continue
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


def kept(source, to):
    """A copy; of weights, which nothing changes in place, a further name."""
    (os.link if Path(source).stat().st_size > LARGE else shutil.copy2)(source, to)


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """A page's folder after all of its blocks, each page followed once."""
    known = {}

    def folder_of(name):
        if name not in known:
            text = PAGES[name].read_text(encoding="utf-8")
            folder, before = tmp_path_factory.mktemp(name), begins_after(text)
            if before:
                shutil.copytree(folder_of(before), folder, dirs_exist_ok=True, copy_function=kept)
            known[name] = None  # where a block fails, pages that begin here fail at once
            follow(blocks(text), folder)
            known[name] = folder
        assert known[name], f"the blocks of {name} do not run"
        return known[name]

    return folder_of


@pytest.mark.parametrize("name", pages(slow=False))
def test_quick_commands_of_a_page_run(name, tmp_path):
    follow(quick(blocks(PAGES[name].read_text(encoding="utf-8"))), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", pages(slow=True))
def test_all_commands_of_a_page_run(name, followed):
    followed(name)


PAGE = """
<!-- file: numbers.txt -->
```
one
two
```
<!-- runnable -->
```bash
oocr world show
cat numbers.txt
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
    assert [block.mark for block in found] == [
        "file: numbers.txt",
        "runnable",
        "prints",
        "runnable: slow",
    ]
    assert quick(found) == found[:3]
    follow(found, tmp_path)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("oocr world show", "oocr world shew"), ("…\ntwo\n", "…\nthree\n"), ("cat", "false")],
)
def test_what_fails_or_prints_otherwise_is_found(tmp_path, right, wrong):
    assert right in PAGE
    with pytest.raises(AssertionError):
        follow(quick(blocks(PAGE.replace(right, wrong))), tmp_path)


def test_a_mark_without_a_block_is_found():
    with pytest.raises(AssertionError, match="right before a block"):
        blocks(PAGE.replace("-->\n```bash", "-->\n\n```bash"))


def test_where_a_page_begins():
    assert begins_after(f"a page\n<!-- after: tutorial -->\n{PAGE}") == "tutorial"
    assert begins_after(PAGE) is None
    for name, path in PAGES.items():
        before = begins_after(path.read_text(encoding="utf-8"))
        assert before is None or (before != name and before in pages(slow=True))
