"""What an audit's page says, part by part, before anyone renders it.

`report` is the plain JSON of `oocr audit --json`.
"""

from __future__ import annotations

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
