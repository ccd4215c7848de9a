"""An audit as one page, for a terminal or a browser.

    print(render_text(report))
    Path("audit.html").write_text(render_html(report))

`report` is the plain JSON of `oocr audit --json`.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_SETS_SHOWN = 20
Report = Mapping[str, Any]


@dataclass(frozen=True)
class Block:
    """One part of the page."""

    title: str
    sentences: Sequence[str] = ()
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    long_rows: Sequence[Sequence[str]] = field(default=())
    """The same table in full, for a page on which it can be folded away."""


def blocks(report: Report) -> Iterator[Block]:
    """The page's parts, in reading order."""
    yield _verdict(report)
    yield _documents(report)
    yield _statements(report)
    yield _leaks(report)
    yield _duplicates(report)
    yield _balance(report)
    yield _ids_and_questions(report)
    yield _wording(report)


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


def _verdict(report: Report) -> Block:
    checks = report["checks"]
    broken = [check for check in checks if not check["ok"]]
    name = report.get("dataset", "this dataset")
    verdict = (
        "within every limit" if not broken else f"{len(broken)} of {len(checks)} limits broken"
    )
    return Block(
        f"Audit of {name}: {verdict}",
        [f"Facts come from {report['facts_from']}."],
        ["", "what", "found", "limit", "flag"],
        [
            [
                "ok" if check["ok"] else "BROKEN",
                check["what"],
                _number(check["found"]),
                _limit(check),
                f"--{check['name']}",
            ]
            for check in checks
        ],
    )


def _documents(report: Report) -> Block:
    counts = report["counts"]
    return Block(
        "What there is",
        [
            f"{counts['facts']:,} facts are looked for; {counts['eval_sets']:,} sets ask "
            f"{counts['questions']:,} questions."
        ],
        ["documents", "number", "words", "exact repeats", "near repeats"],
        [
            [
                group.replace("_", "-"),
                f"{number:,}",
                f"{counts['words'][group]:,}",
                f"{report['duplicates']['exact'][group]:,}",
                f"{report['duplicates']['near'][group]:,}",
            ]
            for group, number in counts["documents"].items()
        ],
    )


def _statements(report: Report) -> Block:
    stated, order = report["statements"], report["statements"]["order"]
    how = ", ".join(f"{n:,} {name}" for name, n in stated["how"].items()) or "no documents"
    return Block(
        "Do documents state their fact?",
        [
            f"{stated['state_their_fact']:,} of {stated['documents']:,} do ({how}).",
            f"Of {order['one_order']:,} documents marked as keeping to one order, "
            f"{order['one_order_but_both']:,} have a sentence in the other; of "
            f"{order['both_orders']:,} marked as having both, {order['both_orders_but_one']:,} "
            "have no reversed sentence.",
        ],
        ["document", "fact", "found"],
        [[_id(e), e["fact"], e["how"]] for e in stated["examples"]],
    )


def _leaks(report: Report) -> Block:
    sections = {
        "two hops": report["two_hop_leaks"],
        "withheld": report["withheld"],
        "another fact": report["other_facts"],
        "another entity": report["other_entities"],
    }
    hops, withheld, facts, others = (sum(s["documents"].values()) for s in sections.values())
    unknown = "" if report["withheld"]["known"] else " (unknown without a world)"
    return Block(
        "What documents must not say",
        [
            f"{hops:,} documents hold both ends of a two-hop question; {withheld:,} reveal what "
            f"their relation withholds{unknown}; {facts:,} state a fact that they were not written "
            f"for; {others:,} name another entity."
        ],
        ["document", "of", "what", "names"],
        [
            [_id(e), e["group"], what, "; ".join(e.get("names", e.get("states", [])))]
            for what, section in sections.items()
            for e in section["examples"]
        ],
    )


def _duplicates(report: Report) -> Block:
    return Block(
        "Repeats",
        ["Near repeats share half or more of their 5-grams (Jaccard index) with an earlier text."],
        ["document", "of", "repeats", "Jaccard"],
        [
            [_id(e), e["group"], e["repeats"][:12], f"{e['jaccard']:.2f}"]
            for e in report["duplicates"]["examples"]
        ],
    )


