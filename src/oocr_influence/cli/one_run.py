"""One run from start to end: prepare, load, train, ask, save, and write down what happened.

This is where the rooms meet: the loop gets its evaluations and checkpoints as one callable and
knows neither; everything that is written goes through the run's folder.
"""

from __future__ import annotations

import logging
import time
from contextlib import closing, nullcontext, suppress
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch

from oocr_influence.cli.adapters import begin_adapter
from oocr_influence.cli.kept_base import KeptBase
from oocr_influence.cli.micro_batch import settle as settle_micro_batch
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.preparation import Preparation, prepare
from oocr_influence.cli.resuming import Resumed, begun_with, check_same, resume
from oocr_influence.cli.run_asking import RunAsking
from oocr_influence.cli.run_context import Control, RunContext, RunStopped
from oocr_influence.cli.run_record import (
    log_lines_to,
    record_exposure,
    record_start,
    record_update_losses,
)
from oocr_influence.cli.run_saving import RunSaving
from oocr_influence.cli.run_tracking import RunTracking
from oocr_influence.datasets.packing import IntArray
from oocr_influence.datasets.train_set import piece_columns, window_columns
from oocr_influence.models.load import load_model, recompute_activations, weights_digest
from oocr_influence.models.team import ALONE, Team
from oocr_influence.results.cache import Cache
from oocr_influence.results.experiment_log import ExperimentLog
from oocr_influence.results.provenance import Phases
from oocr_influence.results.run_folder import RunFolder
from oocr_influence.results.step_log import StepLog as StepFile
from oocr_influence.results.step_log import StepRow
from oocr_influence.training.determinism import deterministic_algorithms
from oocr_influence.training.kernels import settle_kernels
from oocr_influence.training.loop import Attention, Snapshot, StepLog, train
from oocr_influence.training.profiling import StepProfiler

logger = logging.getLogger("oocr_influence")


def run_once(
    args: TrainingArgs,
    control: Control | None = None,
    preparation: Preparation | None = None,
    *,
    unfinished: RunFolder | None = None,
    team: Team = ALONE,
    base: KeptBase | None = None,
) -> dict[str, Any]:
    """Train and ask one model; returns the run's folder and how it went.

    `preparation`, if it has been made already, is that of `args`. `unfinished` is a run of the same
    arguments, which goes on in its own folder. `team` are the processes that train it, of which
    this one leads; the others call `run_team.help_run`. `base` is what this process keeps for
    several runs, and does not change the bits of any. Raises UsageError before anything is
    written if the arguments cannot be used.
    """
    control = control or Control()
    phases = Phases()
    control.report({"completed": 0, "total": None, "message": "tokenising"})
    with phases("prepare"):
        preparation = settle_micro_batch(preparation or prepare(args))
    resumed = None
    if unfinished is not None:
        resumed = resume(unfinished)
        folder, log = resumed.folder, resumed.log
        phases.record = log.log_dict.get("phases", {})
    else:
        folder = RunFolder.create(
            args.output_dir,
            args.experiment_name,
            args.epochs,
            args.learning_rate,
            **({} if args.subset_split is None else _of_a_subset(args)),
        )
        log = ExperimentLog(
            folder.experiment_log,
            experiment_name=folder.name,
            args=preparation.args.model_dump(mode="json"),
        )
        log.update(status="running")
        if preparation.micro_batch_trial is not None:
            log.update(micro_batch_trial=preparation.micro_batch_trial)
        log.write()  # from now on the run can be found, and gone on with
    control.began(folder.path)
    try:
        with (
            log_lines_to(logging.FileHandler(folder.text_log, encoding="utf-8")),
            deterministic_algorithms(args.deterministic),
        ):
            cache = Cache.default() if args.eval_cache else None
            context = RunContext(preparation, folder, log, phases, control, cache, team=team)
            run = _Run(context, resumed, base)
            try:
                return run.go()
            except BaseException as error:
                stopped = isinstance(error, RunStopped | KeyboardInterrupt)
                if isinstance(error, RunStopped):
                    team.tell("stop", str(error), str(folder.path))
                status = "interrupted" if stopped else "failed"
                run.end_tracking(status)
                log.update(
                    status=status,
                    error=f"{type(error).__name__}: {error}",
                    time_taken=run.seconds,
                    phases=phases.record,
                )
                logger.error("%s: %s", status, error)
                with suppress(OSError):  # where the disk is full, the error itself counts
                    log.write()
                raise
    finally:
        with suppress(OSError):  # a full disk; that its owner is gone is seen without the note
            folder.release()


