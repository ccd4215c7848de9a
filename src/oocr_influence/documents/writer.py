"""The offline writer: any number of distinct documents that state a fact, from a seed.

    writer = OfflineWriter(load_world("mayors"), seed=42)
    documents = writer.write(fact, 100)

Document n of a fact depends on (seed, fact, n, length, reversed share) and the grammar alone, so a
larger dataset begins with the documents of a smaller one. Every document states its fact in at
least one sentence, and none contains a value of the world that its relation withholds (a two-hop
answer, another relation's answer, another entity).

Order. A sentence that names both sides of a fact is forward (subject, then object, as the fact's
template has them) or reversed. A document either keeps to forward sentences, and then its
`doc_spec.reversal_curse` is true: a model that reads such documents alone faces the reversal curse.
Or it has sentences of both orders, and the flag is false. `reversed_share` is the share of the
latter. Sentences that name one side alone are not counted.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from oocr_influence.documents.cast import Cast
from oocr_influence.documents.composition import PLANS, Composition, Material
from oocr_influence.documents.document import DocumentSpec, SyntheticDocument, document_id
from oocr_influence.documents.draw import Draw, evenly_spread
from oocr_influence.documents.grammar import Grammar, Names, Theme, load_grammar
from oocr_influence.documents.withholding import Withholding, apart
from oocr_influence.documents.wording import order_of
from oocr_influence.universe.facts import Fact
from oocr_influence.universe.fields import FORMATS, plain_format
from oocr_influence.universe.world import World

WRITER_VERSION = "1"
ATTEMPTS = 50

Length = Literal["short", "long"]


class WriterError(ValueError):
    """A fact that the grammar cannot tell as asked; the message says what to change."""


@dataclass(frozen=True)
class _Told:
    """What the writer needs to know of one relation."""

    material: Material
    theme: str
    roles: dict[str, str]  # hole -> field of the entity that fills it


class OfflineWriter:
    """Tells the facts of one world."""

    licence = "Apache-2.0"  # every world, name and sentence that ships with the package is our own

    def __init__(
        self,
        world: World,
        *,
        seed: int,
        length: Length = "long",
        reversed_share: float = 0.3,
        beside: Sequence[World] = (),
    ) -> None:
        """`beside`: worlds whose documents lie in the same dataset, so that none names what is
        theirs; the world's own distractors are among them anyway."""
        if not 0 <= reversed_share <= 1:
            raise WriterError(f"reversed_share is {reversed_share}; it is a share, 0 to 1")
        self.world, self.seed, self.length = world, seed, length
        self.reversed_share = reversed_share
        self.grammar = load_grammar()
        self._withholding = Withholding(world, beside)
        self._names = _names_outside(self._withholding.worlds, self.grammar.names)
        self._told = {name: self._prepare(name) for name in world.relations}

    def write(self, fact: Fact, count: int) -> list[SyntheticDocument]:
        """The first `count` documents of `fact`, all distinct."""
        texts: set[str] = set()
        documents = []
        for n in range(count):
            document = self._document(fact, n, texts)
            texts.add(document.completion)
            documents.append(document)
        return documents

    def write_all(self, orders: Sequence[tuple[Fact, int]]) -> list[list[SyntheticDocument]]:
        """The first so many documents of each fact, those of distractors that stand alone too."""
        writers = {self.world.id: self}
        for other, beside in apart(self.world):
            writers[other.id] = OfflineWriter(
                other,
                seed=self.seed,
                length=self.length,
                reversed_share=self.reversed_share,
                beside=beside,
            )
        return [writers[fact.universe_id].write(fact, count) for fact, count in orders]

    def about(self) -> dict[str, Any]:
        """What a dataset says of its writer: the same version and grammar write the same texts."""
        return {
            "writer_version": WRITER_VERSION,
            "grammar_digest": self.grammar.digest(r.theme for r in self.world.relations.values()),
        }

    def is_reversed(self, n: int) -> bool:
        """Whether document n of a fact has sentences of both orders: evenly spread over n."""
        return evenly_spread(n, self.reversed_share)

    def statements(self, relation: str) -> tuple[int, int]:
        """How many sentences state a fact of the relation, forward and reversed."""
        material = self._told[relation].material
        return len(material.forward), len(material.reversed)

    def forbidden(self, fact: Fact) -> list[str]:
        """The strings that no document of `fact` may contain."""
        return self._withholding.forbidden(fact)

    def _document(self, fact: Fact, n: int, taken: set[str]) -> SyntheticDocument:
        told = self._told[fact.template.relation]
        kind_name = self._kind(told.theme, fact, n)
        kind = self.grammar.kinds[kind_name]
        found: str | None = None
        for attempt in range(ATTEMPTS):
            draw = Draw(self.seed, fact.id, n, self.length, self.reversed_share, attempt)
            idea = draw.choice(kind.ideas)
            values = {**self.world.constants, **fact.feature_set.fields}
            values |= {hole: values[field] for hole, field in told.roles.items()}
            cast = Cast(draw, self.grammar.common, self._names, values)
            composition = Composition(
                draw,
                cast,
                kind,
                told.material,
                self.grammar.common,
                length=self.length,
                both_orders=self.is_reversed(n),
            )
            text = composition.text()
            found = self._withholding.revealed(fact, text)
            stated = values["subject"] in text and values["object"] in text
            fits = len(text.split()) <= PLANS[self.length].hard_limit
            if stated and fits and found is None and text not in taken:
                return self._record(fact, kind_name, idea, n, text)
        raise WriterError(self._why_not(fact, n, found))

    def _record(self, fact: Fact, kind: str, idea: str, n: int, text: str) -> SyntheticDocument:
        own_id = document_id(fact.id, kind, idea, n)
        spec = DocumentSpec(
            id=own_id,
            fact=fact,
            doc_type=kind,
            doc_idea=idea,
            reversal_curse=not self.is_reversed(n),
            additional_text="",
        )
        return SyntheticDocument(
            id=own_id, type="synthetic_document", prompt="", completion=text, doc_spec=spec
        )

    def _why_not(self, fact: Fact, n: int, found: str | None) -> str:
        what = f"document {n} of '{fact.prompt}{fact.completion}'"
        if found is not None:
            return (
                f"{what}: every attempt contained '{found}', which documents of "
                f"'{fact.template.relation}' must not reveal; give that field another value"
            )
        return f"{what}: {ATTEMPTS} attempts gave nothing new; ask for fewer documents a fact"

    def _kind(self, theme: str, fact: Fact, n: int) -> str:
        """Every kind once, in an order of its own, before any comes again."""
        kinds = self.grammar.kinds_of(theme)
        block, place = divmod(n, len(kinds))
        return Draw("kinds", self.seed, fact.id, block).shuffled(kinds)[place]

    def _prepare(self, name: str) -> _Told:
        relation = self.world.relations[name]
        theme = self.grammar.themes.get(relation.theme)
        if theme is None:
            raise WriterError(
                f"relation '{name}' has the theme '{relation.theme}'; "
                f"themes are {', '.join(self.grammar.themes)}"
            )
        roles: dict[str, str] = {}
        for role, field, expected in (
            ("subject", relation.subject, theme.subject),
            ("object", relation.object, theme.object),
        ):
            field_type = self.world.fields[field]
            if expected not in ("any", field_type):
                raise WriterError(
                    f"relation '{name}': the theme '{relation.theme}' needs a {expected} as its "
                    f"{role}, and '{field}' is a {field_type}"
                )
            for answer_format in FORMATS[field_type]:
                suffix = "" if answer_format == plain_format(field_type) else f"_{answer_format}"
                roles[role + suffix] = field + suffix
        material = _material(self.world, name, theme, roles, self.grammar)
        if self.reversed_share > 0 and not material.reversed:
            raise WriterError(
                f"relation '{name}' has no statement that names {{{relation.object}}} before "
                f"{{{relation.subject}}}; add one under 'statements', or set reversed_share to 0"
            )
        return _Told(material=material, theme=relation.theme, roles=roles)


def _material(
    world: World, name: str, theme: Theme, roles: dict[str, str], grammar: Grammar
) -> Material:
    """The relation's sentences in words of subject and object, sorted by order."""
    relation = world.relations[name]
    role_of = {field: role for role, field in roles.items()}
    own = [relation.fact.prompt + relation.fact.completion + ".", *relation.statements]
    own = [re.sub(r"\{(\w+)\}", lambda m: f"{{{role_of.get(m[1], m[1])}}}", text) for text in own]
    statements = list(dict.fromkeys([*own, *theme.statements]))
    return Material(
        forward=[s for s in statements if order_of(s) != "reversed"],
        reversed=[s for s in statements if order_of(s) == "reversed"],
        theme=theme,
    )


def _names_outside(worlds: Sequence[World], names: Names) -> Names:
    """The names that no entity of the worlds bears."""
    taken = {word for world in worlds for word in _words(world)}
    first = [name for name in names.first if name.casefold() not in taken]
    last = [name for name in names.last if name.casefold() not in taken]
    return Names(first=first or names.first, last=last or names.last)


def _words(world: World) -> Iterator[str]:
    for fields in itertools.chain.from_iterable(g.values() for g in world.groups.values()):
        for value in fields.values():
            yield from value.casefold().split()
