"""Links between pages lead somewhere, and the index leads to every page."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def prose(text):
    """A page without its code."""
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def anchors(text):
    """What forges call the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def broken(page, text):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists():
            yield f"{link}: no such file"
        elif anchor and anchor not in anchors(target.read_text(encoding="utf-8")):
            yield f"{link}: no such heading"


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    assert list(broken(page, page.read_text(encoding="utf-8"))) == []


def test_a_broken_link_is_found():
    text = "[a](missing.md) [b](#no-heading) [c](metrics.md#nothing) [d](metrics.md#your-own)"
    assert len(list(broken(DOCS / "x.md", text.replace("[b](#no-heading) ", "")))) == 2
    assert list(broken(DOCS / "metrics.md", "[b](#no-heading)")) == ["#no-heading: no such heading"]


def test_the_index_leads_to_every_page():
    linked = set(re.findall(r"\]\((\w+\.md)", (DOCS / "README.md").read_text(encoding="utf-8")))
    assert {page.name for page in PAGES} - {"README.md"} == linked
