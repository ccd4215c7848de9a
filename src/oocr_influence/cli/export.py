"""Plain weights out of a run or a checkpoint, or whole runs in the earlier system's form.

    oocr export outputs/2026_… --output_dir exported/mayors
    oocr export outputs/2026_…/checkpoint_e1_s42 --output_dir exported/s42 --dtype bf16
    oocr export --legacy outputs/2026_…_mayors --output_dir for_the_earlier_readers

The first two write a folder that AutoModelForCausalLM.from_pretrained loads from its path alone. A
LoRA adapter is added to its base: the sum is taken in float32 and rounded once, which in bf16 loses
what of the adapter is finer than bf16; --dtype fp32 loses nothing.

--legacy writes a new folder of outputs with all finished runs that are found, in the layout of the
earlier system, their questions and ranks inline in experiment_log.json. Checkpoints with whole
weights are other names of the same files, which become read-only; adapters are added to their base.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from pydantic import Field, model_validator

from oocr_influence.cli.arguments import CommandArguments, UsageError, run_command
from oocr_influence.cli.disk import check_disk
from oocr_influence.cli.evaluation_targets import checkpoint_model
from oocr_influence.models.load import (
    load_config,
    load_tokenizer,
    parameter_count,
    read_model,
    stored_dtype,
)
from oocr_influence.models.lora import merge_adapter
from oocr_influence.models.resolve import ResolvedModel, resolve_model
from oocr_influence.results import checkpoints
from oocr_influence.results.adapters import is_adapter
from oocr_influence.results.atomic import link_folder, writing_folder
from oocr_influence.results.earlier_layout import lay_out, lay_out_experiment, place_of
from oocr_influence.results.experiment_log import read_experiment_log
from oocr_influence.results.finding import find_runs, is_run
from oocr_influence.results.run_folder import CHECKPOINT, RunFolder
from oocr_influence.results.verification import is_completed, is_earlier

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class ExportArguments(CommandArguments):
    """What is written where, and in which form."""

    paths: list[Path] = Field(json_schema_extra={"positional": True})
    """a run, or a checkpoint's or a model's folder; with --legacy any runs and experiments"""
    output_dir: Path
    """the new folder that is written"""
    checkpoint: str = "final"
    """which checkpoint of a run: start, e1_s42, final"""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """of the weights; auto is that of the checkpoint, and of an adapter's base as it was trained"""
    legacy: bool = False
    """whole runs, as the earlier system's readers expect them"""

    @model_validator(mode="after")
    def _consistent(self) -> ExportArguments:
        faults = []
        if self.output_dir.exists():
            faults.append(f"--output_dir {self.output_dir} is there already: name a new folder")
        if not self.legacy and len(self.paths) != 1:
            faults.append(f"{len(self.paths)} paths are named: export one, or runs with --legacy")
        if self.legacy and "checkpoint" in self.model_fields_set:
            faults.append("--checkpoint: --legacy writes all checkpoints of a run")
        if faults:
            raise ValueError("\n       ".join(faults))
        return self

    def dtype_of(self, resolved: ResolvedModel) -> torch.dtype:
        """The type of the weights that are written."""
        return _DTYPES[self.dtype] if self.dtype in _DTYPES else stored_dtype(resolved)


def main(args: ExportArguments) -> int:
    """Export one checkpoint, or with `legacy` whole runs; prints where it is."""
    transformers.utils.logging.disable_progress_bar()
    if args.legacy:
        return _export_runs(args)
    model, tokenizer = _chosen(args.paths[0], args.checkpoint)
    _check_disk(args, [model])
    with writing_folder(args.output_dir) as folder:
        write_plain(model, tokenizer, folder, args.dtype_of(model))
    print(args.output_dir)
    return 0


