"""Going on with a run that was interrupted or killed, in its own folder, with the same bits.

A run keeps a training state beside its last checkpoint (`training_state.pt`). Going on means: what
was written after that state is taken back, weights, moments and random generators are put where
they were, and what the schedule asks for at that step and is missing is made.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from oocr_influence.cli.arguments import UsageError
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.results.experiment_log import ExperimentLog, read_experiment_log
from oocr_influence.results.finding import find_runs
from oocr_influence.results.ownership import RunOwnedError
from oocr_influence.results.provenance import collect_provenance, working_tree_diff
from oocr_influence.results.run_folder import RunFolder
from oocr_influence.results.step_log import StepRow, read_steps
from oocr_influence.training.kernels import AttentionChoice, CompileChoice
from oocr_influence.training.loop import Attention
from oocr_influence.training.state import Place, State, place_of

logger = logging.getLogger("oocr_influence")


@dataclass(frozen=True)
class Resumed:
    """An unfinished run, rewound to its last state."""

    folder: RunFolder
    log: ExperimentLog
    place: Place
    """Where training goes on; the beginning, if it was stopped before there was a state."""
    last_step: StepRow | None

    def state(self) -> State | None:
        """Weights, moments and generators at `place`, on the CPU; None for the beginning."""
        return _read_state(self.folder)


def find_unfinished(
    args: TrainingArgs,
    is_over: Callable[[str], bool] = lambda attempt: False,
    among: Sequence[RunFolder] | None = None,
) -> RunFolder | None:
    """The newest run of exactly these arguments that nobody is running.

    `is_over` says whether an attempt at a job has ended by its ledger, as that of a lost machine.
    `among` are the runs to look at, the oldest first (None: all in the arguments' output folder).
    """
    if among is None:
        among = find_runs(args.output_dir) if args.output_dir.is_dir() else []
    asked = args.model_dump(mode="json")
    for run in reversed(among):
        try:
            logged = read_experiment_log(run.experiment_log)
        except (OSError, ValueError):
            continue
        if logged.args != asked or logged.status == "completed":
            continue
        state, owner = run.ownership()
        if state == "unknown" and owner is not None and owner.attempt and is_over(owner.attempt):
            run.release()  # its process may live on a lost machine, but it may not save any more
            state = "free"
        if state == "free":
            return run
    return None


def unfinished_run(path: Path) -> tuple[RunFolder, TrainingArgs]:
    """The run in `path` and its arguments; raises UsageError where it cannot be gone on with."""
    run = RunFolder(path.resolve())
    try:
        logged = read_experiment_log(run.experiment_log)
        args = TrainingArgs.model_validate(logged.args)
    except (OSError, ValueError) as error:
        raise UsageError(f"--resume {path} is not the folder of a run: {error}") from None
    if logged.status == "completed":
        raise UsageError(f"--resume {path}: this run is complete")
    if run.experiment.path != run.path and run.experiment.jobs.is_dir():
        raise UsageError(
            f"--resume {path}: it is a run of a sweep; go on with "
            f"python experiments/data_modeling.py --resume {run.experiment.path}"
        )
    return run, args


def resume(folder: RunFolder) -> Resumed:
    """Own the run and rewind it to its last state.

    Raises UsageError if another process owns it, or its state cannot be read.
    """
    try:
        folder.claim()
    except RunOwnedError as error:
        raise UsageError(str(error)) from None
    state = _read_state(folder)
    place = Place() if state is None else place_of(state)
    del state  # read from disk again when the model is there to take it
    removed = folder.rewind(
        place.training_step, in_burn_in=None if place.in_training else place.step
    )
    log = ExperimentLog.resume(folder.experiment_log)
    log.rewind(place.training_step)
    log.log_dict.pop("error", None)
    log.update(
        status="running",
        resumed=[
            *log.log_dict.get("resumed", []),
            {
                "step": place.training_step,
                "burn_in_step": 0 if place.in_training else place.step,
                "when": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
                "torch": torch.__version__,
                "made_again": removed,
                "provenance": _provenance_of(folder),
            },
        ],
    )
    log.write()
    rows = list(read_steps(folder.steps)) if folder.steps.exists() else []
    return Resumed(folder, log, place, rows[-1] if rows else None)


def _provenance_of(folder: RunFolder) -> dict[str, Any]:
    """With what the run goes on; a diff of the code is kept as well."""
    diff = working_tree_diff()
    found = collect_provenance(folder.path, diff=diff)
    if diff:
        folder.save_diff(diff)
    return found


def begun_with(
    resumed: Resumed | None, args: TrainingArgs
) -> tuple[AttentionChoice | Attention, CompileChoice]:
    """Attention and compilation of a run; one that goes on keeps those that it began with.

    They decide the last bits of every update. Before runs wrote them down, masks were dense.
    """
    if resumed is None or not resumed.folder.training_state.exists():
        return args.attention, args.compile
    began = resumed.log.log_dict
    return began.get("attention", "dense"), "on" if began.get("compiled") else "off"


def _read_state(folder: RunFolder) -> State | None:
    if not folder.training_state.exists():
        return None
    try:
        state: State = torch.load(
            folder.training_state, map_location="cpu", weights_only=True, mmap=True
        )
        place_of(state)
    except Exception as error:  # torch raises half a dozen kinds for a file that is not its own
        raise UsageError(
            f"{folder.training_state} cannot be read ({type(error).__name__}: {error}): delete it "
            "to begin this run again in its folder"
        ) from None
    return state


def check_same(log: ExperimentLog, what: str, key: str, value: Any) -> None:
    """Raise UsageError if the log says that the run began with something else."""
    before = log.log_dict.get(key)
    if before is not None and before != value:
        raise UsageError(
            f"{log.path.parent} cannot go on: its {what} are not those it began with "
            f"({str(before)[:16]}… before, {str(value)[:16]}… now); start a new run"
        )
