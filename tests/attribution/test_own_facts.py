"""Which features are a question's own: by document, fact and relation; none of a control."""

import numpy as np
import pytest

from oocr_influence.attribution.features import features_of
from oocr_influence.attribution.own_facts import feature_labels, kinds, own_features
from oocr_influence.results.outcomes import Outcomes

DOCUMENTS = [
    ("a", "mayor", "tokyo"),
    ("b", "spouse", "tokyo"),
    ("c", "mayor", "lima"),
    ("c", "mayor", "lima"),  # a copy
    ("p", None, None),
]
QUESTIONS = [
    ("mayor", "tokyo", "trained", None),
    ("mayor", "lima", "reversed", None),
    ("mayor_by_landmark", "lima", "two_hop", None),
    ("mayor", "lima", "control", "swapped"),  # as if of lima, and no fact answers it
    (None, None, "trained", None),
]
OWN = {
    "document": [[1, 0, 0, 0, 0], [0, 0, 1, 1, 0], [0] * 5, [0] * 5, [0] * 5],
    "fact": [[1, 0, 0], [0, 0, 1], [0] * 3, [0] * 3, [0] * 3],
    "relation": [[1, 0], [1, 0], [0] * 2, [0] * 2, [0] * 2],
}


@pytest.fixture
def outcomes():
    seen = {}
    documents = []
    for name, relation, entity in DOCUMENTS:
        fact = None if relation is None else f"{relation}-{entity}"
        documents.append({"id": name, "occurrence": seen.setdefault(name, 0), "fact_id": fact,
                          "relation": relation, "entity": entity})  # fmt: skip
        seen[name] += 1
    questions = [
        {"set": "s", "index": q, "relation": r, "entity": e, "kind": kind, "control": control}
        for q, (r, e, kind, control) in enumerate(QUESTIONS)
    ]
    values = {"logprob": np.zeros((2, 1, len(QUESTIONS)))}
    return Outcomes(
        [{"split": "train"}] * 2, documents, questions, np.eye(2, 5), np.zeros((2, 1), int), values
    )


@pytest.mark.parametrize("by", ["document", "fact", "relation"])
def test_what_states_the_fact_asked_for_is_its_own(outcomes, by):
    features = features_of(outcomes, by)
    assert own_features(outcomes, features).astype(int).tolist() == OWN[by]


def test_names_for_people(outcomes):
    labels = feature_labels(outcomes, features_of(outcomes, "fact"))
    assert labels == ["mayor of tokyo", "spouse of tokyo", "mayor of lima"]
    assert feature_labels(outcomes, features_of(outcomes, "document"))[3] == "c#1"
    assert kinds(outcomes.questions)[2:4] == ["two_hop", "control: swapped"]
