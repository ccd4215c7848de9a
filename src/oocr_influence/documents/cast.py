"""Who and what a document speaks of: its entity, and a cast that stays the same throughout."""

from __future__ import annotations

from collections.abc import Mapping

from oocr_influence.documents.draw import Deck, Draw
from oocr_influence.documents.grammar import Common, Names
from oocr_influence.documents.wording import as_sentence, spell_out

PEOPLE = ("writer", "witness", "other", "friend", "chair", "editor", "guest", "interviewer")


class Cast:
    """Fills the holes of one document.

    `{subject}`, `{object}` and the entity's other fields come from `values`; people, clubs and
    streets are drawn when first named and then kept; everything else is drawn at each use.
    """

    def __init__(self, draw: Draw, common: Common, names: Names, values: Mapping[str, str]) -> None:
        self._draw, self._common = draw, common
        self._values = dict(values)
        self._first, self._last = Deck(draw, names.first), Deck(draw, names.last)

    def say(self, wording: str, **values: str) -> str:
        """The wording spelled out; `values` fill holes of this call alone."""
        return spell_out(wording, lambda hole: values.get(hole) or self._fill(hole), self._draw)

    def sentence(self, wording: str, **values: str) -> str:
        """The same, as a sentence: its first letter in upper case."""
        return as_sentence(self.say(wording, **values))

    def _fill(self, hole: str) -> str:
        if hole in self._values:
            return self._values[hole]
        if hole.endswith("_capital"):
            return as_sentence(self._fill(hole.removesuffix("_capital")))
        if hole in self._common.each:
            return self.say(self._draw.choice(self._common.each[hole]))
        if hole in self._common.once:
            return self._keep(hole, self._unused(hole))
        person = hole.removesuffix("_first").removesuffix("_last")
        if person not in PEOPLE:
            raise KeyError(f"no hole {{{hole}}} in the writer's grammar")
        first, last = self._first.next(), self._last.next()
        self._keep(person, f"{first} {last}")
        self._keep(f"{person}_first", first)
        self._keep(f"{person}_last", last)
        return self._values[hole]

    def _unused(self, hole: str) -> str:
        for _ in range(10):
            value = self.say(self._draw.choice(self._common.once[hole]))
            if value not in self._values.values():
                break
        return value

    def _keep(self, hole: str, value: str) -> str:
        self._values[hole] = value
        return value
