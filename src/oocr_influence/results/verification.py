"""Is a run what it should be? What is missing or wrong in it, as typed findings with a remedy.

What a run should have left is recomputed from its recorded arguments by the caller's `expect` (the
schedule and the window order live in other rooms), never read from what the run says about itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from oocr_influence.datasets.set_names import fits
from oocr_influence.results import checkpoints
from oocr_influence.results.evaluation_checks import check_evaluations
from oocr_influence.results.experiment_log import LoggedExperiment, read_experiment_log
from oocr_influence.results.run_folder import RunFolder
from oocr_influence.results.training_checks import (
    DocumentKey,
    check_exposure,
    check_steps,
    check_subset,
    check_train_set,
)
from oocr_influence.results.verdicts import Expected, Finding, Findings

State = Literal["complete", "incomplete", "running", "earlier system"]


@dataclass(frozen=True)
class DatasetFacts:
    """What the structured dataset of a run says today."""

    path: Path
    digest: str | None
    """Of the file's bytes; None where not even they can be read."""
    set_sizes: Mapping[str, int] | None
    """Questions of each set; None where the file cannot be read."""
    fault: str | None = None
    """Why the file cannot be read."""
    subset: frozenset[DocumentKey] | None = None
    """Of a file that refers to a subset: its synthetic documents."""


Expect = Callable[[Mapping[str, Any], int], Expected]
"""From a run's recorded arguments and its number of windows."""


Load = Callable[[Path], str]
"""Really loads a checkpoint and returns the digest of its weights; raises if that fails."""


@dataclass
class RunReport:
    """What was found in one run."""

    run: RunFolder
    state: State
    findings: list[Finding] = field(default_factory=list)
    n_checkpoints: int = 0
    n_evaluations: int = 0
    has_final_checkpoint: bool = False

    @property
    def ok(self) -> bool:
        """Whether it is complete (or the earlier system's) and nothing in it is wrong."""
        whole = self.state in ("complete", "earlier system")
        return whole and not any(finding.severity == "error" for finding in self.findings)


def verify_run(
    run: RunFolder,
    expect: Expect,
    dataset: DatasetFacts | None = None,
    load: Load | None = None,
) -> RunReport:
    """Check one run; `dataset` is None where its file cannot be had."""
    found = Findings(run.name)
    report = RunReport(run, "incomplete", found.items)
    report.n_checkpoints = len(run.checkpoints())
    report.n_evaluations = len(run.evaluations())
    report.has_final_checkpoint = run.checkpoint("final").is_dir()
    log = _read_log(run, found)
    _check_checkpoints(run, log, found, load)
    if is_earlier(run, log):
        report.state = "earlier system"
        _note_earlier(run, log, found)
        return report
    ownership, owner = run.ownership()
    if ownership != "free":
        report.state = "running"
        who = owner.describe() if owner else "a process that cannot be told"
        found.error(f"still owned by {who}", "verify again when it has ended")
        return report
    if log is not None:
        _check_ours(run, log, found, expect, dataset)
    for path in run.unfinished():
        found.warning(
            f"{path.relative_to(run.path)} was left by a killed writer", "it may be deleted"
        )
    if is_completed(run, log) and not any(item.incomplete for item in found.items):
        report.state = "complete"
    return report


def is_earlier(run: RunFolder, log: LoggedExperiment | None) -> bool:
    """Whether the earlier system wrote the folder: ours have an owner and a status."""
    return not run.owner_file.exists() and (log is None or log.status is None)


def is_completed(run: RunFolder, log: LoggedExperiment | None) -> bool:
    """Whether the run says that it went to its end, and its last weights are there if asked for."""
    if log is None:
        return False
    if is_earlier(run, log):
        return run.checkpoint("final").is_dir() and "time_taken" in log.log_dict
    wants_final = (log.args or {}).get("save_final_checkpoint", True)
    return log.status == "completed" and (not wants_final or run.checkpoint("final").is_dir())


def _read_log(run: RunFolder, found: Findings) -> LoggedExperiment | None:
    try:
        return read_experiment_log(run.experiment_log)
    except FileNotFoundError:
        found.error("no experiment_log.json", "run it again", incomplete=True)
    except ValueError as error:
        found.error(f"experiment_log.json cannot be read: {error}", "run it again")
    return None


