"""The parts of an audit's report that count: documents and tokens, of groups and of facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from oocr_influence.datasets.audit.knowledge import Knowledge
from oocr_influence.datasets.audit.material import GROUPS, Material
from oocr_influence.datasets.document_dataset import StructuredDataset
from oocr_influence.documents.document import SyntheticDocument
from oocr_influence.universe.facts import Fact
from oocr_influence.universe.world import World

TokenCounter = Callable[[Sequence[str]], Sequence[int]]


def counts(dataset: StructuredDataset, material: Material, knowledge: Knowledge) -> dict[str, Any]:
    """Documents and words of each group, facts looked for, sets and questions."""
    lengths = material.corpus.lengths
    builders = dataset.eval_dataset_builders
    return {
        "documents": {group: len(material.places(group)) for group in GROUPS},
        "words": {group: int(lengths[material.places(group)].sum()) for group in GROUPS},
        "facts": len(knowledge.claims),
        "eval_sets": len(builders),
        "questions": sum(len(builder.eval_points) for builder in builders.values()),
    }


def balance(
    material: Material,
    knowledge: Knowledge,
    world: World | None,
    count_tokens: TokenCounter | None,
) -> dict[str, Any]:
    """Documents and tokens of each fact that documents are written for."""
    places = material.places("synthetic")
    if count_tokens is None:
        tokens = material.corpus.lengths[places].tolist()
    else:
        tokens = list(count_tokens([material.texts[place] for place in places]))
    documents: Counter[str] = Counter()
    sums: Counter[str] = Counter()
    one_order: Counter[str] = Counter()
    told: dict[str, Fact] = {}
    for place, count in zip(places, tokens, strict=True):
        document = material.documents[place]
        assert isinstance(document, SyntheticDocument)
        fact = document.doc_spec.fact.id
        told[fact] = document.doc_spec.fact
        documents[fact] += 1
        sums[fact] += int(count)
        one_order[fact] += document.doc_spec.reversal_curse
    relations: dict[str, list[str]] = {}
    for fact in documents:
        is_control = "control" in told[fact].template.metadata
        name = knowledge.claims[fact].relation + (" (control)" if is_control else "")
        relations.setdefault(name, []).append(fact)
    return {
        "unit": "words" if count_tokens is None else "tokens",
        "facts_with_documents": len(documents),
        "facts_without_documents": [
            {"id": fact.id, "fact": fact.prompt + fact.completion}
            for fact in (world.facts() if world else [])
            if fact.id not in documents
        ],
        "relations": {
            relation: {
                "facts": len(facts),
                "documents_a_fact": _spread([documents[fact] for fact in facts]),
                "tokens_a_fact": _spread([sums[fact] for fact in facts]),
                "one_order_a_fact": _spread([one_order[fact] for fact in facts]),
            }
            for relation, facts in relations.items()
        },
    }


def _spread(values: Sequence[int]) -> dict[str, float]:
    return {"least": min(values), "mean": sum(values) / len(values), "most": max(values)}
