"""Subsets of a dataset's documents: drawn by design and seed, written as references to the dataset.

    subsets = draw_subsets(dataset, Design(docs_per_run=300), split="train", n=100, seed=41)
    reference_to(dataset, subsets[0], ...)      # as JSON; load_structured_dataset reads such a file

Subsets hold synthetic documents; a dataset's pretraining documents belong to every subset. Subset i
of a split depends on the seed, the split and i alone, so that either split can be enlarged.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from oocr_influence.datasets.document_dataset import StructuredDataset, subset_id
from oocr_influence.datasets.order import seeded_order
from oocr_influence.datasets.removal import Removal
from oocr_influence.documents.document import SyntheticDocument

Split = Literal["train", "test"]
DesignName = Literal["random", "stratified", "complement", "leave_one_fact_out", "removal"]
Group = tuple[int, ...]  # places of documents of one fact that are drawn together
SPLITS: tuple[Split, ...] = ("train", "test")


@dataclass(frozen=True)
class Design:
    """How subsets are drawn, of the documents of `active_facts` (None: of all facts).

    - `random`: `docs_per_run` documents, each subset by itself.
    - `stratified`: the same, as many of each fact.
    - `complement`: pairs of a random half and the other half; `docs_per_run` says nothing.
    - `leave_one_fact_out`: all documents but those of one fact, the facts in the file's order.
    - `removal`: all documents but those of a `Removal`; not drawn here (cli/removal_plan.py).

    `k` > 1: documents are drawn in groups of k of the same fact, the same groups for the whole
    sweep; what is left of a fact after the last whole group is never drawn.
    """

    name: DesignName = "random"
    docs_per_run: int = 300
    k: int = 1
    active_facts: Sequence[str] | None = None


@dataclass(frozen=True)
class Subset:
    """One drawn subset: places of its documents in the file, in the file's order."""

    split: Split
    places: tuple[int, ...]
    left_out: str | None = None
    """The fact that it leaves out, of that design."""
    removal: Removal | None = None
    """What it leaves out and why, of that design."""


def draw_subsets(
    dataset: StructuredDataset,
    design: Design,
    *,
    split: Split,
    n: int,
    seed: int,
    generator: random.Random | None = None,
) -> list[Subset]:
    """Draw the `n` subsets of one split.

    With `generator` groups are drawn from it one subset after the other, whatever the split: two
    splits that share one are as the earlier system's, where neither could be drawn alone. Raises
    ValueError for what the dataset cannot give, with the flag to change.
    """
    assert design.name != "removal", "removals follow from a table, not from a draw"
    facts = facts_of(dataset, design.active_facts)
    by_fact = {fact: _groups(fact, own, design.k, seed) for fact, own in facts.items()}
    pool = _Pool(split, by_fact, seed, generator)
    if design.name == "leave_one_fact_out":
        return pool.without_each_fact(n)
    if design.name == "complement":
        return pool.halves(n)
    n_units, rest = divmod(design.docs_per_run, design.k)
    if rest:
        raise ValueError(
            f"--docs_per_run {design.docs_per_run} is no multiple of --sampling_k {design.k}"
        )
    if design.name == "random":
        return pool.at_random(n, n_units, design)
    return pool.stratified(n, n_units, design)


