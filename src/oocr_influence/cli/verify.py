"""Check what experiments and runs left behind, against what their arguments ask for.

    oocr verify outputs/

For every run: its schedule is recomputed from the recorded arguments, and each checkpoint,
evaluation, question, window and step of it is looked for. Exit status 0 only if all is well.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field

from launcher.jobs import liveness, read_exit, read_state
from oocr_influence.cli.arguments import CommandArguments, UsageError, run_command
from oocr_influence.datasets.order import order_digest, window_order
from oocr_influence.datasets.references import is_reference
from oocr_influence.results.adapters import is_adapter
from oocr_influence.results.digests import file_digest
from oocr_influence.results.finding import dataset_file, find_experiments, find_runs
from oocr_influence.results.run_folder import ExperimentFolder, RunFolder
from oocr_influence.results.upkeep import read_cleanups
from oocr_influence.results.verdicts import Expected, Finding, Findings, Moment
from oocr_influence.results.verification import DatasetFacts, RunReport, verify_run
from oocr_influence.training.keeping import Keeping
from oocr_influence.training.schedule import Cadence, LearningRate, Milestone, Schedule


class VerifyArguments(CommandArguments):
    """What to check, and how thoroughly."""

    paths: list[Path] = Field(json_schema_extra={"positional": True})
    """runs, experiments, or folders of experiments"""
    load: bool = False
    """really load every checkpoint through transformers and run it once"""


def main(args: VerifyArguments) -> int:
    """Check and print a line a run; returns 0 only if all is well."""
    runs, experiments = _found(args.paths)
    if not runs and not experiments:
        raise UsageError(f"no run and no experiment in {', '.join(map(str, args.paths))}")
    load = load_checkpoint if args.load else None
    reports = [verify_run(run, expected_of, dataset_of(run), load) for run in runs]
    job_findings = [item for experiment in experiments for item in check_jobs(experiment)]
    for report in reports:
        _print_run(report)
    for finding in job_findings:
        _print_finding(finding)
    states = Counter(report.state for report in reports)
    told = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    finals = sum(report.has_final_checkpoint for report in reports)
    print(f"{len(reports)} runs ({told or 'none'}); final checkpoints: {finals}")
    failed = [report for report in reports if not report.ok]
    wrong = any(finding.severity == "error" for finding in job_findings)
    if failed or wrong or not reports:
        print(f"not well: {len(failed)} of {len(reports)} runs" + (", and jobs" if wrong else ""))
        return 1
    print("all is well")
    return 0


def expected_of(args: Mapping[str, Any], n_windows: int) -> Expected:
    """What a run of these recorded arguments must have left, by the schedule's own arithmetic."""
    schedule = Schedule(
        n_windows=n_windows,
        batch_size=args["batch_size"],
        epochs=args["epochs"],
        max_steps=args.get("max_steps"),
        burn_in_epochs=args["burn_in_epochs"],
        drop_last=args["drop_last"],
        cadence_rounding=args["cadence_rounding"],
    )
    rate = LearningRate(
        peak=args["learning_rate"],
        total_steps=schedule.total_steps,
        warmup_proportion=args["warmup_proportion"],
        warmup_steps=args.get("warmup_steps"),
        scheduler=args["lr_schedule"],
        zero_first_rate=args["zero_first_rate"],
    )
    orders = {
        epoch: window_order(n_windows, args["data_order_seed"], epoch)
        for epoch in range(1, schedule.epoch_of(schedule.total_steps) + 1)
    }
    # Partial epochs and dropped windows are meant to leave documents out.
    whole = float(args["epochs"]).is_integer() and args.get("max_steps") is None
    return Expected(
        evaluations=_moments(
            schedule.milestones(
                _cadence(args, "eval"), first=args["eval_first_step"], final=args["eval_final_step"]
            )
        ),
        checkpoints=_moments(
            Keeping.parse(args.get("keep_checkpoints", "all")).kept(
                schedule.milestones(
                    _cadence(args, "save"),
                    first=args["save_first_checkpoint"],
                    final=args["save_final_checkpoint"],
                )
            )
        ),
        batches=[
            orders[schedule.epoch_of(step)][schedule.batch(step)]
            for step in range(1, schedule.total_steps + 1)
        ],
        learning_rates=[rate.at(step - 1) for step in range(1, schedule.total_steps + 1)],
        burn_in_steps=schedule.burn_in_steps,
        steps_per_epoch=schedule.steps_per_epoch,
        order_digests={str(epoch): order_digest(order) for epoch, order in orders.items()},
        exposures=int(args["epochs"]) if whole and not args["drop_last"] else None,
    )


def dataset_of(run: RunFolder) -> DatasetFacts | None:
    """The structured dataset of a run, in its experiment's folder or where its arguments say."""
    path = dataset_file(run)
    return None if path is None else _dataset_facts(path)


