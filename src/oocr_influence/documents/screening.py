"""Which pretraining texts are left out: empty ones, copies, and those that name a world's entities.

A copy is a text of the same words: case, blanks and punctuation do not count. A text names an
entity where it holds one of the world's names as whole words, as spelled or in capitals.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Iterator

from oocr_influence.universe.world import World

EMPTY, DUPLICATE, NEAR, NAMES = "empty", "duplicate", "near_duplicate", "names_an_entity"
_WORD = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """The text's words without case."""
    return _without_case(_WORD.findall(text))


def _without_case(words: list[str]) -> list[str]:
    # One call for all words, not one a word.
    return " ".join(words).casefold().split(" ") if words else []


def entity_names(world: World) -> list[str]:
    """What would give away that a text speaks of the world: of all its groups and distractors.

    Full names of persons and organisations, and texts of more than one word that a relation tells
    or tells of. Places are not among them: the capital of a country is in many a text.
    """
    names = {
        name
        for told in (world, *(distractor.told for distractor in world.distractors.values()))
        for name in _names(told)
    }
    return sorted(names)


def _names(world: World) -> Iterator[str]:
    relations = world.relations.values()
    told = {field for relation in relations for field in (relation.subject, relation.object)}
    for features in (world.feature_set(key) for group in world.groups.values() for key in group):
        for field, field_type in world.fields.items():
            name = features.fields.get(world.hole(field), "").removeprefix("the ")
            n_words = len(_WORD.findall(name))
            named = field_type in ("person", "organisation") and n_words > 0
            if named or (field_type == "text" and field in told and n_words > 1):
                yield name


class Names:
    """Finds names in texts; the time depends on the text, not on how many names there are."""

    def __init__(self, names: Collection[str]) -> None:
        self._by_first: dict[str, set[tuple[str, ...]]] = defaultdict(set)
        for name in names:
            for spelled in (name, name.upper()):
                words = tuple(_WORD.findall(spelled))
                if words:
                    self._by_first[words[0]].add(words)

    def are_in(self, words: list[str]) -> bool:
        """Whether a name is among the words, which keep their case."""
        if self._by_first.keys().isdisjoint(words):
            return False
        for place, word in enumerate(words):
            for name in self._by_first.get(word, ()):
                if tuple(words[place : place + len(name)]) == name:
                    return True
        return False


class Screen:
    """What has been seen so far, and the names to look for."""

    def __init__(self, names: Names, taken: Collection[bytes] = ()) -> None:
        self._names = names
        self._seen = set(taken)

    def copy(self) -> Screen:
        """One that goes on from here by itself."""
        return Screen(self._names, self._seen)

    def fault(self, text: str) -> tuple[str | None, bytes]:
        """Why the text is left out, or None, and the digest of its words."""
        words = _WORD.findall(text)
        folded = " ".join(_without_case(words))
        digest = hashlib.blake2b(folded.encode(), digest_size=10).digest()
        if not words:
            return EMPTY, digest
        if digest in self._seen:
            return DUPLICATE, digest
        self._seen.add(digest)
        return (NAMES if self._names.are_in(words) else None), digest
