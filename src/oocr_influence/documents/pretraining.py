"""Ordinary text to mix the facts into: files, Hugging Face datasets, or what is at hand.

    read_pretraining(["stdlib", "package:numpy"], 1000, seed=42)     # documentation at hand
    read_pretraining(["web.jsonl.zst=0.7", "books/=0.3"], Amount(2_000_000, "words"), seed=42)

Records of JSON lines, Parquet and Hugging Face datasets are documents as they are. Plain text is
cut into documents (`passages.py`), shorter than asked where text is short. No text is used twice,
and too little is an error: copies, near-duplicates, empty texts and those that name one of `names`
are left out and counted. The choice (`choice.py`) depends on the seed and on the texts, not on the
order of rows, files or sources.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from oocr_influence.documents.choice import (
    CHARS_PER_UNIT,
    DOCUMENTS,
    SPARE,
    Amount,
    Candidate,
    Smallest,
    accepted,
    screened,
)
from oocr_influence.documents.document import PretrainingDocument, make_pretraining_document
from oocr_influence.documents.minhash import NearTexts
from oocr_influence.documents.passages import cut_passages
from oocr_influence.documents.screening import Names, Screen
from oocr_influence.documents.text_files import PretrainingTextError as PretrainingTextError
from oocr_influence.documents.text_sources import (
    PACKAGE,
    STANDARD_LIBRARY,
    Source,
    open_source,
    parse_sources,
)

# What every installation of ours has: numpy's documentation is read where Python's own is short.
AT_HAND = (STANDARD_LIBRARY, f"{PACKAGE}numpy")
MIN_CHARS, MAX_CHARS = 80, 5000
NOT_STATED = "not stated"
READ = 4  # times what is wanted, of what is too large to be read whole


@dataclass(frozen=True, kw_only=True)
class PretrainingText:
    """Documents, and where they come from, as it is written into a dataset's metadata."""

    documents: list[PretrainingDocument]
    provenance: dict[str, Any]


@dataclass
class _Mix:
    """What all pools share: settings, and what was taken and left out so far."""

    seed: int
    names: Names
    min_chars: int
    max_chars: int
    most_rows: int | None
    sources: list[Source] = field(default_factory=list)
    taken: set[bytes] = field(default_factory=set)
    near: NearTexts = field(default_factory=NearTexts)
    left_out: list[Counter[str]] = field(default_factory=list)
    aims: list[int] = field(default_factory=list)

    def add(self, source: Source) -> int:
        self.sources.append(source)
        self.left_out.append(Counter())
        return len(self.sources) - 1


def read_pretraining(
    sources: Sequence[str],
    amount: int | Amount,
    *,
    seed: int,
    licence: str | None = None,
    min_chars: int = MIN_CHARS,
    max_chars: int = MAX_CHARS,
    text_field: str | None = None,
    names: Collection[str] = (),
    most_rows: int | None = None,
) -> PretrainingText:
    """`amount` (documents, where it is a number) of distinct text, drawn by `seed`.

    Sources with shares give their shares, each of its own text. Without, all are one pool: every
    record of them is a candidate, and plain text is added where records are too few. `text_field`
    is where records have their text; of each source at most `most_rows` records are read (None: all
    of files, READ times what is wanted of a dataset on the hub). Raises PretrainingTextError where
    the sources hold too little.
    """
    if not 0 < min_chars <= max_chars:
        raise PretrainingTextError(f"min_chars {min_chars} and max_chars {max_chars} are no range")
    wanted = Amount(amount) if isinstance(amount, int) else amount
    if wanted.n == 0:
        return PretrainingText(documents=[], provenance={"sources": [], "documents": 0})
    mix = _Mix(seed, Names(names), min_chars, max_chars, most_rows)
    chosen: list[Candidate] = []
    pools = _pools(sources, wanted)
    for pool, part in pools:
        chosen += _choose([mix.add(open_source(name, text_field)) for name in pool], part, mix)
    chosen.sort(key=lambda candidate: candidate.key)
    documents = [make_pretraining_document(c.text, c.prompt) for c in chosen]
    described = [
        _described(place, mix, [c for c in chosen if c.place == place], wanted, licence)
        for place in range(len(mix.sources))
    ]
    provenance = {
        "sources": [source for source in described if source["texts"]],
        "documents": len(documents),
        "characters": sum(len(c.whole) for c in chosen),
        **_in_units(chosen, wanted),
        "asked_for": [{"of": pool, wanted.unit: part.n} for pool, part in pools],
        "choice": "the smallest blake2b digests of seed and words (bottom-k)",
        "seed": seed,
        "min_chars": min_chars,
        "max_chars": max_chars,
        # What plain text was cut to: less than allowed where there was little of it.
        "aim_chars": min(mix.aims, default=None),
        "left_out": dict(sum(mix.left_out, Counter())),
    }
    return PretrainingText(documents=documents, provenance=provenance)


def _pools(sources: Sequence[str], wanted: Amount) -> list[tuple[list[str], Amount]]:
    """Sources that are chosen from together, and how much: one pool, or one a share."""
    named = parse_sources(sources)
    if any(source.share is None for source in named):
        return [([source.name for source in named], wanted)]
    named = sorted(named, key=lambda source: source.name)
    # Largest remainders, so that the parts sum to the whole.
    exact = [wanted.n * (source.share or 0) for source in named]
    parts = [int(part) for part in exact]
    by_rest = sorted(range(len(named)), key=lambda i: (parts[i] - exact[i], named[i].name))
    for i in by_rest[: wanted.n - sum(parts)]:
        parts[i] += 1
    pairs = zip(named, parts, strict=True)
    return [([s.name], Amount(part, wanted.unit, wanted.measure)) for s, part in pairs if part > 0]


