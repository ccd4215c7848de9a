"""One run from start to end: prepare, load, train, ask, save, and write down what happened.

This is where the rooms meet: the loop gets its evaluations and checkpoints as one callable and
knows neither; everything that is written goes through the run's folder.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.preparation import Preparation, prepare
from oocr_influence.cli.resuming import Resumed, begun_with, check_same, resume
from oocr_influence.cli.run_record import (
    log_lines_to,
    record_exposure,
    record_start,
    with_records,
)
from oocr_influence.cli.start_checkpoint import same_start
from oocr_influence.cli.untouched import Kept, Measured, UntouchedModel
from oocr_influence.datasets.eval_sets import describe_set
from oocr_influence.datasets.held_out import loss_samples
from oocr_influence.datasets.packing import IntArray
from oocr_influence.datasets.train_set import piece_columns, window_columns
from oocr_influence.evaluation.document_losses import DocumentLosses
from oocr_influence.evaluation.evaluate import Evaluator
from oocr_influence.evaluation.metrics import load_metric_files
from oocr_influence.evaluation.plan_cache import cached_plan, suite_digest
from oocr_influence.evaluation.scores import Scores
from oocr_influence.models.load import (
    load_model,
    recompute_activations,
    save_checkpoint,
    weights_digest,
)
from oocr_influence.results.cache import Cache
from oocr_influence.results.experiment_log import ExperimentLog
from oocr_influence.results.provenance import Phases
from oocr_influence.results.run_folder import RunFolder
from oocr_influence.results.step_log import StepLog as StepFile
from oocr_influence.results.step_log import StepRow
from oocr_influence.training.kernels import settle_kernels
from oocr_influence.training.loop import Attention, Snapshot, StepLog, train

logger = logging.getLogger("oocr_influence")

Report = Callable[[Mapping[str, Any]], None]


class RunStopped(Exception):
    """The run was asked to stop and did so between two steps; it can be gone on with."""

    def __init__(self, message: str, folder: Path) -> None:
        super().__init__(message)
        self.folder = folder


class RunTakenOverError(RuntimeError):
    """This attempt was taken for dead and replaced; what it would write is its successor's."""


@dataclass
class Control:
    """What a run tells and asks of whoever started it."""

    report: Report = lambda values: None
    stop_requested: Callable[[], bool] = lambda: False
    may_save: Callable[[], bool] = lambda: True


def run_once(
    args: TrainingArgs,
    control: Control | None = None,
    preparation: Preparation | None = None,
    *,
    unfinished: RunFolder | None = None,
) -> dict[str, Any]:
    """Train and ask one model; returns the run's folder and how it went.

    `preparation`, if it has been made already, is that of `args`. `unfinished` is a run of the same
    arguments, which goes on in its own folder. Raises UsageError before anything is written if the
    arguments cannot be used.
    """
    control = control or Control()
    phases = Phases()
    control.report({"completed": 0, "total": None, "message": "tokenising"})
    with phases("prepare"):
        preparation = preparation or prepare(args)
    resumed = None
    if unfinished is not None:
        resumed = resume(unfinished)
        folder, log = resumed.folder, resumed.log
        phases.record = log.log_dict.get("phases", {})
    else:
        folder = RunFolder.create(
            args.output_dir, args.experiment_name, args.epochs, args.learning_rate
        )
        log = ExperimentLog(
            folder.experiment_log,
            experiment_name=folder.name,
            args=args.model_dump(mode="json"),
        )
        log.update(status="running")
        log.write()  # from now on the run can be found, and gone on with
    try:
        with log_lines_to(logging.FileHandler(folder.text_log, encoding="utf-8")):
            run = _Run(preparation, folder, log, phases, control, resumed)
            try:
                return run.go()
            except BaseException as error:
                stopped = isinstance(error, RunStopped | KeyboardInterrupt)
                status = "interrupted" if stopped else "failed"
                log.update(
                    status=status,
                    error=f"{type(error).__name__}: {error}",
                    time_taken=run.seconds,
                    phases=phases.record,
                )
                log.write()
                logger.error("%s: %s", status, error)
                raise
    finally:
        folder.release()