def _balance(report: Report) -> Block:
    balance = report["balance"]
    missing = balance["facts_without_documents"]
    sentences = [f"{balance['facts_with_documents']:,} facts have documents."]
    if missing:
        named = "; ".join(fact["fact"] for fact in missing[:5])
        sentences.append(f"{len(missing):,} facts of the world have none: {named} …")
    unit = balance["unit"]
    return Block(
        "Balance over facts",
        sentences,
        ["relation", "facts", "documents a fact", f"{unit} a fact", "of one order a fact"],
        [
            [
                relation,
                f"{row['facts']:,}",
                _spread(row["documents_a_fact"]),
                _spread(row["tokens_a_fact"]),
                _spread(row["one_order_a_fact"]),
            ]
            for relation, row in balance["relations"].items()
        ],
    )


def _ids_and_questions(report: Report) -> Block:
    ids, questions = report["ids"], report["questions"]
    answers = report["answers_in_pretraining"]
    examples = ", ".join(f"{e['answer']} ({e['documents']})" for e in answers["examples"])
    shared = questions["sets_with_shared_answers"]
    return Block(
        "Ids and questions",
        [
            f"{ids['faults']:,} ids are faulty{_kinds(ids)}.",
            f"{questions['faults']:,} questions are faulty{_kinds(questions)}; in {len(shared):,} "
            "sets several questions have the same answer.",
            f"{answers['found']:,} of {answers['answers']:,} answers stand in pretraining text"
            + (f", in so many documents: {examples}." if examples else "."),
        ],
        ["where", "fault", "what"],
        [
            *([e["id"][:12], e["fault"], e["what"]] for e in ids["examples"]),
            *(
                [f"{e['set']}[{e['question']}]", e["fault"], e["what"]]
                for e in questions["examples"]
            ),
        ],
    )


def _wording(report: Report) -> Block:
    sets: Mapping[str, Any] = report["wording"]
    by_kind = Counter(row["kind"] for row in sets.values())
    trained = Counter(row["kind"] for row in sets.values() if row["trained"])
    told = ", ".join(f"{trained[kind]} of {n} {kind}" for kind, n in by_kind.items())
    rows = [
        [
            name,
            row["kind"],
            "trained" if row["trained"] else "",
            str(row["synthetic"]["longest"]),
            str(row["pretraining"]["longest"]),
            row["synthetic"]["text"],
        ]
        for name, row in sets.items()
    ]
    # The two sets of a template ask the same question of their own.
    shown = [row for row in rows if row[2] and not row[0].endswith("_with_fs")]
    sentences = [
        f"Sets with a question whose own wording documents hold (4 of 5 words in one run): {told}."
    ]
    if len(shown) > _SETS_SHOWN:
        sentences.append(f"The first {_SETS_SHOWN} of {len(shown)}, without their few-shot twins:")
    return Block(
        "Wording that documents share with questions",
        sentences,
        ["set", "kind", "wording", "longest run", "in pretraining", "words"],
        shown[:_SETS_SHOWN],
        long_rows=rows,
    )


def _kinds(section: Report) -> str:
    told = ", ".join(f"{n:,} {name}" for name, n in section["by_kind"].items())
    return f" ({told})" if told else ""


def _id(example: Report) -> str:
    return str(example["id"])[:12]


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{100 * value:.2f} %"


def _limit(check: Report) -> str:
    if check["limit"] is None:
        return "none"
    sign = "≥" if check["name"].startswith("min_") else "≤"
    return f"{sign} {_number(check['limit'])}"


def _spread(values: Report) -> str:
    if values["least"] == values["most"]:
        return f"{values['most']:,}"
    return f"{values['mean']:,.0f} ({values['least']:,} to {values['most']:,})"


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    first, *others = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    return [first, "-" * (sum(widths) + 2 * len(widths) - 2), *others]


def _html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "\n".join(
        "<tr>"
        + "".join(
            f'<td class="{"bad" if cell == "BROKEN" else ""}">{html.escape(cell)}</td>'
            for cell in row
        )
        + "</tr>"
        for row in rows
    )
    return f"<div><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


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
.bad {{ color: light-dark(#b00020, #ff8a80); font-weight: 600; }}
summary {{ cursor: pointer; margin: .8rem 0; }}
</style>
<body>
{body}
</body>
</html>
"""