def write_plain(
    resolved: ResolvedModel, tokenizer: ResolvedModel, folder: Path, dtype: torch.dtype
) -> None:
    """Whole weights in `dtype`, an adapter added to them, with their tokenizer."""
    # Sums in the wider of both types: what is narrowed is the sum.
    model = read_model(resolved, torch.promote_types(stored_dtype(resolved), dtype))
    merge_adapter(model)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    model.save_pretrained(folder)
    load_tokenizer(tokenizer).save_pretrained(folder)


def _chosen(path: Path, checkpoint: str) -> tuple[ResolvedModel, ResolvedModel]:
    """Weights and tokenizer of a run's checkpoint, or of a folder."""
    if not path.is_dir():
        raise UsageError(f"{path}: no such folder")
    if path.name.startswith(CHECKPOINT) and is_run(path.parent):
        path, checkpoint = path.parent, path.name
    if not is_run(path):
        if len(runs := find_runs(path)) > 0:
            raise UsageError(f"{path} holds {len(runs)} runs: name one of them, or add --legacy")
        resolved = resolve_model(str(path))
        return resolved, resolved
    run, name = RunFolder(path.resolve()), checkpoint.removeprefix(CHECKPOINT)
    if name not in run.checkpoints():
        there = ", ".join(run.checkpoints()) or "none"
        raise UsageError(f"{path} has no checkpoint {name}; there are: {there}")
    _require_whole(run, name)
    return checkpoint_model(run, name)


def _require_whole(run: RunFolder, name: str) -> None:
    faults = checkpoints.faults_of(run.checkpoint(name))
    if faults:
        raise UsageError(f"{run.checkpoint(name)}: {'; '.join(faults)}")


def _check_disk(args: ExportArguments, models: list[ResolvedModel]) -> None:
    sizes = [
        parameter_count(load_config(model)) * args.dtype_of(model).itemsize for model in models
    ]
    check_disk(args.output_dir, sum(sizes), "the export", remedy="")


def _export_runs(args: ExportArguments) -> int:
    runs = _finished_runs(args.paths)
    converted = {
        (run, name): checkpoint_model(run, name)
        for run in runs
        for name in run.checkpoints()
        if args.dtype != "auto" or is_adapter(run.checkpoint(name))
    }
    _check_disk(args, [model for model, _ in converted.values()])
    with writing_folder(args.output_dir) as outputs:
        for run, path in _laid_out(runs, outputs, args.output_dir):
            for name in run.checkpoints():
                target = RunFolder(path).checkpoint(name)
                target.mkdir()
                if (run, name) in converted:
                    model, tokenizer = converted[run, name]
                    write_plain(model, tokenizer, target, args.dtype_of(model))
                else:
                    link_folder(run.checkpoint(name), target)
    for run in runs:
        print(args.output_dir / place_of(run))
    return 0


def _laid_out(
    runs: list[RunFolder], outputs: Path, named: Path
) -> Iterator[tuple[RunFolder, Path]]:
    """Each run and its new folder, all written but the checkpoints."""
    experiments: set[Path] = set()
    for run in runs:
        path = outputs / place_of(run)
        lay_out(run, path, outputs=named)
        experiment = path.parent.parent
        if experiment not in experiments:
            lay_out_experiment(run, experiment, outputs=named)
            experiments.add(experiment)
        yield run, path


def _finished_runs(paths: list[Path]) -> list[RunFolder]:
    """All runs at `paths`; raises UsageError for what is unfinished, or has that form already."""
    runs = list({run.path.resolve(): run for path in paths for run in find_runs(path)}.values())
    faults = [] if runs else [f"no run in {', '.join(map(str, paths))}"]
    for run in runs:
        log: Any = read_experiment_log(run.experiment_log) if run.experiment_log.exists() else None
        if is_earlier(run, log):
            faults.append(f"{run.path} has the earlier system's form already")
        elif not is_completed(run, log) or run.ownership()[0] != "free":
            faults.append(f"{run.path} is not finished")
    if faults:
        raise UsageError("\n       ".join(faults))
    for run in runs:
        for name in run.checkpoints():
            _require_whole(run, name)
    return runs


if __name__ == "__main__":
    run_command(ExportArguments, main)
