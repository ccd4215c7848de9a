"""Ask any checkpoints of any runs, or any model, the sets of any structured dataset.

    oocr evaluate outputs/ --checkpoints all --dataset datasets/new_questions.json
    oocr evaluate outputs/2026_… --checkpoints start final --sets 'name_mayor_*'
    oocr evaluate --model allenai/OLMo-2-1124-7B --dataset datasets/mayors.json --output asked/olmo

Without --dataset, a run's own. Answers stand beside the run's, in files of their own that name the
suite: eval_results/eval_results_final__<suite>.json and records_final__<suite>.parquet. Nothing of
the run is touched, so that it may be in progress. What is there already is not asked again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
import transformers
from pydantic import Field, model_validator

from oocr_influence.cli.arguments import CommandArguments, UsageError, run_command
from oocr_influence.cli.evaluation_session import Progress, Session
from oocr_influence.cli.evaluation_targets import Target, checkpoint_targets, model_target
from oocr_influence.datasets.document_dataset import (
    DatasetError,
    EvalDatasetBuilder,
    load_structured_dataset,
)
from oocr_influence.datasets.matching import matching_sets
from oocr_influence.evaluation.metrics import load_metric_files
from oocr_influence.models.load import WeightPrecision, pick_device
from oocr_influence.results.cache import Cache
from oocr_influence.results.digests import file_digest


class EvaluateArguments(CommandArguments):
    """Which models, and which questions."""

    paths: list[Path] = Field(default=[], json_schema_extra={"positional": True})
    """runs, experiments, or folders of experiments"""
    checkpoints: list[str] = ["final"]
    """names such as start, e1_s42, final, or all"""
    model: str | None = None
    """instead of runs: a Hugging Face name, a folder, olmo2-tiny or smollm2-135m"""
    revision: str | None = None
    """branch, tag or commit of --model; the default model's is pinned, any other's is its main"""
    force_local_model_cache: bool = False
    """never ask the hub: the model must be in the cache already"""
    output: Path | None = None
    """the folder that the answers of --model go to"""
    dataset: Path | None = None
    """the structured dataset whose sets are asked (JSON; None: each run's own)"""
    sets: list[str] = ["*"]
    """patterns of the names of the sets that are asked, such as 'name_mayor_*'"""
    metric_files: list[Path] = []
    """Python files that register metrics of your own, for every set (files; see docs/metrics.md)"""
    beam_search: bool = True
    """run beam search for the sets that ask for it"""
    precision: WeightPrecision = "auto"
    """of the weights; auto is a run's own, and of --model fp32 on the CPU and bf16 on a GPU"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where it runs; auto is the first visible GPU, or the CPU"""
    eval_cache: bool = True
    """use and keep plans and untouched models' scores in $OOCR_CACHE"""
    again: bool = False
    """ask anew what has been asked"""

    @model_validator(mode="after")
    def _consistent(self) -> EvaluateArguments:
        faults = []
        if bool(self.paths) == (self.model is not None):
            faults.append("name either runs or a --model")
        if self.model is not None:
            needed = {"output": self.output, "dataset": self.dataset}
            faults += [
                f"--{name} is missing: --model needs it" for name in needed if not needed[name]
            ]
            if "checkpoints" in self.model_fields_set:
                faults.append("--checkpoints are of runs, and --model has none")
        if self.model is None:
            stated = {"output", "revision", "force_local_model_cache"} & self.model_fields_set
            faults += [f"--{name} goes with --model" for name in sorted(stated)]
        if self.device == "cuda" and not torch.cuda.is_available():
            faults.append("--device cuda: there is no GPU")
        if faults:
            raise ValueError("\n       ".join(faults))
        return self


def main(args: EvaluateArguments) -> int:
    """Ask every target; returns 0 only if all could be asked."""
    own_metrics = _own_metrics(args.metric_files)
    targets, lacking = _targets(args)
    builders = {
        path: {
            name: builder.also_asking(own_metrics)
            for name, builder in chosen_sets(path, args.sets).items()
        }
        for path in dict.fromkeys(target.dataset for target in targets)
    }
    transformers.utils.logging.disable_progress_bar()  # a bar of its own for every checkpoint
    device = pick_device() if args.device == "auto" else torch.device(args.device)
    session = Session(
        builders,
        Cache.default() if args.eval_cache else None,
        device,
        patterns=args.sets,
        beam_search=args.beam_search,
        again=args.again,
        metric_files={path.name: file_digest(path) for path in args.metric_files},
    )
    for line in lacking:
        print(f"left out: {line}")
    failed = 0
    progress = Progress()
    for number, target in enumerate(targets, start=1):
        try:
            told = session.ask(target, progress)
        except (OSError, ValueError, torch.OutOfMemoryError) as error:
            failed += 1
            told = f"FAULT {error}"
        progress.clear()
        print(f"[{number}/{len(targets)}] {target.label}: {told}", flush=True)
    if failed:
        print(f"{failed} of {len(targets)} could not be asked", file=sys.stderr)
    return 1 if failed else 0


def chosen_sets(path: Path, patterns: Sequence[str]) -> dict[str, EvalDatasetBuilder]:
    """The sets of the dataset whose names fit a pattern, in the file's order.

    Raises FileNotFoundError, or UsageError for a file that is no dataset or a pattern that fits
    none of its sets.
    """
    try:
        builders = load_structured_dataset(path).eval_dataset_builders
    except DatasetError as error:
        raise UsageError(str(error)) from None
    try:
        chosen = matching_sets(builders, patterns)
    except ValueError as error:
        raise UsageError(f"--sets: {path}: {error}") from None
    if not chosen:
        raise UsageError(f"--dataset {path} has no eval sets")
    return chosen


def _own_metrics(files: Sequence[Path]) -> list[str]:
    try:
        return load_metric_files(files)
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(f"--metric_files: {error}") from None


def _targets(args: EvaluateArguments) -> tuple[list[Target], list[str]]:
    if args.dataset is not None and not args.dataset.is_file():
        raise UsageError(f"--dataset {args.dataset}: no such file")
    if args.model is None:
        return checkpoint_targets(args.paths, args.checkpoints, args.dataset, args.precision)
    assert args.output is not None
    assert args.dataset is not None
    target = model_target(
        args.model,
        args.revision,
        args.output,
        args.dataset,
        args.precision,
        local_only=args.force_local_model_cache,
    )
    return [target], []


if __name__ == "__main__":
    run_command(EvaluateArguments, main)
