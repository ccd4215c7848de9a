"""Run one run again from its record, and say whether it came out the same.

    oocr rerun outputs/…/all_docs_runs/2026_…
    oocr rerun RUN --to outputs/again

The data, the seeds, the model's commit, precision, attention, compilation and, on a CPU, the number
of threads are those that the run wrote down; nothing is taken out of the cache. Before anything
starts it says in words how code, environment and hardware are others than then, and it refuses data
and weights that are not the recorded ones. Exit status 0 where losses, weights and answers came out
the same bit for bit, 1 where they did not, 2 where it was refused, 75 where it was stopped.
"""

from __future__ import annotations

import logging
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError

from oocr_influence.cli.arguments import CommandArguments, UsageError, run_command
from oocr_influence.cli.diff import one_run
from oocr_influence.cli.disk import check_disk
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.preparation import Preparation, prepare
from oocr_influence.cli.run_context import Control, RunStopped
from oocr_influence.cli.run_processes import check_processes, run
from oocr_influence.cli.run_record import log_lines_to, torch_settings
from oocr_influence.cli.train_extractive import TRY_AGAIN, stop_signals
from oocr_influence.models.load import pick_dtype, read_model, weights_digest
from oocr_influence.models.resolve import is_on_disk
from oocr_influence.results.differing import Record, record_of, shown
from oocr_influence.results.digests import file_digest
from oocr_influence.results.experiment_log import ExperimentLog
from oocr_influence.results.finding import dataset_file
from oocr_influence.results.place_differences import differences_of_place
from oocr_influence.results.provenance import collect_provenance, working_tree_diff
from oocr_influence.results.run_differences import effective_args
from oocr_influence.results.run_folder import RunFolder
from oocr_influence.results.run_outcomes import compare_outcomes

_HUB_COMMIT = re.compile(r"[0-9a-f]{40}")


class RerunArguments(CommandArguments):
    """Which run, where to, and what may be another."""

    run: Path = Field(json_schema_extra={"positional": True})
    """the folder of the run"""
    to: Path = Path("outputs")
    """the folder that the new run is written to"""
    dataset: Path | None = None
    """where the dataset's file lies now (None: in the run's experiment, or where it was)"""
    other_data: bool = False
    """go on although the dataset is not the recorded one"""
    other_weights: bool = False
    """go on although the untouched weights, or the model's commit, are not the recorded ones"""


@dataclass(frozen=True)
class Replay:
    """What is run again, and what of the record it could not follow."""

    run: RunFolder
    record: Record
    args: TrainingArgs
    warnings: list[str]


def main(args: RerunArguments) -> int:
    """Replay, compare, and say so; returns 0 only if everything came out the same."""
    replay = plan_replay(args)
    check_processes(replay.args)
    preparation = prepare(replay.args)
    warned = [*replay.warnings, *_differences_now(replay)]
    warned += _check_windows(replay, preparation)
    _check_weights(args, replay, preparation, warned)
    check_disk(args.to, preparation.run_bytes() + preparation.passing_bytes(), "this run")
    for line in warned:
        print(f"warning: {line}")
    if not warned:
        print("code, environment and hardware are as they were")
    began = replay.record.log_dict.get("torch_settings") or {}
    if isinstance(began.get("threads"), int) and not torch.cuda.is_available():
        torch.set_num_threads(began["threads"])
    with log_lines_to(logging.StreamHandler()), stop_signals() as stopped:
        try:
            done = run(preparation.args, Control(stop_requested=stopped.is_set), preparation)
        except RunStopped as stop:
            folder = shlex.quote(str(stop.folder))
            print(f"go on with: oocr train_extractive --resume {folder}")
            print(f"then compare: oocr diff {shlex.quote(str(replay.run.path))} {folder}")
            return TRY_AGAIN
    return _say_how_it_came_out(replay, RunFolder(Path(done["run"])))


def plan_replay(args: RerunArguments) -> Replay:
    """What to run, from the record alone; raises UsageError where that does not do."""
    run = one_run(args.run)
    try:
        record = record_of(run)
    except (OSError, ValueError) as error:
        raise UsageError(f"{args.run} has no record to run it from: {error}") from None
    if record.log_dict.get("status") is None:
        raise UsageError(
            f"{args.run} is a run of the earlier system, which did not write down what a replay "
            "takes: the model's weights, the data, the order"
        )
    values = effective_args(record)
    values["attention"] = values.get("attention", "auto")
    warned = []
    if unknown := sorted(values.keys() - TrainingArgs.model_fields.keys()):
        raise UsageError(f"{args.run} was run with what this version lacks: {', '.join(unknown)}")
    for name in sorted(TrainingArgs.model_fields.keys() - values.keys()):
        default = TrainingArgs.model_fields[name].default
        warned.append(f"{name} is not in its record: this version's default {default} is used")
    values |= {
        "structured_dataset": _dataset(args, run, record, warned),
        "output_dir": args.to,
        "sweep_id": None,
        "eval_cache": False,
        **_model(args, record),
    }
    for path, digest in (record.log_dict.get("metric_file_digests") or {}).items():
        if Path(path).is_file() and file_digest(Path(path)) != digest:
            warned.append(f"{path}, a file of own metrics, is not what it was")
    if record.log_dict["status"] != "completed":
        status = record.log_dict["status"]
        warned.append(f"its status is {status}: what it has not made cannot be compared")
    return Replay(run, record, _validated(args, values), warned)


