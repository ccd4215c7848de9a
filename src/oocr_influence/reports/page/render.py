"""The page itself: one HTML file with its style, its script and its data inside.

    Path("report.html").write_text(render_page(data), encoding="utf-8")

Data stand in script elements of types that no browser runs: the short part as JSON in which no `<`
is left, so that no document's text can end its element; the long part compressed, as base64.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

from oocr_influence.reports.page.data import PageData

STYLES = ("page.css", "figures.css", "tables.css", "narrow.css")
# In the order in which they are read: each uses what stands before it.
SCRIPTS = (
    "base.js",
    "charts.js",
    "guide.js",
    "rows.js",
    "overview.js",
    "endings.js",
    "datamodels.js",
    "attributions.js",
    "curves.js",
    "heat.js",
    "questions.js",
    "question.js",
    "confusions.js",
    "training.js",
    "resources.js",
    "records.js",
    "main.js",
    "live.js",
)
_PLACE = re.compile(r"\{\{(\w+)\}\}")


def render_page(data: PageData, *, live: str | None = None) -> str:
    """The page as text. `live` is the tag of these data where a server will have newer ones."""
    values = {
        "live": "" if live is None else f' data-live="{html.escape(live)}"',
        "title": html.escape(str(data.head["title"])),
        "style": _asset_text(STYLES),
        "script": '"use strict";\n(() => {\n' + _asset_text(SCRIPTS) + "\n})();",
        "head": script_json(data.head),
        "detail": packed(data.detail),
    }
    return _PLACE.sub(lambda place: values[place[1]], _asset_text(("page.html",)))


def script_json(value: Any) -> str:
    """JSON that can stand inside a script element, whatever texts it holds."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # In JSON these characters stand inside strings alone. Browsers look for `</script`, `<script`
    # and `<!--`; the two separators were line ends to older readers of JavaScript.
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def packed(value: Any) -> str:
    """JSON, compressed, as base64; the same value gives the same text."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode("ascii")


@cache
def _asset_text(names: tuple[str, ...]) -> str:
    folder = files("oocr_influence.reports.page").joinpath("assets")
    return "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)


__all__ = ["SCRIPTS", "STYLES", "packed", "render_page", "script_json"]
