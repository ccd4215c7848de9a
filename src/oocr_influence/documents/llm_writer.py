"""The LLM writer: documents that state a fact, by a language model, checked by rule.

    writer = LLMWriter(load_world("mayors"), complete, seed=42)
    documents = writer.write_all([(fact, 100) for fact in world.facts()])

For each fact the model names types of document, for each type ideas, for each idea it writes a
document and revises it (the prompts: `prompts/`). What comes back has to keep to the rules of
`told.py` and must be no near-duplicate; else it is asked for again, the fault named, and after
that the fact's next idea takes its place, within bounds. What is then still missing is missing: it
is counted, and no copy fills the place.

All decisions are made batch by batch, in the order of facts and places: the same seed and the same
replies give the same documents and the same counts, in whatever order the replies arrive. As in
the offline writer, `doc_spec.reversal_curse` says that a document keeps to one order; the model is
told which, and the text is checked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from oocr_influence.documents.accepted import Accepted
from oocr_influence.documents.conversation import Complete, Reply, Request
from oocr_influence.documents.document import SyntheticDocument
from oocr_influence.documents.draw import evenly_spread
from oocr_influence.documents.llm_plan import Brief, Planner, Slot
from oocr_influence.documents.llm_task import Setting, Task
from oocr_influence.documents.near_duplicates import THRESHOLD
from oocr_influence.documents.plan import Length, words_of
from oocr_influence.documents.prompts import prompts_digest
from oocr_influence.documents.replies import UNSUITABLE, read_document
from oocr_influence.documents.told import FactRules, Fault
from oocr_influence.documents.withholding import Withholding, apart
from oocr_influence.universe.facts import Fact
from oocr_influence.universe.world import World

LLM_WRITER_VERSION = "1"
ATTEMPTS = 3  # of one slot
RESERVE = 0.5  # further slots for each document asked for, and one more, to fill lost places
# What is said of a reply that held no document, when it is asked for again.
SAID = {
    "refused": "no document came back, only words about the request",
    "truncated": "it was too long and was cut off",
    "unreadable": "the document did not stand between <content> and </content>",
}


@dataclass(frozen=True)
class Recipe:
    """How a dataset's documents are asked for; part of its provenance."""

    length: Length = "long"
    reversed_share: float = 0.3
    n_types: int = 10
    n_ideas: int = 5
    revise: bool = True
    additional_text: str = ""
    max_tokens: int = 4096  # of a reply


