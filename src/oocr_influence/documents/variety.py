"""How much documents about the same fact differ: what a researcher may turn, with one meaning each.

A document is drawn first as it would be anyway, and then changed: what a setting does not speak of
stays word for word. (A document that the change makes too long, or too much like another, is drawn
anew.)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from oocr_influence.documents.near_duplicates import THRESHOLD


@dataclass(frozen=True, kw_only=True)
class Variety:
    """The offline writer's settings beside length and order.

    Raises ValueError where one is outside of its range.
    """

    paraphrases: int | None = None
    """wordings of each order that state a relation's facts (None: all that there are)"""
    permute_sentences: bool = True
    """every document has its sentences in an order of its own; else all in the stock's order"""
    name_repetition: float = 1.0
    """share of the later sentences about the subject that say its name, and not "the city\""""
    max_overlap: float = THRESHOLD
    """a document is drawn anew whose 5-gram Jaccard index with an earlier one reaches this; at 1
    only copies are"""

    def __post_init__(self) -> None:
        if self.paraphrases is not None and self.paraphrases < 1:
            raise ValueError(f"paraphrases is {self.paraphrases}; it is a number of wordings")
        if not 0 <= self.name_repetition <= 1:
            raise ValueError(f"name_repetition is {self.name_repetition}; it is a share, 0 to 1")
        if not 0 < self.max_overlap <= 1:
            raise ValueError(f"max_overlap is {self.max_overlap}; it is above 0 and at most 1")

    def as_metadata(self) -> dict[str, Any]:
        return asdict(self)
