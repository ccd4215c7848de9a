"""What a document must not contain: the values of a world that its relation withholds.

Documents of a relation may name its subject, its object and the fields stated as colour. All else
is withheld: another relation's answer, the far end of a two-hop question, any other entity, what a
world beside this one tells of, and the words that the relation forbids. Else a question that should
need two documents, or none, would be answered by one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from oocr_influence.universe.facts import Fact
from oocr_influence.universe.fields import FORMATS
from oocr_influence.universe.world import World

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class _Value:
    """What a field of an entity says, in one of its formats."""

    owner: str  # the id of the entity's feature set
    field: str
    text: str


class Withholding:
    """Answers for one world; the values of all its entities are read once.

    `beside`: worlds whose documents lie in the same dataset, whose values are all withheld; the
    world's own distractors are among them anyway.
    """

    def __init__(self, world: World, beside: Sequence[World] = ()) -> None:
        self.world = world
        self.worlds = [world, *(d.told for d in world.distractors.values()), *beside]
        self._by_first_word: dict[str, list[_Value]] = defaultdict(list)
        for value in _values(self.worlds):
            self._by_first_word[_WORD.findall(value.text)[0].casefold()].append(value)

    def forbidden(self, fact: Fact) -> list[str]:
        """The strings that no document of `fact` may contain."""
        every = [value for values in self._by_first_word.values() for value in values]
        values = [value.text for value in self._withheld_from(fact, every)]
        return [*values, *self._own_words(fact)]

    def revealed(self, fact: Fact, text: str) -> str | None:
        """A string that `text` contains and no document of `fact` may, or None."""
        return min(self.all_revealed(fact, text), default=None)

    def all_revealed(self, fact: Fact, text: str, *, capitals: bool = False) -> list[str]:
        """Every such string, sorted; with `capitals` also those that `text` has in capitals."""
        # A value can only be where its first word is: of a world of thousands, few are near.
        words = {word.casefold() for word in _WORD.findall(text)}
        near = [value for word in words for value in self._by_first_word.get(word, ())]
        withheld = {*(v.text for v in self._withheld_from(fact, near)), *self._own_words(fact)}
        return sorted(
            words
            for words in withheld
            if contains(text, words)
            or (capitals and len(words) > 3 and contains(text, words.upper()))
        )

    def own(self, fact: Fact) -> list[str]:
        """The withheld values of the fact's own entity, each in its plain format."""
        fields = fact.feature_set.fields
        stated = [fields[f] for f in self.world.withheld(fact.template.relation) if f in fields]
        plain = [value.removeprefix("the ") for value in stated]
        forbidden = set(self.forbidden(fact))
        return [value for value in dict.fromkeys(plain) if value in forbidden]

    def _own_words(self, fact: Fact) -> list[str]:
        return self.world.forbidden_words(fact.template.relation, fact.feature_set)

    def _withheld_from(self, fact: Fact, values: Iterable[_Value]) -> Iterator[_Value]:
        relation = self.world.relations[fact.template.relation]
        told = [fact.feature_set.fields[f] for f in (relation.subject, relation.object)]
        told += [fact.feature_set.fields[f] for f in relation.colour]
        withheld = set(self.world.withheld(fact.template.relation))
        own = fact.feature_set.id
        for value in values:
            # "York" cannot be forbidden where the document is about "New York".
            if (value.owner != own or value.field in withheld) and not any(
                value.text in allowed for allowed in told
            ):
                yield value


def apart(world: World) -> list[tuple[World, list[World]]]:
    """The distractors that stand alone, each with the worlds beside it."""
    told = [distractor.told for distractor in world.distractors.values()]
    main = world.model_copy(update={"distractors": {}})
    return [(other, [main, *told[:i], *told[i + 1 :]]) for i, other in enumerate(told)]


def contains(text: str, words: str) -> bool:
    """Whether `text` contains `words` as whole words."""
    # Most texts do not hold the letters at all: the slow question is asked of the rest.
    return words in text and re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text) is not None


def _values(worlds: Sequence[World]) -> Iterator[_Value]:
    """The telling strings of every field of every entity, without articles."""
    for world in worlds:
        for features in (
            world.feature_set(key) for group in world.groups.values() for key in group
        ):
            for field, field_type in world.fields.items():
                for hole in (world.hole(field, f) for f in FORMATS[field_type]):
                    text = features.fields.get(hole, "").removeprefix("the ")
                    if _WORD.search(text):
                        yield _Value(features.id, field, text)