@dataclass
class _Run:
    """The state of one run while it goes on."""

    preparation: Preparation
    folder: RunFolder
    log: ExperimentLog
    phases: Phases
    control: Control
    resumed: Resumed | None = None
    last_step: StepLog | StepRow | None = None
    evaluations: dict[int, str] = field(default_factory=dict)
    checkpoints: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        p = self.preparation
        self.args = p.args
        self.evaluations = {moment.step: moment.name for moment in p.evaluations}
        self.checkpoints = {moment.step: moment.name for moment in p.checkpoints}
        self.cache = Cache.default() if self.args.eval_cache else None
        self.started = time.perf_counter()
        self.seconds_before = 0.0
        if self.resumed is not None:
            self.last_step = self.resumed.last_step
            self.seconds_before = self.log.log_dict.get("time_taken") or 0.0

    @property
    def seconds(self) -> float:
        """Since the run began, interruptions left out."""
        return self.seconds_before + time.perf_counter() - self.started

    def go(self) -> dict[str, Any]:
        if self.resumed is None or "train_set_digest" not in self.log.log_dict:
            record_start(self.folder, self.log, self.preparation)
        else:
            logger.info("going on after step %d", self.resumed.place.training_step)
        with self.phases("write_data"):
            self._write_data()
        with self.phases("load_model"):
            self.model = load_model(self.preparation.resolved, precision=self.args.precision)
            self.weights = weights_digest(self.model)
            check_same(self.log, "untouched weights", "weights_digest", self.weights)
            self.log.update(
                weights_digest=self.weights,
                model_config=self.model.config.to_dict(),
                device=str(self.model.device),
                dtype=str(self.model.dtype),
            )
            self.log.write()  # what other runs of the sweep know this model by
            if self.args.gradient_checkpointing:
                recompute_activations(self.model)
            self.attention = self._settle_kernels()
        with self.phases("plan_evaluation"):
            self.evaluator = self._evaluator()
            self.document_losses = self._document_losses()
        self.baseline: Any = None
        with self.phases("train") as phase, StepFile(self.folder.steps) as self.step_file:
            exposures = self._train()
            self.folder.training_state.unlink(missing_ok=True)
            if self.model.device.type == "cuda":
                phase["gpu_peak_bytes"] = torch.cuda.max_memory_allocated(self.model.device)
        record_exposure(self.folder, self.preparation, exposures)
        seconds = self.seconds
        self.log.update(status="completed", time_taken=seconds, phases=self.phases.record)
        self.log.write()
        logger.info("completed in %.1f s: %s", seconds, self.folder.path)
        return {"run": str(self.folder.path), "time_taken": seconds}

    def _settle_kernels(self) -> Attention:
        attention, compiled = begun_with(self.resumed, self.args)
        kernels = settle_kernels(
            self.model,
            self.preparation.windows,
            attention=attention,
            compiled=compiled,
            micro_batch_size=self.args.micro_batch_size,
        )
        self.log.update(**asdict(kernels))
        return kernels.attention

    def _write_data(self) -> None:
        """What will be trained, as read by others: windows, pieces, tokenizer."""
        p = self.preparation
        self.window_ids = p.windows.window_ids()
        check_same(self.log, "windows", "packing_digest", p.windows.digest())
        if not self.folder.train_set.exists():
            digest = self.folder.save_train_set(window_columns(p.windows, p.documents))
            self.log.update(train_set_digest=digest, packing_digest=p.windows.digest())
        if p.windows.packing == "masked" and not self.folder.train_set_documents.exists():
            self.folder.save_train_set_documents(piece_columns(p.windows, p.documents))
        if not self.folder.tokenizer.exists():
            with self.folder.writing_tokenizer() as folder:
                p.tokenizer.save_pretrained(folder)

    def _evaluator(self) -> Evaluator:
        own_metrics = load_metric_files(self.args.metric_files)
        builders = {
            name: builder.also_asking(own_metrics)
            for name, builder in self.preparation.dataset.eval_dataset_builders.items()
        }
        tokenizer = self.preparation.tokenizer
        self.suite = suite_digest(builders, tokenizer)
        waiting = self._waiting("planning by another run")
        plan = cached_plan(builders, tokenizer, self.suite, self.cache, waiting)
        self.log.update(
            eval_plan_digest=plan.digest, eval_suite_digest=self.suite, n_eval_sets=len(builders)
        )
        for name, builder in builders.items():
            if self.folder.eval_dataset(name).exists():
                continue  # of the attempt before this one
            self.folder.save_eval_dataset(
                name,
                plan.eval_dataset_rows(name),
                [metric.model_dump() for metric in builder.metrics],
            )
        descriptions = {
            name: asdict(describe_set(name, builder)) for name, builder in builders.items()
        }
        return Evaluator(plan, descriptions=descriptions)

    def _document_losses(self) -> DocumentLosses | None:
        p, args = self.preparation, self.args
        samples = loss_samples(p.dataset, p.documents, count=args.n_loss_documents, seed=args.seed)
        if not samples:
            return None
        return DocumentLosses(
            samples,
            p.tokenizer,
            packing=args.packing,
            chunk_size=args.chunk_size,
            overlap_cuts=args.overlap_cuts,
        )

    def _train(self) -> IntArray:
        schedule = self.preparation.schedule
        return train(
            self.model,
            self.preparation.windows,
            schedule,
            self.args.rate(schedule),
            self.args.optimizer(),
            data_order_seed=self.args.data_order_seed,
            micro_batch_size=self.args.micro_batch_size,
            attention=self.attention,
            after_step=self._after_step,
            log_step=self._log_step,
            after_update=self._after_update,
            start=lambda: self.resumed.state() if self.resumed else None,
        )

    def _after_step(self, step: int, snapshot: Snapshot) -> None:
        """Save and ask, as the schedule says; what a resumed run has made already stays.

        The state comes first, so that a run that dies while it saves or asks goes on from here.
        """
        self._check_may_save()
        at_end = step == self.preparation.schedule.total_steps
        known = self.resumed is not None and step == self.resumed.place.training_step
        between = step > 0 and not at_end and not known
        if step in self.checkpoints and self.args.save_state and between:
            self._save_state(snapshot)
        if step in self.checkpoints and not self.folder.checkpoint(self.checkpoints[step]).exists():
            self._save(self.checkpoints[step])
        if step in self.evaluations:
            self._evaluate(step, self.evaluations[step])

    def _after_update(self, snapshot: Snapshot) -> None:
        if self._should_stop() and self.args.save_state:
            self._save_state(snapshot)
        self._stop_if_asked()

    def _check_may_save(self) -> None:
        if not self.control.may_save():
            raise RunTakenOverError(
                "another attempt of this job has taken over: nothing more is written"
            )

    def _save_state(self, snapshot: Snapshot) -> None:
        self._check_may_save()
        with self.phases("save_state"), self.folder.writing_training_state() as file:
            torch.save(snapshot(), file)

    def _should_stop(self) -> bool:
        made = self.last_step
        finished = made and not made.burn_in and made.step == self.preparation.schedule.total_steps
        return self.control.stop_requested() and not finished

    def _stop_if_asked(self) -> None:
        if self._should_stop():
            made = self.last_step.step if self.last_step else 0
            raise RunStopped(f"asked to stop after step {made}", self.folder.path)

    def _save(self, name: str) -> None:
        if name != "start":
            self._write_checkpoint(name)
            return
        # The runs of a sweep begin with the same weights: one writes them, the others link to them.
        waiting = self._waiting("first checkpoint by another run")
        alone = self.cache.alone("start_checkpoints", self.weights, waiting) if self.cache else None
        with alone or nullcontext():
            written = same_start(self.folder, self.log.log_dict)
            if written is None:
                self._write_checkpoint(name)
                return
            with self.phases("save"):
                self.folder.link_checkpoint(name, written)
            logger.info("checkpoint_%s is another name of %s", name, written)

    def _write_checkpoint(self, name: str) -> None:
        with self.phases("save"), self.folder.writing_checkpoint(name) as folder:
            save_checkpoint(self.model, self.preparation.tokenizer, folder)

    def _evaluate(self, step: int, name: str) -> None:
        if step in self.log.steps:
            return  # answered before the interruption
        found = self._ask_untouched(name) if step == 0 else self._ask(step, name)
        self._record_evaluation(step, name, found)

    def _asks_for_beams(self, step: int) -> bool:
        last = step == self.preparation.schedule.total_steps
        return self.args.beam_search == "every" or (self.args.beam_search == "final" and last)

    def _ask(self, step: int, name: str) -> Measured:
        """Ask the model, and write what it answers."""

        def progress(done: int, total: int) -> None:
            self._report(step, f"evaluating {name} {100 * done // max(total, 1)} %")

        if step and self.baseline is None and self.args.eval_first_step:
            self.baseline = self._untouched_scores()
        with self.phases("evaluate"):
            found = self.evaluator.evaluate(
                self.model,
                beam_search=self._asks_for_beams(step),
                baseline=self.baseline,
                # What the untouched model says is every later evaluation's baseline.
                ranks=self.args.ranks if step else "full",
                progress=progress,
            )
        losses = None
        if self.document_losses is not None:
            with self.phases("document_losses"):
                losses = self.document_losses.measure(self.model)
        measured = Measured(found.eval_sets, found.records, found.scores, found.seconds, losses)
        self._write_evaluation(step, name, measured)
        return measured

    def _ask_untouched(self, name: str) -> Measured:
        """The same for step 0, out of the cache where an earlier run has asked this model."""
        # What a metric file imports can change unseen, so that nothing made by one is kept.
        if self.cache is None or self.args.metric_files:
            found = self._ask(0, name)
        else:
            untouched = self._untouched(self.cache)
            beams = self._asks_for_beams(0)
            with untouched.alone(
                beam_search=beams, waiting=self._waiting(f"evaluation of {name} by another run")
            ):
                kept = untouched.find(beam_search=beams)
                if kept is None:
                    found = self._ask(0, name)
                    untouched.keep(self.folder, name, found.scores, beam_search=beams)
                else:
                    found = self._adopt(kept, name)
        self.baseline = found.scores
        return found

    def _untouched(self, cache: Cache) -> UntouchedModel:
        documents = None if self.document_losses is None else self.document_losses.digest
        return UntouchedModel(
            cache, self.model, weights=self.weights, suite=self.suite, documents=documents
        )

    def _untouched_scores(self) -> Scores:
        """Step 0's scores in a run that goes on: out of the cache, or asked for again."""
        if self.cache is not None and not self.args.metric_files:
            kept = self._untouched(self.cache).scores()
            if kept is not None:
                return kept
        logger.info("asking the untouched model again, whose scores later ones are compared with")
        with self.phases("evaluate_untouched_again"):
            untouched = load_model(self.preparation.resolved, precision=self.args.precision)
            return self.evaluator.evaluate(untouched, beam_search=False).scores

    def _adopt(self, kept: Kept, name: str) -> Measured:
        """Take an evaluation out of the cache, and say so."""
        about = {**kept.entry.about, "seconds": kept.measured.seconds}
        try:
            kept.give_to(self.folder, name)
        except OSError:  # the cache was emptied this moment
            self._write_evaluation(0, name, kept.measured)
        self.log.update(evaluation_from_cache={"name": name, **about})
        logger.info("%s is out of the cache: this model was asked by %s", name, about.get("run"))
        return kept.measured

    def _waiting(self, what: str) -> Callable[[], None]:
        """What to do while another process works for this one too: say so, and stop if asked."""

        def wait() -> None:
            self._report(0, f"waiting for the {what}")
            self._stop_if_asked()

        return wait

    def _write_evaluation(self, step: int, name: str, found: Measured) -> None:
        self.folder.write_evaluation(
            name,
            step_num=step,
            epoch_num=step / self.preparation.schedule.steps_per_epoch,
            eval_seconds=found.seconds,
            eval_sets=found.eval_sets,
            records=found.records,
            document_losses=found.document_losses,
        )

    def _record_evaluation(self, step: int, name: str, found: Measured) -> None:
        """One entry of the log's history."""
        losses = found.document_losses
        epoch = step / self.preparation.schedule.steps_per_epoch
        self.log.append(
            {
                "epoch_num": epoch,
                "step_num": step,
                "train_loss": self.last_step.loss if self.last_step else None,
                "global_grad_norm": self.last_step.grad_norm if self.last_step else None,
                "eval_results": with_records(found.eval_sets, found.records),
                "eval_time": found.seconds / 60,
                "document_losses": losses,
            }
        )
        self.log.update(phases=self.phases.record)
        self.log.write()
        logger.info("evaluated %s (step %d) in %.1f s", name, step, found.seconds)
        if losses is not None:
            told = (f"{group} {loss['mean_loss']:.3f}" for group, loss in losses.items())
            logger.info("loss a token of whole documents: %s", ", ".join(told))

    def _log_step(self, step: StepLog) -> None:
        self.last_step = step
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
        )
        self.step_file.append(row, burn_in=step.burn_in, windows=step.windows)
        speed = step.labelled_tokens / max(step.seconds, 1e-9)
        kind = "burn-in " if step.burn_in else ""
        self._report(
            0 if step.burn_in else step.step, f"{kind}loss {step.loss:.3f}  {speed:,.0f} tok/s"
        )

    def _report(self, step: int, message: str) -> None:
        total = self.preparation.schedule.total_steps
        self.control.report({"completed": step, "total": total, "message": message})
