"""Which weights `oocr evaluate` asks, and where the answers go: found before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from oocr_influence.cli.arguments import UsageError
from oocr_influence.models.load import WeightPrecision
from oocr_influence.models.resolve import ResolvedModel, default_revision, resolve_model
from oocr_influence.results import checkpoints
from oocr_influence.results.adapters import is_adapter
from oocr_influence.results.experiment_log import read_experiment_log
from oocr_influence.results.finding import dataset_file, find_runs
from oocr_influence.results.run_folder import CHECKPOINT, RunFolder

ALL = "all"
_PRECISION: dict[str, WeightPrecision] = {"torch.float32": "fp32", "torch.bfloat16": "bf16"}


@dataclass(frozen=True, kw_only=True)
class Target:
    """One model to ask."""

    folder: RunFolder
    """Its run, or the folder that a bare model's answers go to."""
    name: str
    """Of the checkpoint, or of the model."""
    model: ResolvedModel
    tokenizer: ResolvedModel
    dataset: Path
    precision: WeightPrecision
    """The run's own, where --precision does not say another."""
    step: int = 0
    epoch: float = 0.0
    untouched: ResolvedModel | None = None
    """The run's model before its first step, if that is there and is another."""
    in_run: bool = True

    @property
    def label(self) -> str:
        return f"{self.folder.name} {self.name}" if self.in_run else self.name


def checkpoint_targets(
    paths: Sequence[Path], names: Sequence[str], dataset: Path | None, precision: WeightPrecision
) -> tuple[list[Target], list[str]]:
    """The checkpoints `names` (or `all`) of all runs at `paths`, and which runs lack one.

    Raises FileNotFoundError, or UsageError with every fault.
    """
    runs = list({run.path.resolve(): run for path in paths for run in find_runs(path)}.values())
    if not runs:
        raise UsageError(
            f"no run in {', '.join(map(str, paths))}; a folder of weights alone is asked with "
            "--model FOLDER --output FOLDER"
        )
    wanted = list(dict.fromkeys(name.removeprefix(CHECKPOINT) for name in names))
    faults, lacking, targets = [], [], []
    for run in runs:
        present = run.checkpoints()
        chosen = present if ALL in wanted else [name for name in wanted if name in present]
        missing = [name for name in wanted if name not in (*present, ALL)]
        if not present:
            lacking.append(f"{run.name} has no checkpoints")
        elif missing:
            lacking.append(f"{run.name} has no checkpoint {', '.join(missing)}")
        asked = dataset or dataset_file(run)
        if asked is None and chosen:
            faults.append(f"{run.path}: its structured dataset is not where it was: --dataset FILE")
        if asked is None:
            continue
        for name in chosen:
            broken = checkpoints.faults_of(run.checkpoint(name))
            faults += [f"{run.checkpoint(name)}: {fault}" for fault in broken]
            if not broken:
                targets.append(_of_run(run, name, asked, precision))
    unknown = [n for n in wanted if n != ALL and all(n != target.name for target in targets)]
    if not faults and (unknown or not targets):
        there = sorted({name for run in runs for name in run.checkpoints()})
        what = f"no run has a checkpoint {', '.join(unknown)}" if unknown else "no checkpoints"
        faults.append(f"--checkpoints: {what}; there are: {', '.join(there) or 'none'}")
    if faults:
        raise UsageError("\n       ".join(faults))
    return targets, lacking


def model_target(
    name: str,
    revision: str | None,
    output: Path,
    dataset: Path,
    precision: WeightPrecision,
    *,
    local_only: bool,
) -> Target:
    """A model of its own; raises FileNotFoundError where it cannot be had."""
    revision = revision or default_revision(name)
    resolved = resolve_model(name, revision, local_only=local_only)
    return Target(
        folder=RunFolder(output),
        name=f"{name}@{revision}" if revision else name,
        model=resolved,
        tokenizer=resolved,
        dataset=dataset,
        precision=precision,
        in_run=False,
    )


def checkpoint_model(run: RunFolder, name: str) -> tuple[ResolvedModel, ResolvedModel]:
    """The weights of a whole checkpoint, an adapter with its base, and where its tokenizer lies.

    Raises FileNotFoundError where the base of an adapter cannot be had.
    """
    folder = run.checkpoint(name)
    here = ResolvedModel(f"{run.name}/{name}", None, folder, None)
    # The earlier system kept one tokenizer a run.
    own = checkpoints.has_tokenizer(folder)
    tokenizer = here if own else replace(here, folder=run.tokenizer)
    if is_adapter(folder):
        return replace(resolve_model(str(folder)), name=here.name), tokenizer
    return here, tokenizer


def _of_run(run: RunFolder, name: str, dataset: Path, precision: WeightPrecision) -> Target:
    log = _log(run)
    model, tokenizer = checkpoint_model(run, name)
    step = _step(name, log)
    untouched = None
    if name != "start" and run.checkpoint("start").is_dir():
        untouched, _ = checkpoint_model(run, "start")
    return Target(
        folder=run,
        name=name,
        model=model,
        tokenizer=tokenizer,
        dataset=dataset,
        precision=_PRECISION.get(log.get("dtype", ""), "auto")
        if precision == "auto"
        else precision,
        step=step,
        epoch=step / max(1, log.get("steps_per_epoch") or 1),
        untouched=untouched,
    )


def _log(run: RunFolder) -> dict[str, Any]:
    try:
        return read_experiment_log(run.experiment_log).log_dict
    except (OSError, ValueError):
        return {}


def _step(name: str, log: dict[str, Any]) -> int:
    """Updates that the checkpoint has seen; 0 where an earlier run does not say."""
    if name == "final":
        return int(log.get("total_steps") or 0)
    step = name.rpartition("_s")[2]
    return int(step) if step.isdecimal() else 0