@dataclass(frozen=True)
class _Pool:
    """What is drawn from: groups of documents, which are single ones where k is 1."""

    split: Split
    by_fact: dict[str, list[Group]]
    seed: int
    generator: random.Random | None

    @property
    def groups(self) -> list[Group]:
        return [group for own in self.by_fact.values() for group in own]

    def shuffled(self, groups: list[Group], i: int, part: str = "") -> list[Group]:
        if self.generator is not None:
            return self.generator.sample(groups, len(groups))
        key = ("subset", self.seed, self.split, i, part)
        return [groups[place] for place in seeded_order(len(groups), *key)]

    def subset(self, groups: Sequence[Group], left_out: str | None = None) -> Subset:
        return Subset(self.split, tuple(sorted(p for group in groups for p in group)), left_out)

    def at_random(self, n: int, n_units: int, design: Design) -> list[Subset]:
        groups = self.groups
        if n_units > len(groups):
            in_groups = f" in groups of {design.k}" if design.k > 1 else ""
            raise ValueError(
                f"--docs_per_run {design.docs_per_run}: only {len(groups) * design.k} documents "
                f"can be drawn{in_groups}"
            )
        return [self.subset(self.shuffled(groups, i)[:n_units]) for i in range(n)]

    def stratified(self, n: int, n_units: int, design: Design) -> list[Subset]:
        each, rest = divmod(n_units, len(self.by_fact))
        asked = f"--docs_per_run {design.docs_per_run}"
        if rest:
            raise ValueError(
                f"{asked}: stratified subsets have as many of each of {len(self.by_fact)} facts: "
                f"give a multiple of {len(self.by_fact) * design.k}"
            )
        for fact, own in self.by_fact.items():
            if len(own) < each:
                raise ValueError(
                    f"{asked}: fact {fact[:8]}… has only {len(own) * design.k} documents to draw, "
                    f"not {each * design.k}"
                )
        facts = self.by_fact.items()
        return [
            self.subset([g for fact, own in facts for g in self.shuffled(own, i, fact)[:each]])
            for i in range(n)
        ]

    def halves(self, n: int) -> list[Subset]:
        if n % 2:
            raise ValueError(f"complement makes pairs of subsets: give an even number, not {n}")
        groups, found = self.groups, []
        for i in range(0, n, 2):
            mixed = self.shuffled(groups, i)
            cut = len(mixed) // 2
            found += [self.subset(mixed[:cut]), self.subset(mixed[cut:])]
        return found

    def without_each_fact(self, n: int) -> list[Subset]:
        if n != len(self.by_fact):
            raise ValueError(
                f"leave_one_fact_out makes one subset a fact, {len(self.by_fact)}: give that many, "
                f"not {n}"
            )
        return [
            self.subset([g for f, own in self.by_fact.items() if f != fact for g in own], fact)
            for fact in self.by_fact
        ]


def facts_of(
    dataset: StructuredDataset, active: Sequence[str] | None = None
) -> dict[str, list[int]]:
    """Places of each fact's documents, facts and places in the file's order.

    `active` names facts by whole ids, or by a relation's name for all of its facts. ValueError for
    a name that the file does not have, and where there is no document to draw.
    """
    facts: dict[str, list[int]] = {}
    relations: dict[str, str] = {}
    for place, document in enumerate(dataset.document_dataset.docs):
        if isinstance(document, SyntheticDocument):
            fact = document.doc_spec.fact
            facts.setdefault(fact.id, []).append(place)
            relations[fact.id] = fact.template.relation
    if active is not None:
        unknown = [a for a in active if a not in facts and a not in relations.values()]
        if unknown:
            known = ", ".join(sorted(set(relations.values())))
            raise ValueError(
                f"--active_facts: no fact has the id or the relation {unknown[0]!r} (relations: "
                f"{known})"
            )
        facts = {f: own for f, own in facts.items() if f in active or relations[f] in active}
    if not facts:
        raise ValueError("the dataset has no synthetic documents to draw subsets of")
    return facts


def _groups(fact: str, places: list[int], k: int, seed: int) -> list[Group]:
    if k == 1:
        return [(place,) for place in places]
    mixed = [places[i] for i in seeded_order(len(places), "subset_groups", seed, fact)]
    whole = len(mixed) // k * k
    return [tuple(sorted(mixed[i : i + k])) for i in range(0, whole, k)]


def never_drawn(dataset: StructuredDataset, design: Design) -> int:
    """Documents of the active facts that are in no whole group."""
    facts = facts_of(dataset, design.active_facts)
    return sum(len(places) % design.k for places in facts.values())


def subset_metadata(
    dataset: StructuredDataset, subset: Subset, design: Design, *, index: int, n_runs: int
) -> dict[str, Any]:
    """What `<i>_metadata.json` says of a subset."""
    docs = dataset.document_dataset.docs
    included = [docs[place].id for place in subset.places]
    removal = subset.removal
    return {
        "dataset_idx": index,
        "dataset_id": subset_id(included),
        "split": subset.split,
        "design": design.name,
        "docs_included": included,
        "docs_per_run": len(included),
        "k": design.k,
        "n_runs": n_runs,
        **({} if subset.left_out is None else {"left_out_fact": subset.left_out}),
        **(
            {}
            if removal is None
            else {"removal": removal.metadata(docs, dataset.document_dataset.keys())}
        ),
    }


def reference_to(
    dataset: StructuredDataset, subset: Subset, *, dataset_file: str, digest: str
) -> dict[str, Any]:
    """The subset as a file that names the dataset's file, relative to its own folder.

    Documents are written as [id, occurrence], so that copies under one id are told apart.
    """
    keys = dataset.document_dataset.keys()
    return {
        "subset_of": dataset_file,
        "sha256": digest,
        "synthetic_documents": [list(keys[place]) for place in subset.places],
    }
