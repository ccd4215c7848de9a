"""An audit as one page, for a terminal or a browser.

    print(render_text(report))
    Path("audit.html").write_text(render_html(report))

`report` is the plain JSON of `oocr audit --json`.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from oocr_influence.reports.audit_blocks import Report, blocks


def render_text(report: Report) -> str:
    """The page for a terminal."""
    parts = []
    for block in blocks(report):
        lines = [block.title, "=" * len(block.title), *block.sentences]
        if block.rows:
            lines += _aligned([block.header, *block.rows])
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def render_html(report: Report) -> str:
    """The page as one file without scripts or outside references, light or dark as the reader."""
    parts = []
    for place, block in enumerate(blocks(report)):
        level = "h1" if place == 0 else "h2"
        parts.append(f"<{level}>{html.escape(block.title)}</{level}>")
        parts += [f"<p>{html.escape(sentence)}</p>" for sentence in block.sentences]
        if block.rows:
            parts.append(_html_table(block.header, block.rows))
        if block.long_rows:
            table = _html_table(block.header, block.long_rows)
            parts.append(f"<details><summary>all {len(block.long_rows)}</summary>{table}</details>")
    title = html.escape(str(report.get("dataset", "audit")))
    return _PAGE.format(title=title, body="\n".join(parts))


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    first, *others = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    return [first, "-" * (sum(widths) + 2 * len(widths) - 2), *others]


def _html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    numbers = [all(map(_NUMBER.fullmatch, column)) for column in zip(*rows, strict=True)]

    def line(tag: str, cells: Sequence[str]) -> str:
        kinds = zip(cells, numbers, strict=True)
        marked = (f"<{tag}{_marks(c, number)}>{html.escape(c)}</{tag}>" for c, number in kinds)
        return f"<tr>{''.join(marked)}</tr>"

    body = "\n".join(line("td", row) for row in rows)
    return f"<div><table><thead>{line('th', header)}</thead><tbody>{body}</tbody></table></div>"


def _marks(cell: str, is_number: bool) -> str:
    marks = ["number"] * is_number + ["bad"] * (cell == "BROKEN") + ["flag"] * (cell[:2] == "--")
    return f' class="{" ".join(marks)}"' if marks else ""


# As the blocks write them: 1,234; ≥ 99.00 %; 498 (469 to 525); what there is none of.
_NUMBER = re.compile(r"([≤≥] )?[\d,.]+( %)?|[\d,]+ \([\d,]+ to [\d,]+\)|–|none")

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --line: light-dark(#d5d5d0, #45484d); }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 2rem auto; padding: 0 1rem;
  background: light-dark(#fdfdfb, #1b1d20); color: light-dark(#222, #e3e3e0); }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.15rem; margin-top: 2.2rem; }}
div {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }}
td {{ overflow-wrap: anywhere; min-width: 1.5rem; }}
td:nth-child(2):not(.number) {{ min-width: 9rem; }}
td.number, .flag {{ white-space: nowrap; }} .number {{ text-align: right; }}
.bad {{ color: light-dark(#b00020, #ff8a80); font-weight: 600; }}
summary {{ cursor: pointer; margin: .8rem 0; }}
</style>
<body>
{body}
</body>
</html>
"""
