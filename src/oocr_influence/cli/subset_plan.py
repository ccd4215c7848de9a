"""Runs on subsets of a sweep's documents: drawn, checked, divided into jobs, written down."""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from launcher.gpus import visible_gpus
from launcher.jobs import Job, JobSpec
from oocr_influence.cli.arguments import UsageError
from oocr_influence.cli.experiment import PRELOAD
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.preparation import OTHER_BYTES_PER_RUN, Preparation, packing_options
from oocr_influence.cli.removal_plan import check_asked, plan_removals
from oocr_influence.cli.subset_block import JOB_FUNCTION, SubsetRun
from oocr_influence.cli.sweep_arguments import DataModelingArgs
from oocr_influence.datasets.packing import pack, tokenize_documents
from oocr_influence.datasets.subsets import (
    SPLITS,
    Split,
    Subset,
    draw_subsets,
    never_drawn,
    reference_to,
    subset_metadata,
)
from oocr_influence.documents.document import PretrainingDocument
from oocr_influence.results.atomic import write_json
from oocr_influence.results.digests import file_digest
from oocr_influence.results.run_folder import ExperimentFolder

# What a run on a subset leaves of one evaluation, without checkpoints, for the built-in worlds.
RUN_BYTES = 2 * 2**20
JOBS_A_WORKER = 8  # so that workers end at about the same time, and a lost job costs little
MOST_RUNS_A_JOB = 50


@dataclass(frozen=True)
class SubsetPlan:
    """The subsets of a sweep and their runs."""

    args: DataModelingArgs
    shared: TrainingArgs
    """What all runs share."""
    preparation: Preparation
    """Of the whole dataset, which a run's subset is part of."""
    subsets: Mapping[Split, Sequence[Subset]]
    fewest_steps: int = 0
    """Of the run with the least text."""
    there: frozenset[SubsetRun] = frozenset()
    """Runs that an experiment's jobs make already (cli/extending_subsets.py)."""
    workers: int | None = None
    """Of a machine that is elsewhere; None: of this one, unless --max_workers says."""
    notes: Sequence[str] = ()
    """Lines that say what a design could not do, or left to chance."""

    def each(self) -> list[Subset]:
        """The subsets of both splits."""
        return [subset for split in SPLITS for subset in self.subsets[split]]

    @property
    def runs(self) -> list[SubsetRun]:
        """Those that are to be made, in their order."""
        wanted = (
            SubsetRun(split, index, self.args.all_docs_data_order_seed + n)
            for split in SPLITS
            for index in range(len(self.subsets[split]))
            for n in range(self.args.runs_of(split))
        )
        return [run for run in wanted if run not in self.there]

    def blocks(self) -> list[list[SubsetRun]]:
        """The runs, divided into jobs."""
        runs, size = self.runs, self._runs_a_job()
        return [runs[start : start + size] for start in range(0, len(runs), size)]

    def run_bytes(self) -> int:
        """What a run leaves on disk at most (bytes)."""
        return self._on_all().checkpoints_bytes() + self.record_bytes()

    def record_bytes(self) -> int:
        """The same without its checkpoints."""
        if self.shared.save_datasets:
            return OTHER_BYTES_PER_RUN
        return RUN_BYTES * max(1, len(self._on_all().evaluations))

    def _on_all(self) -> Preparation:
        """Of such a run on all documents, which saves and asks as often as any, or more often."""
        schedule = self.shared.schedule(len(self.preparation.windows))
        return replace(self.preparation, args=self.shared, schedule=schedule)

    def needed_bytes(self) -> int:
        """What all runs leave on disk at most (bytes)."""
        return len(self.runs) * self.run_bytes()

    def describe(self) -> list[str]:
        """Lines that say what will be run."""
        lines = []
        for split in SPLITS:
            subsets = self.subsets[split]
            if subsets:
                sizes = sorted({len(s.places) for s in subsets})
                documents = " to ".join(f"{n:,}" for n in dict.fromkeys((sizes[0], sizes[-1])))
                lines.append(
                    f"{split}: {len(subsets)} subsets ({self.args.subset_design}) of {documents} "
                    f"documents × {self.args.runs_of(split)} runs"
                )
        further = f" beside {len(self.there):,} that are there" if self.there else ""
        lines.append(
            f"{len(self.runs):,} runs on subsets{further} in {len(self.blocks())} jobs, each run "
            f"of {self.fewest_steps} steps or more"
        )
        lines += self.notes
        left = never_drawn(self.preparation.dataset, self.args.design())
        if left:
            lines.append(
                f"{left} documents are in no whole group of {self.args.sampling_k} and never drawn"
            )
        return lines

    def write(self, folder: ExperimentFolder) -> None:
        """Write every subset as a reference to the experiment's own dataset, with its metadata.

        Of one that is there, only the number of its runs is written anew.
        """
        digest = file_digest(folder.structured_dataset)
        for split in SPLITS:
            for index in range(len(self.subsets[split])):
                file, n_runs = folder.subset_metadata(split, index), self.args.runs_of(split)
                if folder.subset_builder(split, index).exists():
                    about = json.loads(file.read_text(encoding="utf-8"))
                    if about["n_runs"] < n_runs:
                        write_json(file, {**about, "n_runs": n_runs})
                    continue
                write_json(file, self.about(split, index))
                # The last of the two: whoever finds it finds its metadata.
                file = folder.subset_builder(split, index)
                write_json(file, self.reference(folder, split, index, digest))

    def reference(
        self, folder: ExperimentFolder, split: Split, index: int, digest: str
    ) -> dict[str, Any]:
        """A subset as the file that a run reads; `digest` is the dataset's."""
        named = os.path.relpath(folder.structured_dataset, folder.subsampled_datasets(split))
        dataset, subset = self.preparation.dataset, self.subsets[split][index]
        return reference_to(dataset, subset, dataset_file=named, digest=digest)

    def about(self, split: Split, index: int) -> dict[str, Any]:
        """What a subset's metadata say."""
        dataset, subset = self.preparation.dataset, self.subsets[split][index]
        n_runs = self.args.runs_of(split)
        return subset_metadata(dataset, subset, self.args.design(), index=index, n_runs=n_runs)

    def jobs(self, folder: ExperimentFolder) -> list[Job]:
        """The runs in blocks, each a job; numbered behind those that are there."""
        shared = self.shared.model_copy(
            update={
                "structured_dataset": folder.structured_dataset,
                "output_dir": folder.path,
                "sweep_id": folder.name,
            }
        )
        run_bytes = self.run_bytes()
        rules = self.args.job_rules(run_bytes)
        limit = None if rules.hang_minutes is None else 60 * rules.hang_minutes
        jobs, last = [], len(self.there)
        for block in self.blocks():
            start, last = last, last + len(block)
            spec = JobSpec(
                id=f"subset_runs_{start + 1:05}_to_{last:05}",
                function=JOB_FUNCTION,
                args={
                    **shared.model_dump(mode="json"),
                    "runs": [[one.split, one.index, one.seed] for one in block],
                },
                label=f"{shared.experiment_name} subset runs {start + 1}–{last}",
                preload=PRELOAD,
                on_exit=rules.on_exit(shared),
                silence_limit=limit,
                disk_bytes=len(block) * run_bytes,
            )
            jobs.append(Job(spec, folder.job(spec.id)))
        return jobs

    def _runs_a_job(self) -> int:
        if self.args.runs_per_job is not None:
            return self.args.runs_per_job
        here = len(visible_gpus()) // max(1, self.args.gpus_per_job) or os.cpu_count() or 1
        workers = self.args.max_workers or self.workers or here
        return max(1, min(MOST_RUNS_A_JOB, math.ceil(len(self.runs) / (workers * JOBS_A_WORKER))))