def _of_a_subset(args: TrainingArgs) -> dict[str, str]:
    """What the folder of such a run is called after."""
    assert args.subset_split is not None
    return {"dataset_file": args.structured_dataset.name, "kind": args.subset_split}


class _Run:
    """One run while it goes on."""

    def __init__(
        self, context: RunContext, resumed: Resumed | None, base: KeptBase | None = None
    ) -> None:
        self.context, self.resumed, self.base = context, resumed, base
        self.preparation, self.folder, self.log = context.preparation, context.folder, context.log
        self.args, self.phases = context.args, context.phases
        self.started = time.perf_counter()
        self.seconds_before = 0.0
        if resumed is not None:
            context.last_step = resumed.last_step
            self.seconds_before = self.log.log_dict.get("time_taken") or 0.0

    @property
    def seconds(self) -> float:
        """Since the run began, interruptions left out."""
        return self.seconds_before + time.perf_counter() - self.started

    def go(self) -> dict[str, Any]:
        has_state = self.resumed is not None and self.folder.training_state.exists()
        self.context.team.tell("prepared", str(self.folder.training_state) if has_state else None)
        if self.resumed is None or "train_set_digest" not in self.log.log_dict:
            record_start(self.folder, self.log, self.preparation)
        else:
            logger.info("going on after step %d", self.resumed.place.training_step)
        self._begin_tracking()
        with self.phases("write_data"):
            self._write_data()
        with self.phases("load_model"):
            weights = self._load_model()
        with self.phases("plan_evaluation"):
            base, context = self.base, self.context
            kept = partial(base.suite, self.preparation, context.cache) if base else None
            self.asking = RunAsking(context, self.model, weights, kept)
            if self.leader is not None:
                self.leader.agree(self.preparation, self.asking.plan_digest)
        with self.phases("train") as phase, StepFile(self.folder.steps) as self.step_file:
            self.profiler = None
            if self.args.profile:
                self.profiler = StepProfiler(self.folder.profile, self.model)
            with (
                closing(RunSaving(self.context, self.model, weights)) as self.saving,
                closing(self.profiler) if self.profiler else nullcontext(),
            ):
                if self.leader is not None:
                    self.leader.sharded.release()
                exposures = self._train()
                self.saving.fence()
                if self.saving.final_digest is not None:
                    self.log.update(final_weights_digest=self.saving.final_digest)
            if self.model.device.type == "cuda":
                phase["gpu_peak_bytes"] = torch.cuda.max_memory_allocated(self.model.device)
        record_exposure(self.folder, self.preparation, exposures)
        record_update_losses(self.folder, self.log, self.args.precision)
        seconds = self.seconds
        self.end_tracking("completed")
        # All else is done: whoever dies before this goes on from the state, and does it again.
        self.folder.training_state.unlink(missing_ok=True)
        self.log.update(status="completed", time_taken=seconds, phases=self.phases.record)
        self.log.write()
        logger.info("completed in %.1f s: %s", seconds, self.folder.path)
        return {"run": str(self.folder.path), "time_taken": seconds}

    def end_tracking(self, status: str) -> None:
        """Before the log is written for the last time: it says what became of the trackers."""
        if self.context.tracking.is_on:
            self.context.tracking.close(status)
            self.log.update(trackers=self.context.tracking.record())

    def _begin_tracking(self) -> None:
        place = None if self.resumed is None else self.resumed.place
        self.context.tracking = RunTracking.begin(
            self.preparation,
            self.folder,
            self.log,
            rewound_to=None if place is None else (not place.in_training, place.step),
        )

    def _load_model(self) -> str:
        """Load the untouched model and record which it is; returns its weights' digest."""
        if self.base is None:
            self.model = load_model(self.preparation.resolved, precision=self.args.precision)
            weights = weights_digest(self.model)
        else:
            self.model, weights = self.base.model(self.args)
        self.device: torch.device = self.model.device
        check_same(self.log, "untouched weights", "weights_digest", weights)
        self.log.update(
            weights_digest=weights,
            model_config=self.model.config.to_dict(),
            device=str(self.model.device),
            dtype=str(self.model.dtype),
        )
        begin_adapter(self.model, self.preparation, self.log)
        self.log.write()  # what other runs of the sweep know this model by
        if self.args.gradient_checkpointing:
            recompute_activations(self.model)
        self.attention = self._settle_kernels()
        self._share_out()
        return weights

    def _settle_kernels(self) -> Attention:
        attention, compiled = begun_with(self.resumed, self.args)
        team = self.context.team
        settle = settle_kernels if self.base is None else self.base.kernels.settle
        kernels = settle(
            self.model,
            self.preparation.windows,
            attention=attention,
            compiled=compiled if team.size == 1 else "off",  # FSDP's hooks are between layers
            micro_batch_size=self.args.micro_batch,
        )
        self.log.update(**asdict(kernels))
        # Before there can be a state: whoever goes on from one asks here for what decides bits.
        self.log.write()
        team.tell("kernels", kernels.attention)
        return kernels.attention

    def _share_out(self) -> None:
        """Where several processes train it, `model` is what is asked and saved, and this is not."""
        self.trained, self.leader = self.model, None
        if self.context.team.size > 1:
            from oocr_influence.cli.run_team import Leader  # loads what FSDP takes

            self.leader = Leader(self.context.team, self.model)
            self.model = self.leader.sharded.whole

    def _write_data(self) -> None:
        """What will be trained, as read by others: windows, pieces, tokenizer."""
        p = self.preparation
        self.window_ids = p.windows.window_ids()
        check_same(self.log, "windows", "packing_digest", p.windows.digest())
        if not self.args.save_datasets:
            self.log.update(packing_digest=p.windows.digest(), window_ids=self.window_ids)
            return
        if not self.folder.train_set.exists():
            self.folder.save_train_set(window_columns(p.windows, p.documents))
        if "train_set_digest" not in self.log.log_dict:  # or a run died between the two
            digest = self.folder.train_set_digest()
            self.log.update(train_set_digest=digest, packing_digest=p.windows.digest())
        if p.windows.packing == "masked" and not self.folder.train_set_documents.exists():
            self.folder.save_train_set_documents(piece_columns(p.windows, p.documents))
        if not self.folder.tokenizer.exists():
            with self.folder.writing_tokenizer() as folder:
                p.tokenizer.save_pretrained(folder)

    def _train(self) -> IntArray:
        schedule = self.preparation.schedule
        return train(
            self.trained,
            self.preparation.windows,
            schedule,
            self.args.rate(schedule),
            self.args.optimizer_settings(),
            data_order_seed=self.args.data_order_seed,
            micro_batch_size=self.args.micro_batch,
            attention=self.attention,
            after_step=self._after_step,
            log_step=self._log_step,
            before_update=self.saving.fence,
            after_update=self._after_update,
            start=lambda: self.resumed.state() if self.resumed else None,
            measured_steps=self.preparation.measured_steps,
            shared=None if self.leader is None else self.leader.training,
        )

    def _after_step(self, step: int, snapshot: Snapshot) -> None:
        """Begin to save, and ask meanwhile, as the schedule says."""
        if self.leader is None:
            self._save_and_ask(step, snapshot)
            return
        if self.saving.is_due(step) or self.asking.is_due(step):
            with self.leader.whole_weights():
                self._save_and_ask(step, self.leader.snapshot(snapshot))
        self.leader.go_on()

    def _save_and_ask(self, step: int, snapshot: Snapshot) -> None:
        resumed_here = self.resumed is not None and step == self.resumed.place.training_step
        self.saving.after_step(step, snapshot, resumed_here=resumed_here)
        self.asking.after_step(step)

    def _after_update(self, snapshot: Snapshot) -> None:
        if self.profiler is not None:
            self.profiler.after_update(snapshot()["optimizer"])
        if self.leader is not None:
            snapshot = self.leader.snapshot(snapshot)
        if self.context.should_stop():  # asked once: whoever stops here has saved
            if self.args.save_state:
                self.saving.save_state(snapshot)
            self.context.stop_if_asked()
        if self.leader is not None:
            self.leader.go_on()

    def _log_step(self, step: StepLog) -> None:
        self.context.last_step = step
        row = StepRow(
            step=step.step,
            epoch=self.preparation.schedule.epoch_of(step.step),
            learning_rate=step.learning_rate,
            loss=step.loss,
            grad_norm=step.grad_norm,
            clip_factor=step.clip_factor,
            labelled_tokens=step.labelled_tokens,
            window_ids=[self.window_ids[window] for window in step.windows],
            seconds=step.seconds,
            **({} if step.losses_of_update is None else asdict(step.losses_of_update)),
        )
        self.step_file.append(row, burn_in=step.burn_in, windows=step.windows)
        self.context.tracking.step(replace(row, burn_in=step.burn_in), self.device)
        speed = step.labelled_tokens / max(step.seconds, 1e-9)
        kind = "burn-in " if step.burn_in else ""
        self.context.report(
            0 if step.burn_in else step.step,
            f"{kind}loss {step.loss:.3f}  {speed:,.0f} tok/s",
            loss=float(step.loss),
        )
