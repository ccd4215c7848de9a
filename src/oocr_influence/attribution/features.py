"""What the subsets differ in: which documents each trained, or how many of each fact or relation.

Shapes: S subsets, D documents, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from oocr_influence.attribution.draws import drawn_together
from oocr_influence.results.outcomes import Outcomes

Floats = npt.NDArray[np.float64]
By = Literal["document", "fact", "relation"]
_COLUMNS = {"fact": "fact_id", "relation": "relation"}


@dataclass(frozen=True)
class Features:
    """The predictors of a datamodel: one column a document, fact or relation."""

    by: By
    names: Sequence[str]
    values: Floats
    """(S, F): how often each document was trained, or how many documents of each fact or relation
    were, each counted as often as it was."""
    draws: npt.NDArray[np.int64] | None = None
    """(S,) which subsets were drawn together (draws.py); None: each by itself."""

    def varied(self) -> npt.NDArray[np.bool_]:
        """(F,): whether the subsets differ in it at all; of the others nothing can be said."""
        return np.asarray(np.ptp(self.values, axis=0) > 0)


def features_of(outcomes: Outcomes, by: By) -> Features:
    """The features of each subset of `outcomes`.

    Documents that belong to no fact (pretraining text) are features only `by="document"`. Where an
    id occurs several times in the dataset, further occurrences are named `id#1`, `id#2`.
    """
    if by not in get_args(By):
        raise ValueError(f"by {by!r}: {', '.join(get_args(By))} are known")
    trained_SD = np.asarray(outcomes.trained, dtype=np.float64)
    draws = drawn_together(outcomes.subsets)
    if by == "document":
        names = [
            document["id"] + (f"#{document['occurrence']}" if document.get("occurrence") else "")
            for document in outcomes.documents
        ]
        return Features(by, names, trained_SD, draws)
    keys = [document.get(_COLUMNS[by]) for document in outcomes.documents]
    names = list(dict.fromkeys(str(key) for key in keys if key is not None))
    values_SF = np.zeros((len(trained_SD), len(names)))
    for f, name in enumerate(names):
        values_SF[:, f] = trained_SD[:, [str(key) == name for key in keys]].sum(axis=1)
    return Features(by, names, values_SF, draws)
