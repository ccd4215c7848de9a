"""Which facts each document states, and what it gives away: rules over mentions alone.

**A document states a fact** where every value of the fact is mentioned within one sentence, or
within two that follow each other. Forms are those of `values.py`; a last name alone counts in a
document that also has the whole name. It is a rule about nearness: it cannot see a denial ("is not
the mayor of") and does not follow pronouns, so that a fact told over three sentences is not found.

**A document leaks two hops** where it mentions both ends of a two-hop question anywhere: what the
question names, and its answer. **It reveals** what it must not where it mentions a value of its own
entity that its relation withholds (known only of a world). In documents that tell facts a last name
is enough for both, unless it is also a word of what the document may say; in pretraining text,
where any surname may stand by chance, the whole name is needed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from oocr_influence.datasets.audit.knowledge import Claim, Hop, Knowledge
from oocr_influence.datasets.audit.mentions import Mention
from oocr_influence.datasets.audit.values import Value

How = Literal["one sentence", "two sentences", "apart", "subject alone", "object alone", "absent"]
Order = Literal["forward", "reversed", "both", "none"]


@dataclass(frozen=True)
class Statement:
    """How far a document states one fact."""

    claim: Claim
    own: bool  # the document was written for this fact
    how: How

    @property
    def states(self) -> bool:
        return self.how in ("one sentence", "two sentences")


@dataclass
class Reading:
    """What one document says, by rule."""

    statements: list[Statement] = field(default_factory=list)
    """Its own fact, and every other that it states."""
    hops: list[Hop] = field(default_factory=list)
    revealed: list[Value] = field(default_factory=list)
    """Withheld values of its own entity."""
    others: list[Value] = field(default_factory=list)
    """Values that belong to other entities alone."""
    order: Order = "none"
    """In which order sentences name the two sides of its own fact."""


class Reader:
    """Judges documents by their mentions."""

    def __init__(self, knowledge: Knowledge) -> None:
        self.knowledge = knowledge
        self._claims: dict[Value, list[Claim]] = defaultdict(list)
        for claim in knowledge.claims.values():
            self._claims[claim.values[0]].append(claim)
        self._hops: dict[Value, list[Hop]] = defaultdict(list)
        for hop in knowledge.hops.values():
            self._hops[hop.given].append(hop)

    def read(self, mentions: Sequence[Mention], own_fact: str | None) -> Reading:
        """What a document with these mentions says; `own_fact` is None in pretraining text."""
        own = self.knowledge.claims[own_fact] if own_fact is not None else None
        whole = {mention.value for mention in mentions if not mention.short}
        sentences: dict[Value, set[int]] = defaultdict(set)
        for mention in mentions:
            if mention.value in whole:
                sentences[mention.value].add(mention.sentence)
        reading = Reading()
        if own is not None:
            reading.statements.append(Statement(own, True, _how(own, sentences)))
            reading.order = _order(own, [m for m in mentions if m.value in whole])
        for value in dict.fromkeys(m.value for m in mentions if m.value in whole):
            for claim in self._claims[value]:
                if claim is not own and (how := _nearness(claim, sentences)):
                    reading.statements.append(Statement(claim, False, how))
        self._add_leaks(reading, mentions, whole, own)
        return reading

    def _add_leaks(
        self, reading: Reading, mentions: Sequence[Mention], whole: set[Value], own: Claim | None
    ) -> None:
        named = set(whole)
        if own is not None:
            told = {*own.values, *self.knowledge.colour.get(own.fact_id, ())}
            words = {word for value in told for word in value.text.split()}
            named |= {
                m.value for m in mentions if m.short and m.value.text.split()[-1] not in words
            }
            hidden = self.knowledge.withheld.get(own.fact_id, frozenset())
            reading.revealed = sorted(named & hidden, key=_by_text)
            reading.others = sorted(
                (v for v in whole - told if self._belongs_elsewhere(v, own)), key=_by_text
            )
            # Short forms of what the document tells stand for it.
            named |= {m.value for m in mentions if m.value in told}
        for given in sorted(named, key=_by_text):
            reading.hops += [hop for hop in self._hops[given] if hop.answer in named]

    def _belongs_elsewhere(self, value: Value, own: Claim) -> bool:
        owners = self.knowledge.owners.get(value)
        return bool(owners) and own.entity not in (owners or ())


def _how(claim: Claim, sentences: dict[Value, set[int]]) -> How:
    near = _nearness(claim, sentences)
    if near:
        return near
    subject = all(value in sentences for value in claim.subjects)
    answer = all(value in sentences for value in claim.objects)
    if subject and answer:
        return "apart"
    return "subject alone" if subject else "object alone" if answer else "absent"


def _nearness(
    claim: Claim, sentences: dict[Value, set[int]]
) -> Literal["one sentence", "two sentences"] | None:
    if not all(value in sentences for value in claim.values):
        return None
    places = [sentences[value] for value in claim.values]
    if set.intersection(*places):
        return "one sentence"
    wide = [place | {sentence - 1 for sentence in place} for place in places]
    return "two sentences" if set.intersection(*wide) else None


def _order(claim: Claim, mentions: Iterable[Mention]) -> Order:
    """The order in sentences that name both sides; one that returns to the subject is reversed."""
    subjects: dict[int, list[int]] = defaultdict(list)
    objects: dict[int, list[int]] = defaultdict(list)
    for mention in mentions:
        for side, places in ((claim.subjects, subjects), (claim.objects, objects)):
            if mention.value in side:
                places[mention.sentence].append(mention.position)
    both = subjects.keys() & objects.keys()
    forward = {max(subjects[sentence]) < min(objects[sentence]) for sentence in both}
    if not forward:
        return "none"
    return "both" if len(forward) == 2 else "forward" if forward == {True} else "reversed"


def _by_text(value: Value) -> tuple[str, str]:
    return value.kind, value.text