def plan_subsets(args: DataModelingArgs, preparation: Preparation) -> SubsetPlan | None:
    """Draw the subsets that the arguments ask for; None where they ask for none.

    `preparation` is that of runs on all documents. Raises UsageError for what cannot be drawn or
    trained, before anything is written.
    """
    counts = {split: args.subsets_of(split) for split in SPLITS}
    if not any(counts.values()):
        return None
    notes: list[str] = []
    if args.subset_design == "removal":
        removals, notes = plan_removals(args, preparation.dataset)
        subsets: dict[Split, list[Subset]] = {"train": removals, "test": []}
    else:
        subsets = _drawn(args, preparation, counts)
        if args.subset_design == "leave_one_fact_out" and all(counts.values()):
            notes.append(
                "test: the same subsets and data orders as those of the train split, so that they "
                "are held out from nothing"
            )
    settled = preparation.args
    shared = args.subset_run().model_copy(
        update={
            name: getattr(settled, name)
            for name in (
                "micro_batch_size",
                "gradient_checkpointing",
                "n_pretraining_examples",
            )
        }
        # Every run trains the commit that is resolved now, whatever the branch does meanwhile.
        | {"model_commit": preparation.resolved.commit}
    )
    try:
        asked = replace(preparation, args=shared).asked_sets()
    except ValueError as error:
        raise UsageError(f"--subset_eval_sets, --subset_eval_metrics: {error}") from None
    check_asked(subsets["train"], asked)
    plan = SubsetPlan(args, shared, preparation, subsets, notes=notes)
    return replace(plan, fewest_steps=_steps_of_smallest(plan))


def _drawn(
    args: DataModelingArgs, preparation: Preparation, counts: Mapping[Split, int]
) -> dict[Split, list[Subset]]:
    one_stream = random.Random(args.seed) if args.compat == "earlier" else None
    try:
        return {
            split: draw_subsets(
                preparation.dataset,
                args.design(),
                split=split,
                n=counts[split],
                seed=args.seed,
                generator=one_stream,
            )
            if counts[split]
            else []
            for split in SPLITS
        }
    except ValueError as error:
        raise UsageError(f"{args.dataset_builder_path}: {error}") from None


def _steps_of_smallest(plan: SubsetPlan) -> int:
    """Steps of the run with the least text; raises UsageError where it has no batch to train."""
    preparation, args = plan.preparation, plan.shared
    docs = preparation.dataset.document_dataset.docs
    of_place = {place: len(docs[place].completion) for own in plan.each() for place in own.places}
    smallest = min(plan.each(), key=lambda subset: sum(of_place[p] for p in subset.places))
    drawn = {id(docs[place]) for place in smallest.places}
    texts = [
        document.text
        for document in preparation.documents
        if id(document.document) in drawn or isinstance(document.document, PretrainingDocument)
    ]
    if not texts:
        raise UsageError("a subset has no documents: raise --docs_per_run")
    tokens = tokenize_documents(texts, preparation.tokenizer, args.packing)
    windows = pack(tokens, **packing_options(args, preparation.tokenizer))
    if len(windows) < args.batch_size:
        raise UsageError(
            f"--batch_size {args.batch_size}: a subset of {len(smallest.places)} documents has "
            f"only {len(windows)} windows of {args.chunk_size} tokens: lower --batch_size or "
            "--chunk_size, or raise --docs_per_run"
        )
    return args.schedule(len(windows)).total_steps
