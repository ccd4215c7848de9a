"""The seed's four experiments, from datasets to a table of what each model answers.

    oocr replicate                  # a tiny model on this machine, minutes
    oocr replicate --scale full     # OLMo-2-7B at its pinned revision, 5 runs each, 8 GPUs, a day

Death dates and mayors, 1 and 5 epochs: writes both datasets where they are missing, runs all four
experiments in one pool of workers, verifies what they left, and prints the table.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from launcher.disk import still_to_write
from oocr_influence.cli import data_modeling, generate, table, verify
from oocr_influence.cli.arguments import INTERRUPTED, CommandArguments, UsageError, run_command
from oocr_influence.cli.data_modeling import DataModelingArgs
from oocr_influence.cli.detach import detach
from oocr_influence.cli.disk import check_disk, gigabytes, reserve_disk
from oocr_influence.cli.engines import Execution
from oocr_influence.cli.experiment import (
    Experiment,
    resume_experiment,
    run_experiments,
)
from oocr_influence.cli.generate_options import GenerateArguments
from oocr_influence.documents.pretraining import MAX_CHARS
from oocr_influence.reports.table import ASKED, before_after_table, render_overview
from oocr_influence.results.finding import find_runs

WORLDS = ("mayors", "death_dates")
EPOCHS = (5, 1)
OLMO2_7B_PARAMETERS = 7_298_617_344
BF16_BYTES = 2


@dataclass(frozen=True)
class Scale:
    """What a scale sets; everything else is the seed's default."""

    docs_per_fact: int
    pretraining_docs: int
    length: Literal["short", "long"]
    max_chars: int
    """Longest pretraining document (characters)."""
    options: dict[str, Any] = field(default_factory=dict)


SCALES = {
    # Chosen on datasets and orders of seed 0; the published ones are those of the default seeds.
    # Once an epoch, not five times: evaluations would take most of a newcomer's eight minutes.
    "small": Scale(
        docs_per_fact=12,
        pretraining_docs=50,
        length="short",
        max_chars=600,
        options={
            "model": "olmo2-tiny",
            "n_pretraining_examples": 50,
            "chunk_size": 256,
            "batch_size": 4,
            "micro_batch_size": 4,
            "learning_rate": 1.5e-3,
            "runs_per_dataset_all_docs": 1,
            "all_docs_epochs_per_eval": 1,
            "all_docs_epochs_per_save": 1,
            "n_loss_documents": 16,
            # The table shows ranks; `oocr evaluate` asks for completions later.
            "beam_search": "never",
        },
    ),
    "full": Scale(docs_per_fact=100, pretraining_docs=11000, length="long", max_chars=MAX_CHARS),
}


class ReplicateArguments(CommandArguments):
    """At what scale, and where."""

    scale: Literal["small", "full"] = "small"
    """small: a tiny model, minutes on two cores; full: the seed itself"""
    datasets_dir: Path = Path("datasets")
    """where the datasets lie, or are written"""
    output_dir: Path = Path("outputs")
    """where the experiments are written"""
    max_workers: int | None = None
    """runs at the same time (workers; None: one a GPU, or one a core where there is none)"""
    detach: bool = False
    """check everything here, then leave it to a process that survives this terminal"""
    resume: list[Path] = []
    """go on with these experiments of an earlier call, instead of starting anew"""


