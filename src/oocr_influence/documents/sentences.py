"""The sentences of a document that is drawn, and what a `Variety` then changes of them.

A sentence has a core, a wording of the stock spelled out, and a frame around it ("In short: …", a
quotation). A sentence's place in the document keeps its frame; its core may be exchanged.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from oocr_influence.documents.draw import Draw
from oocr_influence.documents.wording import as_sentence, holes, is_role
from oocr_influence.universe.fields import FieldType

CORE = "Q\0"  # stands for the core in a frame: a capital letter, as a sentence begins with
STATEMENTS = ("forward", "reversed")

# What the subject is called where its name is not said: by theme, else by its field's type.
REFERENCES = {"mayor": "the city"}
REFERENCES_BY_TYPE: dict[FieldType, str] = {
    "person": "this person",
    "place": "the place",
    "organisation": "the company",
    "date": "the day in question",
    "year": "the year in question",
    "text": "the one in question",
}
# Only a name can stand here: "a firm called …", "the name of …", "the …" before a family's name.
_NAME_NEEDED = re.compile(r"(called|named|names? of|\b[Tt]he) \{subject")


@dataclass
class Sentence:
    """One sentence; `stock` names the list of wordings, `cards`, that its own is taken from."""

    stock: str
    cards: Sequence[str]
    wording: str
    core: str
    frame: str = CORE
    quoted: bool = False

    @property
    def text(self) -> str:
        core = self.core
        if self.quoted:
            core = core[:-1] + "," if core.endswith(".") else core
            # Quotations inside a quotation are told apart by their marks.
            core = core.replace('"', "'")
        return self.frame.replace(CORE, core)


@dataclass(frozen=True)
class Changes:
    """What becomes of the sentences of every document of one relation."""

    paraphrases: Mapping[str, Sequence[str]]  # by stock: the wordings to keep to
    in_stock_order: bool
    name_repetition: float
    reference: str  # what the subject is called where its name is not said

    def apply(
        self,
        sentences: Sequence[Sentence],
        say: Callable[[str], str],
        names: SubjectNames,
        key: str,
    ) -> None:
        """Change the sentences of one document, in place; `key` is the document's own."""
        for sentence in sentences:
            kept = self.paraphrases.get(sentence.stock)
            if kept is not None:
                sentence.wording = kept[sentence.cards.index(sentence.wording) % len(kept)]
                sentence.core, sentence.cards = as_sentence(say(sentence.wording)), kept
        if self.in_stock_order:
            _in_stock_order(sentences)
        if self.name_repetition < 1:
            draw = Draw("name_repetition", key)
            for sentence in _naming_again(sentences):
                # Drawn for each, so that a smaller share leaves out what a larger one does, too.
                if not draw.chance(self.name_repetition):
                    sentence.core = as_sentence(names.left_out(sentence.core, self.reference))


class SubjectNames:
    """Finds the subject in a sentence by any form of its name, but not inside the object's."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def left_out(self, text: str, reference: str) -> str:
        return self._pattern.sub(lambda m: reference if m["subject"] else m[0], text)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        v = self._values
        subjects = {text for hole, text in v.items() if is_role(hole, "subject")}
        if "subject_last_name" in v:
            subjects.add(f"{v['subject_first_name']} {v['subject_last_name']}")
        objects = {text for hole, text in v.items() if is_role(hole, "object")}
        subject = f"(?:(?:[Tt]he )?(?:city|town|place|company|firm) of )?{_any(subjects)}"
        return re.compile(rf"(?<!\w)(?:(?P<object>{_any(objects)})|(?P<subject>{subject}))(?!\w)")


def _any(forms: Iterable[str]) -> str:
    longest_first = sorted(forms, key=lambda form: (-len(form), form))
    # A value's first letter is a capital where it begins a sentence.
    either_case = [
        f"[{re.escape(f[0].upper())}{re.escape(f[0].lower())}]{re.escape(f[1:])}"
        for f in longest_first
    ]
    return f"(?:{'|'.join(either_case)})"


def _in_stock_order(sentences: Sequence[Sentence]) -> None:
    """The places of a stock's sentences stay; the cores come in the order of the stock."""
    by_stock: dict[str, list[Sentence]] = defaultdict(list)
    for sentence in sentences:
        by_stock[sentence.stock].append(sentence)
    for places in by_stock.values():
        cards = places[0].cards
        cores = sorted(((s.wording, s.core) for s in places), key=lambda core: cards.index(core[0]))
        for place, (wording, core) in zip(places, cores, strict=True):
            place.wording, place.core = wording, core


def _naming_again(sentences: Sequence[Sentence]) -> Iterable[Sentence]:
    """The sentences that name the subject and need not: all but the first statement of each order,
    by which the document states its fact."""
    stated = set()
    for sentence in sentences:
        if sentence.stock in STATEMENTS and sentence.stock not in stated:
            stated.add(sentence.stock)
        elif _may_leave_out_name(sentence.wording):
            yield sentence


@cache
def _may_leave_out_name(wording: str) -> bool:
    names_it = any(is_role(hole, "subject") for hole in holes(wording))
    return names_it and not _NAME_NEEDED.search(wording)