class LLMWriter:
    """Tells the facts of one world; `write_all` is called once."""

    licence = "written by a language model; see its provider's terms"
    apart = THRESHOLD  # the 5-gram Jaccard index that no two of its documents reach

    def __init__(
        self,
        world: World,
        complete: Complete,
        *,
        seed: int,
        recipe: Recipe | None = None,
        source: Mapping[str, Any] | None = None,
        prices: tuple[float, float] | None = None,
    ) -> None:
        """`source` says what answers; prices are those of a million tokens, in and out."""
        self.recipe = recipe or Recipe()
        self._source, self._prices = dict(source or {}), prices
        self._complete = complete
        self._withholding = {world.id: Withholding(world)}
        for other, beside in apart(world):
            self._withholding[other.id] = Withholding(other, beside)
        self._setting = Setting(
            seed=seed,
            words=words_of(self.recipe.length),
            max_tokens=self.recipe.max_tokens,
        )
        self._requests: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()
        self._models: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._shortfall: dict[str, int] = {}

    def write_all(self, orders: Sequence[tuple[Fact, int]]) -> list[list[SyntheticDocument]]:
        """At most so many documents of each fact, all distinct."""
        written = Accepted(len(orders))
        pending, slots = self._first_tasks(orders)
        while pending:
            pending = self._round(pending, slots, written)
        self._shortfall = {
            fact.prompt + fact.completion: count - len(documents)
            for (fact, count), documents in zip(orders, written.documents(), strict=True)
            if len(documents) < count
        }
        return written.documents()

    @property
    def missing(self) -> int:
        """Documents that were asked for and not had."""
        return sum(self._shortfall.values())

    def about(self) -> dict[str, Any]:
        """The dataset's `generator` entries. Every reply that was used counts, whenever paid."""
        return {
            "writer": "llm",
            "writer_version": LLM_WRITER_VERSION,
            "prompts_digest": prompts_digest(),
            **self._source,
            "recipe": asdict(self.recipe),
            "models": dict(sorted(self._models.items())),
            "requests": dict(sorted(self._requests.items())),
            "tokens_in": self._tokens["in"],
            "tokens_out": self._tokens["out"],
            "replies_without_token_counts": self._tokens["uncounted"],
            "prices_a_million_tokens": self._prices,
            "cost": self._cost(),
            "rejected": dict(sorted(self._rejected.items())),
            "shortfall": self._shortfall,
        }

    def _cost(self) -> float | None:
        if self._prices is None:
            return None
        price_in, price_out = self._prices
        return round((self._tokens["in"] * price_in + self._tokens["out"] * price_out) / 1e6, 6)

    def _first_tasks(
        self, orders: Sequence[tuple[Fact, int]]
    ) -> tuple[list[Task], list[Iterator[Slot]]]:
        """A task for every place that has a slot; and each fact's slots for lost places."""
        recipe, setting = self.recipe, self._setting
        planner = Planner(
            partial(self._ask, "plan"),
            seed=setting.seed,
            n_types=recipe.n_types,
            n_ideas=recipe.n_ideas,
        )
        wanted = [place for place, (_, count) in enumerate(orders) if count]
        briefs = [self._brief(orders[place][0]) for place in wanted]
        endless = dict(zip(wanted, planner.slots(briefs), strict=True))
        self._rejected.update(planner.counts)
        tasks = []
        bounded: list[Iterator[Slot]] = [iter(()) for _ in orders]
        for place, brief in zip(wanted, briefs, strict=True):
            count = orders[place][1]
            bounded[place] = _bounded(endless[place], count + _reserve(count))
            rules = {
                both: FactRules.of(
                    self._withholding[brief.fact.universe_id],
                    brief.fact,
                    both_orders=both,
                    words=setting.words,
                )
                for both in (False, True)
            }
            for i, slot in zip(range(count), bounded[place], strict=False):
                both = evenly_spread(i, recipe.reversed_share)
                tasks.append(Task(setting, brief, rules[both], place, i, slot))
        return tasks, bounded

    def _brief(self, fact: Fact) -> Brief:
        world = self._withholding[fact.universe_id].world
        relation = world.relations[fact.template.relation]
        return Brief(fact, self.recipe.additional_text, tuple(relation.colour))

    def _round(
        self, tasks: list[Task], slots: list[Iterator[Slot]], written: Accepted
    ) -> list[Task]:
        """Write and judge one attempt of each task; the tasks of the next round."""
        drafts = [read_document(reply) for reply in self._ask_for_drafts(tasks)]
        revised = iter(self._ask_for_revisions(tasks, drafts))
        after = []
        for task, (draft, why) in zip(tasks, drafts, strict=True):
            text = draft
            if why is None and self.recipe.revise:
                text, why = read_document(next(revised))
            faults = self._judge(task, text, why, written)
            if not faults:
                written.accept(task, text)
                continue
            self._rejected.update(fault.kind for fault in faults)
            following = self._next_attempt(task, faults, slots)
            if following is not None:
                after.append(following)
        return after

    def _judge(self, task: Task, text: str, why: str | None, written: Accepted) -> list[Fault]:
        if why is not None:
            return [Fault(why, SAID.get(why, why))]
        return task.rules.faults(text) or written.repeats(text)

    def _next_attempt(
        self, task: Task, faults: list[Fault], slots: list[Iterator[Slot]]
    ) -> Task | None:
        hopeless = any(fault.kind == UNSUITABLE for fault in faults)
        if task.attempt + 1 < ATTEMPTS and not hopeless:
            return task.again(faults)
        slot = next(slots[task.fact_place], None)
        return None if slot is None else task.with_slot(slot)

    def _ask_for_drafts(self, tasks: list[Task]) -> Sequence[Reply]:
        return self._ask("document", [task.draft_request() for task in tasks])

    def _ask_for_revisions(
        self, tasks: list[Task], drafts: list[tuple[str, str | None]]
    ) -> Sequence[Reply]:
        if not self.recipe.revise:
            return []
        return self._ask(
            "revision",
            [
                task.revision_request(draft)
                for task, (draft, why) in zip(tasks, drafts, strict=True)
                if why is None
            ],
        )

    def _ask(self, step: str, requests: Sequence[Request]) -> Sequence[Reply]:
        replies = self._complete(requests) if requests else []
        for reply in replies:
            self._requests[step] += 1
            self._tokens["in"] += reply.tokens_in
            self._tokens["out"] += reply.tokens_out
            self._tokens["uncounted"] += not reply.counted
            self._models[reply.model] += 1
        return replies


def _bounded(slots: Iterator[Slot], limit: int) -> Iterator[Slot]:
    """The first `limit` slots, those left out whose document would have an earlier one's id."""
    ids: set[str] = set()
    for _, slot in zip(range(limit), slots, strict=False):
        # "a-b" and "c", "a" and "b-c": the format's ids join type and idea by a hyphen.
        own = f"{slot.doc_type}-{slot.doc_idea}-{slot.n}"
        if own not in ids:
            ids.add(own)
            yield slot


def _reserve(count: int) -> int:
    return int(count * RESERVE) + 1
