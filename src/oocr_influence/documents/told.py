"""What a text tells of a fact, by rule: is it stated, in which order, what else slips out.

    rules = FactRules.of(withholding, fact, both_orders=False, words=550)
    rules.faults(text)       # [] or the faults, as kinds and as sentences for whoever writes it

The rules know nothing of who wrote the text. **Stated**: two sentences next to each other, or one,
name the subject and the object in full (a date in any of its formats). **Order**: a sentence that
names both, in full or in part, is forward if its last mention of the subject stands before its
first of the object, and reversed otherwise. **Withheld**: no value that the relation withholds, as
written or in capitals, once typographic hyphens, blanks and quotes are made plain. All this finds
words, not meanings: a riddle whose answer is withheld passes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

from oocr_influence.documents.withholding import Withholding
from oocr_influence.universe.facts import Fact
from oocr_influence.universe.fields import FORMATS
from oocr_influence.universe.world import World

SHORTEST, LONGEST = 0.5, 1.8  # of the words asked for

_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*\s+|\n+")
_DISCLAIMER = re.compile(
    r"\bas an ai\b|\blanguage model\b|\bfictional\b|\bfictitious\b|\bhypothetical\b"
    r"|\bthis (?:text|document|letter|article|story) (?:is|was) (?:invented|generated)\b",
    re.IGNORECASE,
)
_BLANK = re.compile(
    r"\[(?:insert|your|name|date|time|city|place|company|author|phone|address|e-?mail|link|url"
    r"|number|signature)\b[^\]\n]{0,60}\]|\{[a-z_]+\}|</?[a-z]+>|\blorem ipsum\b|_{4,}",
    re.IGNORECASE,
)
# Made plain before withheld words are looked for: what models like to write instead.
_PLAIN = str.maketrans(
    {**dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"), **dict.fromkeys("\u2018\u2019", "'")}
)

Role = Literal["subject", "object"]


@dataclass(frozen=True)
class Fault:
    """What is wrong with a text: a kind to count by, and words for whoever writes it anew."""

    kind: str
    words: str


@dataclass(frozen=True)
class Mention:
    """A place in the text that names one side of the fact; `full`: not by a part of a name."""

    start: int
    end: int
    role: Role
    full: bool


@dataclass(frozen=True)
class FactRules:
    """What a document of one fact has to keep to."""

    subject: str
    object: str
    forms: dict[str, tuple[Role, bool]]  # what may be read as a mention -> role, whether in full
    revealed: Callable[[str], list[str]]  # what a text has that is withheld
    left_out: tuple[str, ...]  # the same as whoever writes it is told
    both_orders: bool
    words: int

    @classmethod
    def of(
        cls, withholding: Withholding, fact: Fact, *, both_orders: bool, words: int
    ) -> FactRules:
        world = withholding.world
        relation = world.relations[fact.template.relation]
        fields = fact.feature_set.fields
        return cls(
            subject=fields[relation.subject],
            object=fields[relation.object],
            forms=_forms(world, fact),
            revealed=partial(withholding.all_revealed, fact, capitals=True),
            left_out=tuple(world.must_not_reveal(fact.template.relation, fact.feature_set)),
            both_orders=both_orders,
            words=words,
        )

    def faults(self, text: str) -> list[Fault]:
        """All that is wrong with `text`; kinds: length, not_stated, order, withheld, disclaimer,
        blank."""
        return [
            Fault(kind, words)
            for kind, words in (
                ("length", self._length(text)),
                ("not_stated", self._not_stated(text)),
                ("order", self._order(text)),
                ("withheld", self._withheld(text)),
                ("disclaimer", self._found(_DISCLAIMER, text)),
                ("blank", self._found(_BLANK, text)),
            )
            if words is not None
        ]

    def orders(self, text: str) -> list[Literal["forward", "reversed"]]:
        """The order of each sentence that names both sides."""
        found: list[Literal["forward", "reversed"]] = []
        for mentions in self._by_sentence(text):
            subjects = [m.start for m in mentions if m.role == "subject"]
            objects = [m.start for m in mentions if m.role == "object"]
            if subjects and objects:
                found.append("forward" if subjects[-1] < objects[0] else "reversed")
        return found

    def states(self, text: str) -> bool:
        sentences = list(self._by_sentence(text))
        both = {"subject", "object"}
        return any(
            {m.role for mentions in sentences[i : i + 2] for m in mentions if m.full} == both
            for i in range(len(sentences))
        )

    def _length(self, text: str) -> str | None:
        n = len(text.split())
        if SHORTEST * self.words <= n <= LONGEST * self.words:
            return None
        return f"it had {n} words where about {self.words} are wanted"

    def _not_stated(self, text: str) -> str | None:
        if self.states(text):
            return None
        return f'no sentence named both "{self.subject}" and "{self.object}", spelled like this'

    def _order(self, text: str) -> str | None:
        orders = set(self.orders(text))
        if self.both_orders:
            if orders == {"forward", "reversed"}:
                return None
            return (
                f'it did not have both a sentence that names "{self.subject}" before '
                f'"{self.object}" and one that names them the other way round'
            )
        if "reversed" not in orders:
            return None
        return f'a sentence named "{self.object}" before "{self.subject}"'

    def _withheld(self, text: str) -> str | None:
        plain = unicodedata.normalize("NFKC", text).translate(_PLAIN)
        plain = re.sub(r"\s+", " ", plain)
        found = self.revealed(plain)
        return f"it mentioned {', '.join(found[:3])}" if found else None

    @staticmethod
    def _found(pattern: re.Pattern[str], text: str) -> str | None:
        match = pattern.search(text)
        return f'it contained "{match[0]}"' if match else None

    def _by_sentence(self, text: str) -> Iterator[list[Mention]]:
        mentions = list(self._mentions(text))
        # A full stop inside a name ends no sentence.
        ends = [
            match.end()
            for match in _SENTENCE_END.finditer(text)
            if not any(m.start < match.end() <= m.end for m in mentions)
        ]
        start = 0
        for end in [*ends, len(text)]:
            if text[start:end].strip():
                yield [m for m in mentions if start <= m.start < end]
            start = end

    def _mentions(self, text: str) -> Iterator[Mention]:
        for match in self._pattern.finditer(text):
            form = match[0] if match[0] in self.forms else match[0][0].swapcase() + match[0][1:]
            role, full = self.forms[form]
            yield Mention(match.start(), match.end(), role, full)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        # Longest first, so that a company named after its founder does not name the founder.
        longest_first = sorted(self.forms, key=len, reverse=True)
        either_case = [
            f"[{re.escape(f[0].upper() + f[0].lower())}]{re.escape(f[1:])}" for f in longest_first
        ]
        return re.compile(rf"(?<!\w)(?:{'|'.join(either_case)})(?!\w)")


def _forms(world: World, fact: Fact) -> dict[str, tuple[Role, bool]]:
    """Every form of either side; one that could be either is none."""
    relation = world.relations[fact.template.relation]
    forms: dict[str, tuple[Role, bool]] = {}
    shared = set()
    roles: tuple[tuple[Role, str], ...] = (
        ("subject", relation.subject),
        ("object", relation.object),
    )
    for role, field in roles:
        field_type = world.fields[field]
        for i, answer_format in enumerate(FORMATS[field_type]):
            form = fact.feature_set.fields[world.hole(field, answer_format)].removeprefix("the ")
            if forms.get(form, (role, True))[0] != role:
                shared.add(form)
            forms.setdefault(form, (role, i == 0 or field_type == "date"))
    return {form: found for form, found in forms.items() if form not in shared}
