"""The offline writer: any number of distinct documents that state a fact, from a seed.

    writer = OfflineWriter(load_world("mayors"), seed=42)
    documents = writer.write(fact, 100)

Document n of a fact depends on (seed, fact, n, length, reversed share, variety) and the grammar
alone, so a larger dataset begins with the documents of a smaller one. Every document states its
fact in at least one sentence, and none contains a value of the world that its relation withholds (a
two-hop answer, another relation's answer, another entity). `write_all` draws anew what nearly
repeats an earlier document of the dataset: there the earlier ones decide, too.

Order. A sentence that names both sides of a fact is forward (subject, then object, as the fact's
template has them) or reversed. A document either keeps to forward sentences, and then its
`doc_spec.reversal_curse` is true: a model that reads such documents alone faces the reversal curse.
Or it has sentences of both orders, and the flag is false. `reversed_share` is the share of the
latter. Sentences that name one side alone are not counted.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from oocr_influence.documents.cast import Cast
from oocr_influence.documents.composition import Composition
from oocr_influence.documents.document import DocumentSpec, SyntheticDocument, document_id
from oocr_influence.documents.draw import Draw, evenly_spread
from oocr_influence.documents.grammar import Names, load_grammar
from oocr_influence.documents.near_duplicates import redraw
from oocr_influence.documents.plan import Length, plan_of
from oocr_influence.documents.sentences import SubjectNames
from oocr_influence.documents.telling import WriterError, told
from oocr_influence.documents.variety import Variety
from oocr_influence.documents.withholding import Withholding, apart
from oocr_influence.universe.facts import Fact
from oocr_influence.universe.world import World

WRITER_VERSION = "1"
ATTEMPTS = 50


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
        variety: Variety | None = None,
        beside: Sequence[World] = (),
    ) -> None:
        """`beside`: worlds whose documents lie in the same dataset, so that none names what is
        theirs; the world's own distractors are among them anyway.

        Raises LengthError, or WriterError where a relation cannot be told as asked.
        """
        if not 0 <= reversed_share <= 1:
            raise WriterError(f"reversed_share is {reversed_share}; it is a share, 0 to 1")
        self.world, self.seed, self.length = world, seed, length
        self.reversed_share = reversed_share
        self.variety = variety or Variety()
        self.redrawn = 0  # documents that nearly repeated an earlier one, once all are written
        self._plan = plan_of(length)
        self.grammar = load_grammar()
        self._withholding = Withholding(world, beside)
        self._names = _names_outside(self._withholding.worlds, self.grammar.names)
        self._told = {
            name: told(
                world,
                name,
                self.grammar,
                seed=seed,
                both_orders=reversed_share > 0,
                variety=self.variety,
            )
            for name in world.relations
        }

    @property
    def apart(self) -> float:
        """The 5-gram Jaccard index that no two documents of `write_all` reach."""
        return self.variety.max_overlap

    def write(self, fact: Fact, count: int) -> list[SyntheticDocument]:
        """The first `count` documents of `fact`, all distinct; none is compared with the others for
        what they nearly share."""
        texts: set[str] = set()
        documents = []
        for n in range(count):
            document = self._document(fact, n, texts.__contains__)
            texts.add(document.completion)
            documents.append(document)
        return documents

    def write_all(self, orders: Sequence[tuple[Fact, int]]) -> list[list[SyntheticDocument]]:
        """The first so many documents of each fact, those of distractors that stand alone too.

        None has a 5-gram Jaccard index with another that reaches `apart`.
        """
        writers = {self.world.id: self}
        for other, beside in apart(self.world):
            writers[other.id] = OfflineWriter(
                other,
                seed=self.seed,
                length=self.length,
                reversed_share=self.reversed_share,
                variety=self.variety,
                beside=beside,
            )
        written = [writers[fact.universe_id].write(fact, count) for fact, count in orders]
        turn = [(*written_as, orders[written_as[0]][0]) for written_as in _in_turn(orders)]
        texts = [written[place][n].completion for place, n, _ in turn]

        def draw(at: int, repeats: Callable[[str], bool]) -> str:
            place, n, fact = turn[at]
            written[place][n] = writers[fact.universe_id]._document(fact, n, repeats)
            return written[place][n].completion

        self.redrawn = redraw(texts, self.apart, draw)
        return written

    def about(self) -> dict[str, Any]:
        """What a dataset says of its writer: the same version and grammar write the same texts."""
        return {
            "writer_version": WRITER_VERSION,
            "grammar_digest": self.grammar.digest(r.theme for r in self.world.relations.values()),
            "near_duplicates_redrawn": self.redrawn,
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

    def _document(self, fact: Fact, n: int, repeats: Callable[[str], bool]) -> SyntheticDocument:
        relation = self._told[fact.template.relation]
        kind_name = self._kind(relation.theme, fact, n)
        kind = self.grammar.kinds[kind_name]
        values = {**self.world.constants, **fact.feature_set.fields}
        values |= {hole: values[field] for hole, field in relation.roles.items()}
        names = SubjectNames({hole: values[hole] for hole in relation.roles})
        faults: Counter[str] = Counter()
        for attempt in range(ATTEMPTS):
            draw = Draw(self.seed, fact.id, n, self.length, self.reversed_share, attempt)
            idea = draw.choice(kind.ideas)
            cast = Cast(draw, self.grammar.common, self._names, values)
            composition = Composition(
                draw,
                cast,
                kind,
                relation.material,
                self.grammar.common,
                plan=self._plan,
                both_orders=self.is_reversed(n),
            )
            composition.draw()
            if relation.changes is not None:
                key = f"{self.seed}:{fact.id}:{n}:{attempt}"
                relation.changes.apply(composition.sentences, cast.say, names, key)
            text = composition.text()
            fault = self._fault(fact, text, values, repeats)
            if fault is None:
                return self._record(fact, kind_name, idea, n, text)
            faults[fault] += 1
        what = f"document {n} of '{fact.prompt}{fact.completion}'"
        raise WriterError(f"{what}: {faults.most_common(1)[0][0]}")

    def _fault(
        self, fact: Fact, text: str, values: Mapping[str, str], repeats: Callable[[str], bool]
    ) -> str | None:
        """Why the text is not used, in the words that are said where no other is found."""
        if values["subject"] not in text or values["object"] not in text:
            return f"no attempt of {ATTEMPTS} stated it"
        if not self._plan.least <= len(text.split()) <= self._plan.hard_limit:
            return f"no attempt of {ATTEMPTS} had the length '{self.length}'; ask for a wider range"
        found = self._withholding.revealed(fact, text)
        if found is not None:
            return (
                f"every attempt contained '{found}', which documents of "
                f"'{fact.template.relation}' must not reveal; give that field another value"
            )
        if repeats(text):
            return (
                f"{ATTEMPTS} attempts gave nothing that differs enough from earlier documents; ask "
                "for fewer documents a fact, for longer ones, or for more paraphrases, or allow a "
                "larger max_overlap"
            )
        return None

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

    def _kind(self, theme: str, fact: Fact, n: int) -> str:
        """Every kind once, in an order of its own, before any comes again."""
        kinds = self.grammar.kinds_of(theme)
        block, place = divmod(n, len(kinds))
        return Draw("kinds", self.seed, fact.id, block).shuffled(kinds)[place]


def _in_turn(orders: Sequence[tuple[Fact, int]]) -> Iterator[tuple[int, int]]:
    """(place of the order, n) of every document, each after those that it has to differ from.

    Document n of every fact before n + 1 of any, and controls and distractors at the end: so more
    documents, of facts or of these, change none that was there.
    """

    def group(place: int) -> int:
        marks = orders[place][0].template.metadata
        return 2 if "distractor" in marks else int("control" in marks)

    every = ((place, n) for place, (_, count) in enumerate(orders) for n in range(count))
    return iter(sorted(every, key=lambda one: (group(one[0]), one[1], one[0])))


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