def _choose(places: list[int], wanted: Amount, mix: _Mix) -> list[Candidate]:
    """As much as is wanted of these sources."""
    screen = Screen(mix.names, mix.taken)
    smallest = Smallest(wanted)
    for place in sorted(places, key=lambda place: mix.sources[place].name):
        source = mix.sources[place]
        most_chars = None
        most_rows = mix.most_rows
        if source.endless and most_rows is None:
            if wanted.unit == DOCUMENTS:
                most_rows = READ * wanted.n
            else:
                most_chars = READ * CHARS_PER_UNIT * wanted.n
        for record in source.records(mix.seed, most_rows, most_chars):
            smallest.add(screened(record, place, screen, mix.left_out[place], mix.seed))
    chosen, have = accepted(smallest.in_order(), wanted, mix.near, mix.left_out)
    if have < wanted.n:
        rest = Amount(wanted.n - have, wanted.unit, wanted.measure)
        more, amount = _cut_enough(places, rest, screen, mix)
        chosen, have = [*chosen, *more], have + amount
    else:
        for place in places:
            if next(iter(mix.sources[place].passages), None) is not None:
                mix.sources[place].read_whole = False
    if have < wanted.n:
        raise PretrainingTextError(_too_little(places, chosen, have, wanted, mix))
    mix.taken |= {candidate.digest for candidate in chosen}
    return chosen


def _cut_enough(
    places: list[int], wanted: Amount, screen: Screen, mix: _Mix
) -> tuple[list[Candidate], int]:
    """Documents of plain text, as long as the text allows, and how much they are."""
    passages = _gathered(places, wanted, mix)
    total = sum(len(p) for texts in passages.values() for text in texts for p in text)
    if total == 0:
        return [], 0
    # Where text is short, begin at a length at which it would hardly suffice.
    aim = mix.max_chars
    if wanted.unit == DOCUMENTS:
        aim = max(mix.min_chars, min(aim, 2 * total // wanted.n))
    while True:
        pieces = [
            (("", piece), place)
            for place, texts in passages.items()
            for piece in cut_passages(texts, mix.min_chars, mix.max_chars, aim)
        ]
        last = aim == mix.min_chars or wanted.unit != DOCUMENTS
        if last or len(pieces) >= wanted.n:
            again, left_out = screen.copy(), [Counter[str]() for _ in mix.sources]
            usable = [screened(p, i, again, left_out[i], mix.seed) for p, i in pieces]
            candidates = sorted((c for c in usable if c), key=lambda c: c.key)
            near = mix.near.copy()
            chosen, have = accepted(candidates, wanted, near, left_out)
            if last or have >= wanted.n:
                mix.near = near
                mix.aims.append(aim)
                for counts, more in zip(mix.left_out, left_out, strict=True):
                    counts.update(more)
                return chosen, have
        aim = max(mix.min_chars, aim * 9 // 10)


def _gathered(places: list[int], wanted: Amount, mix: _Mix) -> dict[int, list[list[str]]]:
    """Plain text of the sources, in their order, until there is enough to choose from."""
    longest = mix.max_chars if wanted.unit == DOCUMENTS else CHARS_PER_UNIT
    missing = SPARE * wanted.n * longest
    gathered: dict[int, list[list[str]]] = {}
    for place in places:
        source = mix.sources[place]
        gathered[place] = []
        for passage in source.passages:
            gathered[place].append(passage)
            source.texts += 1
            missing -= sum(len(paragraph) for paragraph in passage)
            if missing <= 0:
                source.read_whole = False
                return gathered
    return gathered


def _too_little(
    places: list[int], chosen: list[Candidate], have: int, wanted: Amount, mix: _Mix
) -> str:
    names = " ".join(mix.sources[place].name for place in places)
    counts = sum((mix.left_out[place] for place in places), Counter[str]())
    left_out = ", ".join(f"{n} {reason}" for reason, n in sorted(counts.items()))
    named = "documents" if wanted.unit == DOCUMENTS else wanted.unit
    rows = "" if all(mix.sources[p].read_whole for p in places) else ", raise --pretraining_rows"
    return (
        f"{names}: {have} distinct {named} where {wanted.n} {named} are asked for"
        + (f" (left out: {left_out})" if left_out else "")
        + f"; ask for at most {have}, name more text{rows}, or lower the least length "
        f"({mix.min_chars} characters)"
    )


def _described(
    place: int, mix: _Mix, chosen: list[Candidate], wanted: Amount, licence: str | None
) -> dict[str, Any]:
    """One source in the metadata."""
    source = mix.sources[place]
    documents = sorted(make_pretraining_document(c.text, c.prompt).id for c in chosen)
    shards = len(source.shards)
    return {
        "source": source.name,
        "licence": source.licence or licence or NOT_STATED,
        **source.about,
        "texts": source.texts,
        "read_whole": source.read_whole and source.shards_read == shards,
        **({"shards": shards, "shards_read": source.shards_read} if shards > 1 else {}),
        "documents": len(chosen),
        "characters": sum(len(c.whole) for c in chosen),
        **_in_units(chosen, wanted),
        "left_out": dict(mix.left_out[place]),
        # Over the sorted ids, each the sha256 of a document's text.
        "digest": hashlib.sha256("".join(documents).encode()).hexdigest(),
    }


def _in_units(chosen: Sequence[Candidate], wanted: Amount) -> dict[str, int]:
    if wanted.unit == DOCUMENTS:
        return {}
    return {wanted.unit: sum(candidate.amount for candidate in chosen)}
