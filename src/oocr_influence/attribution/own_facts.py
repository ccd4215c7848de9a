"""Which features of a datamodel state the fact that a question asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from oocr_influence.attribution.features import Features
from oocr_influence.results.outcomes import Outcomes


def own_features(outcomes: Outcomes, features: Features) -> npt.NDArray[np.bool_]:
    """(Q, F): the documents, facts or relations of what each question asks.

    A fact is a relation of an entity. A two-hop question, whose relation no document tells, has
    none; nor has a control.
    """
    documents = outcomes.documents
    if features.by == "document":
        keys = [(d["entity"], d["relation"]) for d in documents]
    elif features.by == "fact":
        of_fact = {str(d["fact_id"]): (d["entity"], d["relation"]) for d in documents}
        keys = [of_fact[name] for name in features.names]
    else:
        keys = [(None, name) for name in features.names]
    own = np.zeros((len(outcomes.questions), len(keys)), dtype=bool)
    for q, question in enumerate(outcomes.questions):
        entity = None if features.by == "relation" else question.get("entity")
        asked = (entity, question.get("relation"))
        if question.get("kind") != "control":
            own[q] = [key == asked and key[1] is not None for key in keys]
    return own


def feature_labels(outcomes: Outcomes, features: Features) -> list[str]:
    """A name for people: `spouse of mayors_tokyo` for a fact, the relation, or a document's id."""
    if features.by != "fact":
        return list(features.names)
    of_fact = {str(d["fact_id"]): f"{d['relation']} of {d['entity']}" for d in outcomes.documents}
    return [of_fact[name] for name in features.names]


def kinds(questions: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each question is told of as: its kind, and of a control which."""
    return [
        f"control: {question['control']}"
        if question.get("kind") == "control"
        else str(question.get("kind"))
        for question in questions
    ]
