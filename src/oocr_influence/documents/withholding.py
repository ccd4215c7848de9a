"""What a document must not contain: the values of a world that its relation withholds.

Documents of a relation may name its subject, its object and the fields stated as colour. All else
is withheld: another relation's answer, the far end of a two-hop question, any other entity. Else a
question that should need two documents, or none, would be answered by one.
"""

from __future__ import annotations

import re

from oocr_influence.universe.facts import Fact
from oocr_influence.universe.fields import FORMATS
from oocr_influence.universe.world import World


class Withholding:
    """Answers for one world; the values of all its entities are read once."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._values = _values_by_owner(world)

    def forbidden(self, fact: Fact) -> list[str]:
        """The strings that no document of `fact` may contain."""
        relation = self.world.relations[fact.template.relation]
        told = [fact.feature_set.fields[f] for f in (relation.subject, relation.object)]
        told += [fact.feature_set.fields[f] for f in relation.colour]
        withheld = set(self.world.withheld(fact.template.relation))
        own = fact.feature_set.id
        return [
            value
            for (owner, field), values in self._values.items()
            if owner != own or field in withheld
            for value in values
            # "York" cannot be forbidden where the document is about "New York".
            if not any(value in allowed for allowed in told)
        ]

    def own(self, fact: Fact) -> list[str]:
        """The withheld values of the fact's own entity, each in its plain format."""
        fields = self.world.withheld(fact.template.relation)
        forbidden = set(self.forbidden(fact))
        plain = [self._values[fact.feature_set.id, field][0] for field in fields]
        return [value for value in dict.fromkeys(plain) if value in forbidden]


def contains(text: str, words: str) -> bool:
    """Whether `text` contains `words` as whole words."""
    # Most texts do not hold the letters at all: the slow question is asked of the rest.
    return words in text and re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text) is not None


def _values_by_owner(world: World) -> dict[tuple[str, str], list[str]]:
    """The telling strings of each entity's fields, without articles, by (entity id, field)."""
    values: dict[tuple[str, str], list[str]] = {}
    for features in map(world.feature_set, (*world.entities, *world.controls, *world.untold)):
        for field, field_type in world.fields.items():
            holes = [world.hole(field, f) for f in FORMATS[field_type]]
            values[features.id, field] = [features.fields[h].removeprefix("the ") for h in holes]
    return values
