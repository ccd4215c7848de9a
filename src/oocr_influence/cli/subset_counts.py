"""What runs on subsets will do, counted: each subset has windows, and so steps, of its own.

    counts = count_subsets(plan)
    counts.of(SubsetRun("train", 7, 42)).updates

Each subset is packed as its runs pack it, out of the tokens of the whole dataset's windows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from oocr_influence.cli.arguments import UsageError
from oocr_influence.cli.plan_counts import RunCounts, count_run
from oocr_influence.cli.preparation import Preparation, packing_options
from oocr_influence.cli.subset_block import SubsetRun
from oocr_influence.cli.subset_plan import SubsetPlan
from oocr_influence.datasets.packing import IntArray, Piece, pack, tokenize_documents
from oocr_influence.datasets.selection import (
    TrainingDocument,
    in_packing_order,
    select_documents,
)
from oocr_influence.datasets.subsets import SPLITS, Subset
from oocr_influence.documents.document import PretrainingDocument

COUNTED = 1000  # subsets; of more, as many at equal distances stand for all
_Key = tuple[str, int]  # split, index


@dataclass(frozen=True)
class SubsetCounts:
    """The runs of the subsets that were counted, all of them unless there are very many."""

    counted: Mapping[_Key, RunCounts]
    checkpoint_bytes: Mapping[_Key, int]
    """What the checkpoints of a run take."""
    n_subsets: int
    typical: Preparation
    """Of a run on the subset with the median number of windows."""

    @property
    def is_exact(self) -> bool:
        return len(self.counted) == self.n_subsets

    def of(self, run: SubsetRun) -> RunCounts | None:
        """None where the run's subset was not counted."""
        return self.counted.get((run.split, run.index))

    def total(self, plan: SubsetPlan, amount: Callable[[RunCounts], float]) -> float:
        """Over all runs; a run that was not counted has what one has on average."""
        each = [amount(counts) for run in plan.runs if (counts := self.of(run)) is not None]
        return sum(each) * len(plan.runs) / max(len(each), 1)


def count_subsets(plan: SubsetPlan, at_most: int = COUNTED) -> SubsetCounts:
    """Pack every subset; of more than `at_most`, so many."""
    subsets: dict[_Key, Subset] = {
        (split, index): subset
        for split in SPLITS
        for index, subset in enumerate(plan.subsets[split])
    }
    keys = list(subsets)
    if len(keys) > at_most:
        keys = [keys[place * len(keys) // at_most] for place in range(at_most)]
    packer = _Packer(plan)
    counted, saved = {}, {}
    for key in keys:
        preparation = packer.preparation(subsets[key])
        counted[key] = count_run(preparation)
        saved[key] = preparation.checkpoints_bytes()
    middle = sorted(keys, key=lambda key: counted[key].windows)[len(keys) // 2]
    return SubsetCounts(counted, saved, len(subsets), packer.typical(subsets[middle]))


class _Packer:
    """What runs on subsets of one dataset are prepared as, without writing their files."""

    def __init__(self, plan: SubsetPlan) -> None:
        self._whole, self._args = plan.preparation, plan.shared
        self._docs = self._whole.dataset.document_dataset.docs
        self._file_order = select_documents(
            self._whole.dataset,
            n_pretraining_examples=self._args.n_pretraining_examples,
            seed=self._args.seed,
            packing_seed=self._args.packing_seed,
            document_order="file",
        )
        self._packing = packing_options(self._args, self._whole.tokenizer)
        self._tokens = _tokens_of(self._whole)
        lacking = [one for one in self._file_order if one.key not in self._tokens]
        texts = [document.text for document in lacking]
        tokens = tokenize_documents(texts, self._whole.tokenizer, self._args.packing)
        self._tokens |= {one.key: ids for one, ids in zip(lacking, tokens, strict=True)}

    def typical(self, subset: Subset) -> Preparation:
        """The same with the dataset that such a run reads."""
        drawn = set(subset.places)
        kept = [
            place
            for place, document in enumerate(self._docs)
            if place in drawn or isinstance(document, PretrainingDocument)
        ]
        documents = self._whole.dataset.document_dataset.only(kept)
        dataset = self._whole.dataset.model_copy(update={"document_dataset": documents})
        return replace(self.preparation(subset), dataset=dataset)

    def preparation(self, subset: Subset) -> Preparation:
        documents = in_packing_order(
            self._of_places(set(subset.places)),
            packing_seed=self._args.packing_seed,
            document_order=self._args.document_order,
        )
        try:
            windows = pack([self._tokens[document.key] for document in documents], **self._packing)
            schedule = self._args.schedule(len(windows))
        except ValueError as error:
            raise UsageError(f"a subset of {len(subset.places)} documents: {error}") from None
        return replace(
            self._whole,
            # As of a run on a subset, which earlier ones are looked for by.
            args=self._args.model_copy(update={"subset_split": subset.split}),
            documents=documents,
            windows=windows,
            schedule=schedule,
        )

    def _of_places(self, places: set[int]) -> list[TrainingDocument]:
        drawn = {id(self._docs[place]) for place in places}
        return [
            document
            for document in self._file_order
            if id(document.document) in drawn or isinstance(document.document, PretrainingDocument)
        ]


def _tokens_of(whole: Preparation) -> dict[tuple[str, int], IntArray]:
    """The tokens of each document, but for those of which a dropped last window had some."""
    pieces: dict[int, list[Piece]] = {}
    for piece in whole.windows.pieces:
        pieces.setdefault(piece.document, []).append(piece)
    found = {}
    for document, own in pieces.items():
        last = max(own, key=lambda piece: piece.doc_end)
        if last.truncated:
            continue
        ids = np.empty(last.doc_end, dtype=np.int64)
        for piece in own:
            tokens = whole.windows.input_ids[piece.window, piece.start : piece.end]
            ids[piece.doc_start : piece.doc_end] = tokens
        found[whole.documents[document].key] = ids
    return found
