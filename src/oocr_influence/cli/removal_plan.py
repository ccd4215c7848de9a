"""The subsets of a removal sweep: a table of scores read and checked, documents ranked and removed.

    subsets, notes = plan_removals(args, dataset)

One subset lacks nothing; then for every target, method and k one that lacks the k documents on top,
`removal_control_draws` that lack k others at random, and as many that lack k others of the same
facts. Documents are the synthetic ones of the sweep; pretraining text stays in every subset.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from oocr_influence.attribution.targets import (
    FACTS,
    Ranking,
    Target,
    find_targets,
    queries_of,
    rank,
    scores_of,
    told,
)
from oocr_influence.cli.arguments import UsageError
from oocr_influence.cli.sweep_arguments import DataModelingArgs
from oocr_influence.datasets.document_dataset import EvalDatasetBuilder, StructuredDataset
from oocr_influence.datasets.removal import (
    Places,
    Removal,
    TooFewOthersError,
    matched_control,
    random_control,
)
from oocr_influence.datasets.subsets import Subset, facts_of
from oocr_influence.results.attributions import Attributions, table_digest
from oocr_influence.results.digests import file_digest

SYNTHETIC = "synthetic_document"


def plan_removals(
    args: DataModelingArgs, dataset: StructuredDataset
) -> tuple[list[Subset], list[str]]:
    """The subsets, and lines that say what was left to chance or could not be done.

    Raises UsageError for a table of other documents, for names that it does not have, and for more
    documents than can be removed.
    """
    assert args.removal_table is not None
    table = _read(args.removal_table)
    try:
        facts = facts_of(dataset, args.active_facts)
    except ValueError as error:
        raise UsageError(f"{args.dataset_builder_path}: {error}") from None
    notes = _check_belongs(table, dataset, facts, args)
    try:
        targets = find_targets(table, args.removal_targets or [])
    except ValueError as error:
        raise UsageError(f"--removal_targets: {error}") from None
    methods = list(table.scores) if args.removal_methods is None else args.removal_methods
    try:
        for method in methods:
            scores_of(table, method)
    except ValueError as error:
        raise UsageError(f"--removal_methods: {error}") from None
    about = {
        "table": str(args.removal_table.resolve()),
        "table_digest": table_digest(args.removal_table),
    }
    maker = _Maker(args, dataset, table, facts, about)
    removals = [Removal("none", about=maker.about())]
    removals += [
        one for target in targets for method in methods for one in maker.of(target, method)
    ]
    notes += _notes(removals)
    if args.n_datasets_train != len(removals):
        raise UsageError(
            f"removal makes {len(removals)} subsets of {len(targets)} targets × {len(methods)} "
            f"methods × {len(args.removal_k)} k, their controls and one without a removal: give "
            f"--n_datasets_train {len(removals)}, not {args.n_datasets_train}"
            + "".join(f"\n       {note}" for note in notes)
        )
    return [maker.subset(removal) for removal in removals], notes


def check_asked(subsets: Sequence[Subset], asked: Mapping[str, EvalDatasetBuilder]) -> None:
    """Refuse a removal sweep whose runs are asked nothing that a target's documents rank for."""
    for removal in (subset.removal for subset in subsets):
        if removal is None or removal.kind != "top":
            continue
        sets = {row["set"] for row in removal.about["queries"]}
        if not sets & set(asked):
            raise UsageError(
                f"--subset_eval_sets: no run is asked what {removal.target} was ranked for: sets "
                f"{told(sorted(sets))}"
            )


