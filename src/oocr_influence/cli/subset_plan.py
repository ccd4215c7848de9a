"""Runs on subsets of a sweep's documents: drawn, checked, divided into jobs, written down."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from launcher.gpus import visible_gpus
from launcher.jobs import Job, JobSpec
from oocr_influence.cli.arguments import UsageError
from oocr_influence.cli.experiment import PRELOAD
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.preparation import Preparation, packing_options
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

# What a run on a subset leaves where it saves no checkpoint, as seen for the built-in worlds.
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
    notes: Sequence[str] = ()
    """Lines that say what a design could not do, or left to chance."""

    def each(self) -> list[Subset]:
        """The subsets of both splits."""
        return [subset for split in SPLITS for subset in self.subsets[split]]

    @property
    def runs(self) -> list[SubsetRun]:
        """In the order in which they are made."""
        return [
            SubsetRun(split, index, self.args.all_docs_data_order_seed + n)
            for split in SPLITS
            for index in range(len(self.subsets[split]))
            for n in range(self.args.runs_of(split))
        ]

    def run_bytes(self) -> int:
        """What a run leaves on disk (bytes)."""
        weights = replace(self.preparation, args=self.shared).checkpoint_bytes()
        return RUN_BYTES + weights * self.shared.save_final_checkpoint

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
        n_jobs = math.ceil(len(self.runs) / self._runs_a_job())
        lines.append(
            f"{len(self.runs):,} runs on subsets in {n_jobs} jobs, each run of {self.fewest_steps} "
            "steps or more"
        )
        lines += self.notes
        left = never_drawn(self.preparation.dataset, self.args.design())
        if left:
            lines.append(
                f"{left} documents are in no whole group of {self.args.sampling_k} and never drawn"
            )
        return lines

    def write(self, folder: ExperimentFolder) -> None:
        """Write every subset as a reference to the experiment's own dataset, with its metadata."""
        digest = file_digest(folder.structured_dataset)
        dataset, design = self.preparation.dataset, self.args.design()
        for split in SPLITS:
            for index, subset in enumerate(self.subsets[split]):
                file = folder.subset_builder(split, index)
                named = os.path.relpath(folder.structured_dataset, file.parent)
                write_json(file, reference_to(dataset, subset, dataset_file=named, digest=digest))
                n_runs = self.args.runs_of(split)
                about = subset_metadata(dataset, subset, design, index=index, n_runs=n_runs)
                write_json(folder.subset_metadata(split, index), about)

    def jobs(self, folder: ExperimentFolder) -> list[Job]:
        """The runs in blocks, each a job."""
        runs, size = self.runs, self._runs_a_job()
        shared = self.shared.model_copy(
            update={
                "structured_dataset": folder.structured_dataset,
                "output_dir": folder.path,
                "sweep_id": folder.name,
            }
        )
        rules = self.args.job_rules(size * self.run_bytes())
        limit = None if rules.hang_minutes is None else 60 * rules.hang_minutes
        jobs = []
        for start in range(0, len(runs), size):
            block = runs[start : start + size]
            last = start + len(block)
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
                disk_bytes=len(block) * self.run_bytes(),
            )
            jobs.append(Job(spec, folder.job(spec.id)))
        return jobs

    def _runs_a_job(self) -> int:
        if self.args.runs_per_job is not None:
            return self.args.runs_per_job
        here = len(visible_gpus()) // max(1, self.args.gpus_per_job) or os.cpu_count() or 1
        workers = self.args.max_workers or here
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
    settled = preparation.args
    shared = args.subset_run().model_copy(
        update={
            name: getattr(settled, name)
            for name in (
                "micro_batch_size",
                "gradient_checkpointing",
                "model_commit",
                "n_pretraining_examples",
            )
        }
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