def _validated(args: RerunArguments, values: dict[str, Any]) -> TrainingArgs:
    # Kernels by their own names are what runs write down, and none that a person can ask for.
    kernel = values.pop("attention")
    asked = {"varlen": "segments", "padded": "segments"}.get(kernel, kernel)
    try:
        return TrainingArgs.model_validate({**values, "attention": asked})
    except ValidationError as error:
        told = str(error.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ")
        raise UsageError(f"{args.run} cannot be run by this version: {told}") from None


def _dataset(args: RerunArguments, run: RunFolder, record: Record, warned: list[str]) -> Path:
    file = args.dataset or dataset_file(run)
    stated = record.args.get("structured_dataset")
    if file is None or not file.is_file():
        where = args.dataset or stated
        raise UsageError(f"the dataset {where} is not there: name where it lies now by --dataset")
    recorded = record.log_dict.get("dataset_digest")
    if recorded is None:
        warned.append(f"the dataset's digest is not in its record: {file} may be another one")
    elif (digest := file_digest(file)) != recorded:
        told = (
            f"the dataset {file} has digest {shown(digest)}, the run was made on {shown(recorded)}"
        )
        if not args.other_data:
            raise UsageError(f"{told}: name the right one by --dataset, or add --other_data")
        warned.append(told)
    return file.resolve()


def _model(args: RerunArguments, record: Record) -> dict[str, Any]:
    """The commit that was trained, by which a hub's model is asked for whatever moved since."""
    commit = record.log_dict.get("model_commit") or record.args.get("model_commit")
    if args.other_weights or commit is None:
        return {"model_commit": None}
    name = str(record.args.get("model"))
    if _HUB_COMMIT.fullmatch(commit) and not is_on_disk(name):
        return {"model_commit": commit, "revision": commit}
    return {"model_commit": commit}


def _differences_now(replay: Replay) -> list[str]:
    diff = working_tree_diff()
    settings, began = torch_settings(), replay.record.log_dict.get("torch_settings") or {}
    if "threads" in began and not torch.cuda.is_available():
        settings["threads"] = began["threads"]  # as they will be set
    now = {
        "provenance": collect_provenance(diff=diff),
        "torch_settings": settings,
        "device": "cuda:0" if torch.cuda.is_available() else "cpu",
    }
    found = differences_of_place(replay.record, Record({}, now, diff))
    lines = [one.words for one in found.found] + [f"unknown: {what}" for what in found.unknown]
    return [_then_and_now(line) for line in lines]


def _then_and_now(line: str) -> str:
    line = re.sub(r"\bin A\b", "then", re.sub(r"\bin B\b", "now", line))
    return re.sub(r"\bA (had|lacks)\b", r"the run \1", re.sub(r"\bB had\b", "now there are", line))


def _check_windows(replay: Replay, preparation: Preparation) -> list[str]:
    recorded = replay.record.log_dict.get("packing_digest")
    if recorded is None or recorded == preparation.windows.digest():
        return []
    return ["the windows are not those that the run was trained on: tokenizer or code are others"]


def _check_weights(
    args: RerunArguments, replay: Replay, preparation: Preparation, warned: list[str]
) -> None:
    """Load the untouched weights once, on the CPU, before anything is written."""
    recorded = replay.record.log_dict.get("weights_digest")
    if recorded is None:
        warned.append("the digest of the untouched weights is not in its record")
        return
    dtype = pick_dtype(preparation.args.precision, torch.device("cpu"))
    digest = weights_digest(read_model(preparation.resolved, dtype))
    if digest == recorded:
        return
    told = (
        f"the untouched weights of {preparation.args.model} have digest {shown(digest)}, the run "
        f"began with {shown(recorded)}"
    )
    if not args.other_weights:
        raise UsageError(f"{told}: add --other_weights to go on with them")
    warned.append(told)


def _say_how_it_came_out(replay: Replay, again: RunFolder) -> int:
    log = ExperimentLog.resume(again.experiment_log)
    outcomes = compare_outcomes(replay.run, again)
    log.update(
        rerun_of={
            "run": str(replay.run.path.resolve()),
            "same": outcomes.is_same,
            "differences": outcomes.different,
        }
    )
    log.write()
    print(f"A  {replay.run.path}\nB  {again.path}")
    for line in outcomes.told:
        print(f"  {line}")
    print("it came out the same" if outcomes.is_same else "it did not come out the same")
    return 0 if outcomes.is_same else 1


if __name__ == "__main__":
    run_command(RerunArguments, main)
