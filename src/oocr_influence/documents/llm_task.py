"""One document that a language model is to write: what it is asked, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from oocr_influence.documents.conversation import Request
from oocr_influence.documents.document import DocumentSpec, SyntheticDocument, document_id
from oocr_influence.documents.llm_plan import Brief, Slot
from oocr_influence.documents.prompts import fill
from oocr_influence.documents.told import FactRules, Fault


@dataclass(frozen=True)
class Setting:
    """What all documents of a dataset have in common."""

    seed: int
    words: int
    max_tokens: int


@dataclass(frozen=True)
class Task:
    """A place among a fact's documents, the slot that fills it, and which attempt this is."""

    setting: Setting
    brief: Brief
    rules: FactRules
    fact_place: int
    place: int
    slot: Slot
    attempt: int = 0
    rejected: tuple[Fault, ...] = ()  # what the attempt before was rejected for

    @property
    def id(self) -> str:
        slot = self.slot
        return document_id(self.brief.fact.id, slot.doc_type, slot.doc_idea, slot.n)

    def again(self, faults: list[Fault]) -> Task:
        return replace(self, attempt=self.attempt + 1, rejected=tuple(faults))

    def with_slot(self, slot: Slot) -> Task:
        return replace(self, slot=slot, attempt=0, rejected=())

    def draft_request(self) -> Request:
        n = self.slot.n
        return self._request(
            "document",
            told_before=f"\n{fill('told_before', n=n)}\n" if n else "",
            rejected=_passage("rejected", self.rejected),
        )

    def revision_request(self, draft: str) -> Request:
        faults = _passage("faults", self.rules.faults(draft))
        return self._request("revision", draft=draft, faults=faults)

    def document(self, text: str) -> SyntheticDocument:
        spec = DocumentSpec(
            id=self.id,
            fact=self.brief.fact,
            doc_type=self.slot.doc_type,
            doc_idea=self.slot.doc_idea,
            reversal_curse=not self.rules.both_orders,
            additional_text=self.brief.additional_text,
        )
        return SyntheticDocument(
            id=self.id, type="synthetic_document", prompt="", completion=text, doc_spec=spec
        )

    def _request(self, step: str, **values: str) -> Request:
        rules, slot = self.rules, self.slot
        sides = {"subject": rules.subject, "object": rules.object}
        if rules.left_out:
            withheld = fill("withheld", values="; ".join(rules.left_out))
        else:
            withheld = fill("withheld_nothing", **sides)
        text = fill(
            step,
            **self.brief.common,
            **sides,
            **values,
            doc_type=slot.doc_type,
            doc_idea=slot.doc_idea,
            order=fill("order_both" if rules.both_orders else "order_one", **sides),
            withheld=withheld,
            words=self.setting.words,
        )
        occasion = (self.setting.seed, self.id, self.attempt)
        return Request(text, self.setting.max_tokens, step, occasion)


def _passage(name: str, faults: list[Fault] | tuple[Fault, ...]) -> str:
    if not faults:
        return ""
    return "\n" + fill(name, faults="; ".join(fault.words for fault in faults)) + "\n"
