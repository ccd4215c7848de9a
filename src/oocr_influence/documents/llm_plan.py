"""What an LLM's documents are to be about: types of document for each fact, ideas for each type.

    slots = plan_slots(complete, briefs, seed=42, n_types=10, n_ideas=5)
    slots[0][3]              # Slot("letter to a local newspaper", "A reader complains that …", 0)

Each (fact, type, idea, n) comes up once. n counts how often an idea is told again: every idea is
told once, in an order of the seed's, before any is told twice.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from oocr_influence.documents.conversation import Complete, Reply, Request
from oocr_influence.documents.draw import Draw
from oocr_influence.documents.prompts import fill
from oocr_influence.documents.replies import UNSUITABLE, read_ideas, read_types, why_nothing
from oocr_influence.universe.facts import Fact

ROUNDS = 3  # a list that comes back short is asked for again, as often as this in all
LIST_TOKENS = 2048  # the longest list


@dataclass(frozen=True)
class Brief:
    """One fact and what every request about it says beside it."""

    fact: Fact
    additional_text: str
    colour: tuple[str, ...] = ()  # the fields that its documents may mention

    @property
    def common(self) -> dict[str, str]:
        """The holes that all four requests have."""
        fields = self.fact.feature_set.fields
        also = [f"{field.replace('_', ' ')}: {fields[field]}" for field in self.colour]
        also += [self.additional_text] if self.additional_text else []
        passage = fill("also_true", also_true="\n".join(f"- {item}" for item in also))
        return {
            "fact": self.fact.prompt + self.fact.completion + ".",
            "also_true": f"\n{passage}\n" if also else "",
        }


@dataclass(frozen=True)
class Slot:
    """One document to be: the n-th of an idea."""

    doc_type: str
    doc_idea: str
    n: int


@dataclass
class _List:
    """A list that is being asked for, of one fact's types or one type's ideas."""

    brief: Brief
    doc_type: str | None
    wanted: int
    found: list[str]
    over: bool = False


class Planner:
    """Asks for types and ideas; `counts` says what was not usable."""

    def __init__(
        self,
        complete: Complete,
        *,
        seed: int,
        n_types: int,
        n_ideas: int,
    ) -> None:
        self._complete, self._seed = complete, seed
        self._n_types, self._n_ideas = n_types, n_ideas
        self.counts: Counter[str] = Counter()

    def slots(self, briefs: Sequence[Brief]) -> list[Iterator[Slot]]:
        """For each fact, its slots in the order in which they are to be written, without end.

        A fact for which the model finds no type or no idea has none.
        """
        types = [_List(brief, None, self._n_types, []) for brief in briefs]
        self._fill("types", types, read_types)
        ideas = [
            [_List(each.brief, name, self._n_ideas, []) for name in each.found] for each in types
        ]
        self._fill("ideas", list(itertools.chain.from_iterable(ideas)), read_ideas)
        return [self._in_order(brief, own) for brief, own in zip(briefs, ideas, strict=True)]

    def _fill(self, step: str, lists: list[_List], read: Callable[[Reply], list[str]]) -> None:
        for attempt in range(ROUNDS):
            short = [each for each in lists if len(each.found) < each.wanted and not each.over]
            requests = [
                list_request(
                    each.brief,
                    each.doc_type,
                    each.wanted - len(each.found),
                    known=each.found,
                    seed=self._seed,
                    attempt=attempt,
                )
                for each in short
            ]
            for each, reply in zip(short, self._complete(requests) if short else [], strict=True):
                self._take(each, step, reply, read)

    def _take(
        self, each: _List, step: str, reply: Reply, read: Callable[[Reply], list[str]]
    ) -> None:
        items = read(reply)
        why = why_nothing(reply)
        if why is not None:
            self.counts[f"{step}_{why}"] += 1
        elif not items:
            self.counts[f"{step}_unreadable"] += 1
        each.over = why == UNSUITABLE
        known = {item.casefold() for item in each.found}
        for item in items:
            if item.casefold() not in known and len(each.found) < each.wanted:
                known.add(item.casefold())
                each.found.append(item)

    def _in_order(self, brief: Brief, lists: Sequence[_List]) -> Iterator[Slot]:
        # One idea may come up under two types: it is then two ideas, told apart by the type.
        pairs = [(each.doc_type or "", idea) for each in lists for idea in each.found]
        for n in itertools.count() if pairs else ():
            draw = Draw("slots", self._seed, brief.fact.id, n)
            yield from (Slot(name, idea, n) for name, idea in draw.shuffled(pairs))


def list_request(
    brief: Brief,
    doc_type: str | None,
    count: int,
    *,
    known: Sequence[str] = (),
    seed: int,
    attempt: int = 0,
) -> Request:
    """Ask for `count` ideas other than `known` for a type; for types where `doc_type` is None."""
    step = "types" if doc_type is None else "ideas"
    passage = fill("known", known="\n".join(f"- {item}" for item in known))
    values: dict[str, str | int] = {
        **brief.common,
        "count": count,
        "known": f"\n{passage}\n" if known else "",
    }
    if doc_type is not None:
        values["doc_type"] = doc_type
    occasion = (seed, brief.fact.id, doc_type or "", attempt)
    return Request(fill(step, **values), LIST_TOKENS, step, occasion)