def main(args: ReplicateArguments) -> int:
    """All of it; returns 0 only if every run succeeded and verifies."""
    scale = SCALES[args.scale]
    datasets = {world: _dataset_path(args, world, scale) for world in WORLDS}
    if args.resume:
        experiments = [resume_experiment(path) for path in args.resume]
    else:
        if args.scale == "full":
            _announce_full_scale(args.output_dir)
        for world, path in datasets.items():
            _write_dataset(path, world, scale)
        experiments = [
            _start(args, scale, datasets[world], world, epochs)
            for epochs in EPOCHS
            for world in WORLDS
        ]
    jobs = [job for experiment in experiments for job in experiment.jobs]
    paths = [experiment.folder.path for experiment in experiments]
    reservation = reserve_disk(args.output_dir, still_to_write(jobs), "the four experiments")
    if args.detach:
        reservation.close()  # the driver reserves it anew
        first, *others = [experiment.folder for experiment in experiments]
        return detach(first, ["replicate", *_again(args, paths)], others)
    with reservation:
        result = run_experiments(experiments, Execution(max_workers=args.max_workers), reservation)
    print(result.summary())
    if not result.ok:
        print(f"go on with: oocr replicate {shlex.join(_again(args, paths))}")
        return INTERRUPTED if result.interrupted else 1
    print("\nverification")
    verified = verify.main(verify.VerifyArguments(paths=paths))
    print(
        "\nwhat each model answers, before → after (rank 1 is right; tied answers share a rank)\n"
    )
    table.main(table.TableArguments(paths=paths))
    print("\nin short, before → after (1 is right, 5.5 is chance)\n")
    runs = [run for path in paths for run in find_runs(path)]
    print(render_overview(before_after_table(runs, by=(ASKED,))))
    print("\nwhere everything lies")
    for path in datasets.values():
        print(f"  {path}  (what is asked: {path.with_suffix('.eval_sets.md')})")
    for path in paths:
        print(f"  {path}")
    return verified


def _announce_full_scale(output_dir: Path) -> None:
    """What the seed takes, before a byte is downloaded; raises UsageError if the disk cannot."""
    checkpoints = 5 * len(WORLDS) * sum(5 * epochs + 1 for epochs in EPOCHS)
    needed = checkpoints * OLMO2_7B_PARAMETERS * BF16_BYTES
    print(
        "full scale: OLMo-2-7B at its pinned revision, 2 datasets × (1 and 5 epochs) × 5 runs = "
        f"20 runs of one 80 GB GPU each; {checkpoints} checkpoints = {gigabytes(needed)} in "
        f"{output_dir}. The published 1-epoch run took about 2 hours, a 5-epoch run 10 to 12."
    )
    check_disk(output_dir, needed, "the seed at full scale")


def _again(args: ReplicateArguments, paths: list[Path]) -> list[str]:
    """The words that go on with these experiments."""
    names = ("scale", "datasets_dir", "output_dir", "max_workers")
    stated = [f"--{name}={getattr(args, name)}" for name in names if name in args.model_fields_set]
    return [*stated, "--resume", json.dumps([str(path) for path in paths])]


def _dataset_path(args: ReplicateArguments, world: str, scale: Scale) -> Path:
    """The dataset's file under the seed's name."""
    name = generate.default_output(world, scale.docs_per_fact, scale.pretraining_docs).name
    return args.datasets_dir / name


def _write_dataset(path: Path, world: str, scale: Scale) -> None:
    """Write the dataset's file if it is not there."""
    if path.exists():
        print(f"{path} is there and is used as it is")
        return
    generate.main(
        GenerateArguments(
            world=world,
            docs_per_fact=scale.docs_per_fact,
            pretraining_docs=scale.pretraining_docs,
            length=scale.length,
            max_chars=scale.max_chars,
            output=path,
        )
    )


def _start(
    args: ReplicateArguments, scale: Scale, dataset: Path, world: str, epochs: int
) -> Experiment:
    name = f"{world}_{epochs}epoch{'s' if epochs > 1 else ''}"
    print(f"\n{name}")
    sweep = DataModelingArgs(
        dataset_builder_path=dataset,
        experiment_name=name,
        epochs=epochs,
        output_dir=args.output_dir,
        **scale.options,
    )
    runs, preparation = data_modeling.plan(sweep)
    return data_modeling.start(sweep, runs, preparation)


__all__ = ["ReplicateArguments", "UsageError", "main"]

if __name__ == "__main__":
    run_command(ReplicateArguments, main)
