"""The parts of an audit's report that are about ids and questions."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from oocr_influence.datasets.audit.identity import check_ids
from oocr_influence.datasets.audit.knowledge import Knowledge
from oocr_influence.datasets.audit.material import EXAMPLES, Material
from oocr_influence.datasets.audit.mentions import count_texts
from oocr_influence.datasets.audit.questions import check_questions, shared_answers
from oocr_influence.datasets.audit.wording import shared_wording
from oocr_influence.datasets.document_dataset import StructuredDataset
from oocr_influence.datasets.eval_sets import describe_set


def ids(dataset: StructuredDataset) -> dict[str, Any]:
    """Ids that repeat or are not made as they should."""
    faults = check_ids(dataset.document_dataset.docs)
    return {
        "faults": len(faults),
        "by_kind": dict(Counter(fault.fault for fault in faults).most_common()),
        "examples": [
            {"fault": fault.fault, "id": fault.id, "what": fault.what}
            for fault in faults[:EXAMPLES]
        ],
    }


def questions(
    dataset: StructuredDataset, material: Material, knowledge: Knowledge
) -> dict[str, Any]:
    """Questions that cannot measure what they are meant to, given what documents state."""
    stated = {
        statement.claim.fact_id
        for place, reading in enumerate(material.readings)
        for statement in reading.statements
        if statement.states and material.groups[place] != "held_out"
    }
    builders = dataset.eval_dataset_builders
    faults = check_questions(builders, knowledge, stated)
    shared = {name: shared_answers(builder) for name, builder in builders.items()}
    return {
        "faults": len(faults),
        "by_kind": dict(Counter(fault.fault for fault in faults).most_common()),
        "facts_stated": len(stated),
        "sets_with_shared_answers": {name: n for name, n in shared.items() if n},
        "examples": [
            {"fault": f.fault, "set": f.set, "question": f.question, "what": f.what}
            for f in faults[:EXAMPLES]
        ],
    }


def answers_in_pretraining(dataset: StructuredDataset, material: Material) -> dict[str, Any]:
    """In how many pretraining documents each answer stands, whole and with its capitals."""
    answers = list(
        dict.fromkeys(
            point.completion.strip()
            for name, builder in dataset.eval_dataset_builders.items()
            if describe_set(name, builder).kind != "control"
            for point in builder.eval_points
        )
    )
    is_pretraining = np.asarray([group == "pretraining" for group in material.groups], np.bool_)
    counts = dict(zip(answers, count_texts(answers, material.corpus, is_pretraining), strict=True))
    found = sorted(
        ((n, text) for text, n in counts.items() if n), key=lambda row: (-row[0], row[1])
    )
    return {
        "answers": len(answers),
        "found": len(found),
        "examples": [{"answer": text, "documents": n} for n, text in found[:EXAMPLES]],
    }


def wording(dataset: StructuredDataset, material: Material) -> dict[str, Any]:
    """What each set's questions share with documents word for word."""
    masks = {
        group: np.asarray([name == group for name in material.groups], np.bool_)
        for group in ("synthetic", "pretraining")
    }
    builders = dataset.eval_dataset_builders
    shared = shared_wording(builders, material.corpus, masks)
    return {
        name: {
            "kind": describe_set(name, builders[name]).kind,
            "trained": any(overlap.is_trained for overlap in groups.values()),
            **{
                group: {
                    "longest": overlap.longest,
                    "text": overlap.text,
                    "questions_trained": overlap.questions_trained,
                    "questions": overlap.questions,
                }
                for group, overlap in groups.items()
            },
        }
        for name, groups in shared.items()
    }