def _check_ours(
    run: RunFolder,
    log: LoggedExperiment,
    found: Findings,
    expect: Expect,
    dataset: DatasetFacts | None,
) -> None:
    if log.status != "completed":
        reason = log.log_dict.get("error")
        found.error(
            f"its status is {log.status!r}" + (f" ({reason})" if reason else ""),
            "run it again, or delete it with `oocr cleanup`",
            incomplete=True,
        )
    train_set = check_train_set(run, log, found)
    recorded = log.log_dict.get("n_windows")
    n_windows = recorded if train_set is None else len(train_set.window_ids)
    if not isinstance(n_windows, int):
        found.error("its number of windows is unknown", "run it again", incomplete=True)
        return
    try:
        expected = expect(log.args or {}, n_windows)
    except (KeyError, TypeError, ValueError) as error:
        found.error(f"its arguments give no schedule: {error!r}", "run it again")
        return
    _check_arithmetic(log, expected, found)
    _check_names(run, expected, found)
    _check_dataset(log, dataset, found)
    args = log.args or {}
    set_sizes = None if dataset is None else dataset.set_sizes
    if set_sizes is not None and "eval_sets" in args:
        set_sizes = {n: size for n, size in set_sizes.items() if fits(n, args["eval_sets"])}
    saved = bool(args.get("save_datasets", True))
    check_evaluations(run, expected.evaluations, set_sizes, found, saved=saved)
    if train_set is not None:
        check_steps(run, train_set, expected, found)
    if log.status == "completed":
        labels = None if train_set is None else train_set.labels
        check_exposure(run, labels, expected.exposures, found)
        if dataset is not None and dataset.subset is not None:
            check_subset(run, dataset.subset, found)


def _check_arithmetic(log: LoggedExperiment, expected: Expected, found: Findings) -> None:
    recomputed = {
        "steps_per_epoch": expected.steps_per_epoch,
        "total_steps": len(expected.batches),
        "order_digests": dict(expected.order_digests),
    }
    for name, value in recomputed.items():
        recorded = log.log_dict.get(name)
        if recorded != value:
            found.error(
                f"log_dict.{name} is {recorded}, its arguments give {value}",
                "the run did not follow its arguments: run it again",
            )


def _check_dataset(log: LoggedExperiment, dataset: DatasetFacts | None, found: Findings) -> None:
    recorded = log.log_dict.get("dataset_digest")
    if dataset is None:
        found.warning(
            "its structured dataset is not where it was: sets are not compared with it",
            f"put {(log.args or {}).get('structured_dataset')} back to check them",
        )
        return
    if dataset.digest is not None and dataset.digest != recorded:
        found.error(
            f"its structured dataset {dataset.path} has digest {dataset.digest[:16]}…, recorded "
            f"is {str(recorded)[:16]}…",
            "the file was changed after the run began: restore it",
        )
    if dataset.fault is not None:
        found.error(
            f"its structured dataset {dataset.path} cannot be read: {dataset.fault}", "restore it"
        )


def _check_names(run: RunFolder, expected: Expected, found: Findings) -> None:
    """Checkpoints that the schedule asks for, and none beside them."""
    wanted = [moment.name for moment in expected.checkpoints]
    present = run.checkpoints()
    for name in wanted:
        if name not in present:
            found.error(f"checkpoint_{name} is missing", "run it again", incomplete=True)
    for name in set(present) - set(wanted):
        found.warning(f"checkpoint_{name} is none of its schedule", "look where it comes from")


def _check_checkpoints(
    run: RunFolder, log: LoggedExperiment | None, found: Findings, load: Load | None
) -> None:
    whole = set()
    for name in run.checkpoints():
        folder = run.checkpoint(name)
        faults = checkpoints.faults_of(folder)
        if not is_earlier(run, log) and not checkpoints.has_tokenizer(folder):
            faults.append("its tokenizer is missing")
        for fault in faults:
            found.error(f"checkpoint_{name}: {fault}", "it cannot be used: run it again")
        if not faults:
            whole.add(name)
            if load is not None:
                _check_loads(folder, name, log, found, load)
    if {"start", "final"} <= whole and checkpoints.same_weights(
        run.checkpoint("start"), run.checkpoint("final")
    ):
        found.error(
            "checkpoint_final has the weights of checkpoint_start: nothing was learned",
            "look at learning_rate and precision, then run it again",
        )


def _check_loads(
    folder: Path, name: str, log: LoggedExperiment | None, found: Findings, load: Load
) -> None:
    try:
        digest = load(folder)
    except Exception as error:  # whatever transformers raises, the answer is "no"
        found.error(f"checkpoint_{name} does not load: {error}", "run it again")
        return
    recorded = None if log is None else log.log_dict.get("weights_digest")
    if name == "start" and recorded not in (None, digest):
        found.error(
            f"checkpoint_start has weights of digest {digest[:16]}…, the run began with "
            f"{str(recorded)[:16]}…",
            "it is not the model that was trained: run it again",
        )


def _note_earlier(run: RunFolder, log: LoggedExperiment | None, found: Findings) -> None:
    history = log.history if log is not None else []
    last = f"step {history[-1].step_num}" if history else "no step"
    final = "" if run.checkpoint("final").is_dir() else ", without checkpoint_final"
    found.note(
        f"a run of the earlier system, up to {last}{final}",
        "evaluations and data are not checked: it did not write what that takes",
    )