def check_jobs(experiment: ExperimentFolder) -> list[Finding]:
    """Every job ended well, and the run that it made is there or was tidied away."""
    found = Findings(experiment.name)
    cleaned = {entry.get("what") for entry in read_cleanups(experiment)}
    present = {run.name for run in find_runs(experiment.path)}
    for folder in experiment.job_folders():
        try:
            ended = read_exit(folder)
        except ValueError as error:
            found.error(f"job {folder.name}: {error}", "run the job again")
            continue
        if ended is not None and ended.get("status") == "ok":
            result = ended.get("result") or {}
            for made in map(str, result.get("runs") or [result.get("run", "")]):
                name = Path(made).name
                if name and name not in present | cleaned:
                    found.error(
                        f"job {folder.name} made {name}, which is gone", "run the job again"
                    )
            continue
        _note_job(found, folder, ended, tidied=bool(cleaned))
    return found.items


def load_checkpoint(folder: Path) -> str:
    """Load weights and tokenizer from the folder alone, run them once, return their digest.

    Of an adapter it is that of its sum with its base. Raises whatever transformers does, and
    ValueError where weights are missing or not finite.
    """
    import torch
    from transformers import AutoTokenizer

    from oocr_influence.models.load import weights_digest
    from oocr_influence.models.lora import merge_adapter

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = _adapted(folder) if is_adapter(folder) else _whole(folder)
    tokens = tokenizer("one", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = model(input_ids=tokens).logits
    if not bool(torch.isfinite(logits).all()):
        raise ValueError("its outputs are not finite")
    merge_adapter(model)
    return weights_digest(model)


def _whole(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", local_files_only=True, output_loading_info=True
    )
    if info["missing_keys"]:
        raise ValueError(f"no value for {', '.join(sorted(info['missing_keys'])[:5])}")
    return model


def _adapted(folder: Path) -> Any:
    from oocr_influence.models.load import read_model, stored_dtype
    from oocr_influence.models.resolve import resolve_model

    resolved = resolve_model(str(folder))
    return read_model(resolved, stored_dtype(resolved))


def _found(paths: Sequence[Path]) -> tuple[list[RunFolder], list[ExperimentFolder]]:
    """Runs and experiments at all paths, each once."""
    runs = {run.path.resolve(): run for path in paths for run in find_runs(path)}
    experiments = {one.path.resolve(): one for path in paths for one in find_experiments(path)}
    return list(runs.values()), list(experiments.values())


def _moments(milestones: Sequence[Milestone]) -> list[Moment]:
    return [Moment(moment.name, moment.step, moment.epoch) for moment in milestones]


def _cadence(args: Mapping[str, Any], what: str) -> Cadence:
    steps = args.get(f"steps_per_{what}")
    if steps is not None:
        return Cadence(steps, "steps")
    return Cadence(args.get(f"epochs_per_{what}"), "epochs")


@cache
def _dataset_facts(path: Path) -> DatasetFacts:
    digest = None
    try:
        digest = file_digest(path)
        raw = json.loads(path.read_text(encoding="utf-8"))
        if is_reference(raw):
            return _facts_of_subset(path, digest, raw)
        builders = raw["eval_dataset_builders"]
        sizes = {name: len(builder["eval_points"]) for name, builder in builders.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return DatasetFacts(path, digest, None, fault=f"{type(error).__name__}: {error}")
    return DatasetFacts(path, digest, sizes)


def _facts_of_subset(path: Path, digest: str, raw: Mapping[str, Any]) -> DatasetFacts:
    whole = _dataset_facts((path.parent / raw["subset_of"]).resolve())
    subset = frozenset((str(one), int(n)) for one, n in raw["synthetic_documents"])
    fault = whole.fault
    if whole.digest is not None and whole.digest != raw["sha256"]:
        fault = f"it names documents of {whole.path}, which has changed since"
    return DatasetFacts(path, digest, whole.set_sizes, fault, subset)


def _note_job(
    found: Findings, folder: Path, ended: Mapping[str, Any] | None, *, tidied: bool
) -> None:
    """A job that is not done; where a cleanup was made, somebody ended the sweep on purpose."""
    alive = liveness(read_state(folder))
    if ended is not None:
        error = ended.get("error") or {}
        what = f"job {folder.name} failed: {error.get('type')}: {error.get('message')}"
    elif alive == "dead":
        what = f"job {folder.name} is not done: it has no exit record"
    else:
        what = f"job {folder.name} is not done: its process is {alive}"
    remedy = f"go on with data_modeling --resume {folder.parent.parent}"
    if tidied and alive == "dead":
        found.warning(what, remedy)
    else:
        found.error(what, remedy)


def _print_run(report: RunReport) -> None:
    mark = "ok   " if report.ok else "FAULT"
    print(
        f"{mark} {report.state:14} {report.n_checkpoints:3} checkpoints "
        f"{report.n_evaluations:3} evaluations  {report.run.path}"
    )
    for finding in report.findings:
        _print_finding(finding)


def _print_finding(finding: Finding) -> None:
    print(f"      {finding.severity}: {finding.what}; {finding.remedy}")


if __name__ == "__main__":
    run_command(VerifyArguments, main)