@dataclass(frozen=True)
class _Maker:
    args: DataModelingArgs
    dataset: StructuredDataset
    table: Attributions
    facts: Mapping[str, Sequence[int]]
    of_table: Mapping[str, Any]

    def places(self) -> list[int]:
        return sorted(place for own in self.facts.values() for place in own)

    def about(
        self, target: Target | None = None, ranking: Ranking | None = None, k: int = 0
    ) -> dict[str, Any]:
        """What every subset records; of a removal also how sure its top is."""
        ties, taken = (0, 0) if ranking is None else ranking.ties(k)
        return {
            "queries": [] if target is None else queries_of(self.table, target),
            "ties": ties,
            "ties_taken": taken,
            "not_positive": 0 if ranking is None else ranking.not_positive(k),
            "no_matched_fact": None,
            **self.of_table,
        }

    def of(self, target: Target, method: str) -> Iterator[Removal]:
        places = self.places()
        keys = self.dataset.document_dataset.keys()
        among = [keys[place] for place in places]
        ranking = rank(self.table, target, method, among=among, seed=self.args.seed)
        for k in self.args.removal_k:
            if k >= len(places):
                raise UsageError(
                    f"--removal_k {k}: there are {len(places)} documents to remove from, and a "
                    f"control needs as many others: at most {len(places) // 2}"
                )
            top = tuple(places[i] for i in ranking.order[:k])
            about = self.about(target, ranking, k)
            named: dict[str, Any] = {"target": target.name, "method": method, "k": k}
            key = (self.args.seed, target.name, method, k)
            draws = range(self.args.removal_control_draws)
            controls: list[Removal] = []
            try:
                for draw in draws:
                    drawn = random_control(top, places, key=(*key, draw))
                    controls.append(Removal("random", drawn, **named, draw=draw, about=about))
            except ValueError as error:
                raise UsageError(f"--removal_k: {error}") from None
            try:
                for draw in draws:
                    drawn = matched_control(top, self.facts, key=(*key, draw))
                    controls.append(Removal("matched_fact", drawn, **named, draw=draw, about=about))
            except TooFewOthersError as error:
                about = about | {"no_matched_fact": str(error)}
            yield Removal("top", top, **named, about=about)
            yield from (replace(control, about=about) for control in controls)

    def subset(self, removal: Removal) -> Subset:
        removed: Places = removal.removed
        left = set(self.places()).difference(removed)
        return Subset("train", tuple(sorted(left)), removal=removal)


def _read(folder: Path) -> Attributions:
    try:
        return Attributions.load(folder)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise UsageError(f"--removal_table: {error}") from None


def _check_belongs(
    table: Attributions,
    dataset: StructuredDataset,
    facts: Mapping[str, Sequence[int]],
    args: DataModelingArgs,
) -> list[str]:
    """Refuse a table of other documents: ids name what a document tells, not its words."""
    assert args.dataset_builder_path is not None
    here = file_digest(args.dataset_builder_path)
    scored = table.about.get("trained_dataset_digest") or table.about.get("dataset_digest")
    where = f"--removal_table {args.removal_table}"
    if scored is not None and scored != here:
        raise UsageError(
            f"{where} scored the documents of another file than {args.dataset_builder_path} "
            f"(sha256 {scored[:16]}…, not {here[:16]}…): name the dataset of the run that was "
            f"scored, {table.about.get('run', 'which the table does not say')}, or attribute a run "
            "on this one"
        )
    keys = dataset.document_dataset.keys()
    of_table = {(r["id"], r["occurrence"]) for r in table.documents if r["type"] == SYNTHETIC}
    lacking = [place for own in facts.values() for place in own if keys[place] not in of_table]
    unknown = of_table.difference(keys)
    if lacking or unknown:
        raise UsageError(
            f"{where}: {len(lacking)} of the documents to remove from have no score, and "
            f"{len(unknown)} that have one are not in {args.dataset_builder_path}: attribute a run "
            "that trained all of them"
        )
    if scored is None:
        return ["the table does not say which file it is of: ids of documents alone were compared"]
    return []


def _notes(removals: Sequence[Removal]) -> list[str]:
    tops = [one for one in removals if one.kind == "top"]
    notes = []
    for key, what in (
        ("ties", "at k documents have equal scores, and a draw says which are removed"),
        (
            "not_positive",
            "documents among the first k have no positive score: the method does not "
            "say that they teach the answers",
        ),
        ("no_matched_fact", "there is no matched_fact control, for want of others of a fact"),
    ):
        own = [one for one in tops if one.about[key]]
        if own:
            first = own[0]
            where = f"{first.method}, {first.target}, k {first.k}{', …' * (len(own) > 1)}"
            notes.append(f"{len(own)} of {len(tops)} removals ({where}): {what}")
            if key == "no_matched_fact":
                notes[-1] += f" ({first.about[key]})"
    return notes


__all__ = ["FACTS", "check_asked", "plan_removals"]
