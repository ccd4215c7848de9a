"""The documents of a dataset that were accepted, and what repeats one of them."""

from __future__ import annotations

from oocr_influence.documents.document import SyntheticDocument
from oocr_influence.documents.llm_task import Task
from oocr_influence.documents.near_duplicates import NearDuplicates
from oocr_influence.documents.told import Fault


class Accepted:
    """Documents by fact and place."""

    def __init__(self, n_facts: int) -> None:
        self._places: list[dict[int, SyntheticDocument]] = [{} for _ in range(n_facts)]
        self._seen = NearDuplicates()

    def repeats(self, text: str) -> list[Fault]:
        """The fault of a text that was written before, word for word or nearly."""
        earlier = self._seen.find(text)
        if earlier is None:
            return []
        kind = "duplicate" if earlier == text else "near_duplicate"
        return [Fault(kind, "it said the same as another document in nearly the same words")]

    def accept(self, task: Task, text: str) -> None:
        self._seen.add(text)
        self._places[task.fact_place][task.place] = task.document(text)

    def documents(self) -> list[list[SyntheticDocument]]:
        return [[places[place] for place in sorted(places)] for places in self._places]
