"""A structured dataset from a world: pretraining documents, then fact by fact, and its eval sets.

    dataset = generate_dataset(load_world("mayors"), docs_per_fact=100, seed=42, pretraining=text)

The same arguments give the same bytes on every machine, as far as the pretraining text is the same.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Protocol

from oocr_influence.datasets.document_dataset import DocumentDataset, StructuredDataset
from oocr_influence.datasets.eval_sets import build_eval_sets, describe_set
from oocr_influence.datasets.held_out import HELD_OUT_KEY, as_metadata
from oocr_influence.documents.diversity import measure
from oocr_influence.documents.document import Document, SyntheticDocument
from oocr_influence.documents.plan import Length
from oocr_influence.documents.pretraining import PretrainingText
from oocr_influence.documents.variety import Variety
from oocr_influence.documents.writer import OfflineWriter
from oocr_influence.universe.facts import Fact
from oocr_influence.universe.world import World


class DocumentWriter(Protocol):
    """Whoever tells facts in documents: by a grammar, or by a language model."""

    licence: str

    @property
    def apart(self) -> float:
        """The 5-gram Jaccard index that no two of its documents reach (0 to 1)."""
        ...

    def write_all(self, orders: Sequence[tuple[Fact, int]]) -> list[list[SyntheticDocument]]:
        """At most so many documents of each fact, in the order of `orders`."""
        ...

    def about(self) -> dict[str, Any]:
        """What the metadata say of the writer, once it has written."""
        ...


def generate_dataset(
    world: World,
    *,
    docs_per_fact: int,
    seed: int,
    pretraining: PretrainingText | None = None,
    length: Length = "long",
    reversed_share: float = 0.3,
    variety: Variety | None = None,
    controls: bool = False,
    untold_docs: int = 0,
    distractor_docs: int = 0,
    held_out_docs: int = 0,
    writer: DocumentWriter | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> StructuredDataset:
    """Tell every fact of `world` in `docs_per_fact` documents and build its eval sets.

    `arguments`, what the person asked for, is kept in the metadata word for word. `controls` adds
    sets about entities that no document mentions. With `untold_docs`, that many documents of each
    fact of the world's `untold` entities come last, and sets ask for what they withhold.
    `distractor_docs` documents of each fact of the world's distractors follow; no set asks of them.
    `held_out_docs` further documents, spread evenly over the facts, are kept in the metadata for
    nobody to train: see `held_out.py`. `writer` (default: the offline one) may give fewer documents
    than it is asked for; those it gives are trained before any is held out. `variety` is the
    offline writer's. How much the documents of the facts differ is measured, whoever wrote them.
    """
    if docs_per_fact < 0:
        raise ValueError(f"docs_per_fact is {docs_per_fact}; it is a number of documents")
    if writer is None:
        variety = variety or Variety()
        writer = OfflineWriter(
            world, seed=seed, length=length, reversed_share=reversed_share, variety=variety
        )
    orders = document_orders(
        world,
        docs_per_fact=docs_per_fact,
        held_out_docs=held_out_docs,
        untold_docs=untold_docs,
        distractor_docs=distractor_docs,
    )
    facts = world.facts()
    n_untold = len(world.untold_facts())
    in_order = iter(writer.write_all(orders))
    written = list(itertools.islice(in_order, len(facts)))
    written_untold = list(itertools.islice(in_order, n_untold))
    written_distracting = list(in_order)
    synthetic = [document for documents in written for document in documents[:docs_per_fact]]
    held_out = [document for documents in written for document in documents[docs_per_fact:]]
    untold = [document for documents in written_untold for document in documents]
    distracting = [document for documents in written_distracting for document in documents]
    builders = build_eval_sets(world, seed=seed, controls=controls, untold=bool(untold))
    n_controls = sum(describe_set(*entry).kind == "control" for entry in builders.items())
    before = pretraining.documents if pretraining else []
    docs: list[Document] = [*before, *synthetic, *untold, *distracting]
    metadata = {
        "generator": {
            "package": "oocr-influence",
            "version": version("oocr-influence"),
            **writer.about(),
        },
        "world": {
            "id": world.id,
            "description": world.description,
            "digest": world_digest(world),
            "entities": len(world.entities),
            "relations": list(world.relations),
        },
        "arguments": dict(arguments or {}),
        "seeds": {"documents": seed, "few_shot_examples": seed},
        "documents": {
            "length": length,
            "reversed_share": reversed_share,
            "docs_per_fact": docs_per_fact,
            **(variety.as_metadata() if variety else {}),
        },
        "diversity": measure(synthetic, apart=writer.apart),
        "counts": {
            "facts": len(facts),
            "synthetic_documents": len(synthetic),
            "pretraining_documents": len(before),
            "reversal_curse_documents": _keeping_one_order(synthetic),
            "control_documents": len(untold),
            "held_out_documents": len(held_out),
            **({"distractor_documents": len(distracting)} if distracting else {}),
            "eval_sets": len(builders) - n_controls,
            "control_sets": n_controls,
        },
        "pretraining": pretraining.provenance if pretraining else None,
        "licences": {
            "synthetic_documents": writer.licence,
            "pretraining_documents": _licences(pretraining),
        },
        HELD_OUT_KEY: as_metadata(held_out),
    }
    return StructuredDataset(
        document_dataset=DocumentDataset(docs=docs),
        eval_dataset_builders=builders,
        metadata=metadata,
    )


def document_orders(
    world: World,
    *,
    docs_per_fact: int,
    held_out_docs: int = 0,
    untold_docs: int = 0,
    distractor_docs: int = 0,
) -> list[tuple[Fact, int]]:
    """How many documents of each fact are wanted: facts, those of untold entities, distractors.

    Each fact's share of the held-out documents follows its own ones and changes nothing before
    them: a larger number of documents begins with those of a smaller.
    """
    facts = world.facts()
    share, rest = divmod(held_out_docs, len(facts)) if facts else (0, 0)
    told = [(fact, docs_per_fact + share + (i < rest)) for i, fact in enumerate(facts)]
    told += [(fact, untold_docs) for fact in world.untold_facts()]
    return told + [(fact, distractor_docs) for fact in _distractor_facts(world)]


def _distractor_facts(world: World) -> Iterator[Fact]:
    """Merged relations, then worlds that stand alone."""
    yield from world.distractor_facts()
    for distractor in world.distractors.values():
        for fact in distractor.told.facts():
            marked = {**fact.template.metadata, "distractor": True}
            template = fact.template.model_copy(update={"metadata": marked})
            yield fact.model_copy(update={"template": template})


def world_digest(world: World) -> str:
    """First 16 hex digits of the sha256 of everything that the world states."""
    # How entities might be invented is no part of what is true.
    stated = world.model_dump_json(exclude={"inventions"})
    return hashlib.sha256(stated.encode()).hexdigest()[:16]


def _keeping_one_order(documents: list[SyntheticDocument]) -> int:
    return sum(document.doc_spec.reversal_curse for document in documents)


def _licences(pretraining: PretrainingText | None) -> list[str]:
    sources = pretraining.provenance["sources"] if pretraining else []
    return list(dict.fromkeys(source["licence"] for source in sources))
