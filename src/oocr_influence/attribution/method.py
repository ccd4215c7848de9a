"""One interface for every method that scores documents, and all of them run one after another.

A method is a small frozen dataclass of its settings with

    def score(self, subject: Subject) -> dict[str, Scored]

which gives one or several named matrices (Q, D): a positive score says that training on the
document raises the log-probability of the query's right answer. A document of several pieces has
the sum of theirs where a method scores pieces.

Shapes: Q queries, D documents.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from oocr_influence.attribution.queries import Queries
from oocr_influence.attribution.trained_documents import TrainedDocuments
from oocr_influence.results.attributions import Attributions

Floats = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """Tell nobody how far a method has come."""


@dataclass(frozen=True)
class Subject:
    """What is to be explained: queries, documents, and the model that answers, on its device."""

    documents: TrainedDocuments
    queries: Queries
    model: Any = None
    """A causal LM of transformers; None for methods that read text alone."""
    progress: Progress = silent

    @property
    def shape(self) -> tuple[int, int]:
        """(Q, D)."""
        return len(self.queries.rows), len(self.documents.rows)


@dataclass(frozen=True)
class Scored:
    """A matrix of scores and what its numbers are."""

    scores_QD: Floats
    unit: str


class Method(Protocol):
    """See the module. `reads_model`: whether `score` looks at `subject.model`."""

    @property
    def reads_model(self) -> bool: ...

    def score(self, subject: Subject) -> dict[str, Scored]:
        """The scores by name; the model leaves as it came."""
        ...


def attribute(
    subject: Subject, methods: Sequence[Method], about: dict[str, Any] | None = None
) -> Attributions:
    """Every method's scores of the same documents and queries, with settings, units and seconds.

    Raises ValueError where a method gives a score that is not finite.
    """
    scores, told = {}, {}
    for method in methods:
        begun = time.perf_counter()
        found = method.score(subject)
        seconds = time.perf_counter() - begun
        for name, scored in found.items():
            scores[name] = scored.scores_QD.astype(np.float32)
            told[name] = {
                "method": type(method).__name__,
                "settings": asdict(method),  # type: ignore[call-overload]
                "unit": scored.unit,
                # Of all that the method gave at once.
                "seconds": seconds,
            }
    return Attributions(
        subject.documents.rows, subject.queries.rows, told, scores, dict(about or {})
    )
