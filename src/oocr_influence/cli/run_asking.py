"""What one run asks its model, and writes down: questions, documents' losses, the log's history.

The untouched model is asked once for all runs of the same model and questions (results/cache.py);
what it answers is every later evaluation's baseline.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from oocr_influence.cli.preparation import Preparation
from oocr_influence.cli.run_context import RunContext
from oocr_influence.cli.run_record import with_records
from oocr_influence.cli.untouched import Kept, Measured, UntouchedModel
from oocr_influence.datasets.document_dataset import EvalDatasetBuilder
from oocr_influence.datasets.eval_sets import describe_set
from oocr_influence.datasets.held_out import loss_samples
from oocr_influence.evaluation.document_losses import DocumentLosses
from oocr_influence.evaluation.evaluate import Evaluator
from oocr_influence.evaluation.metrics import load_metric_files
from oocr_influence.evaluation.plan import EvalPlan
from oocr_influence.evaluation.plan_cache import cached_plan, suite_digest
from oocr_influence.evaluation.scores import Scores
from oocr_influence.models.load import load_model
from oocr_influence.results.cache import Cache

logger = logging.getLogger("oocr_influence")


@dataclass(frozen=True)
class PlannedSuite:
    """What a run asks, as sets, by its name, and ready to be asked."""

    builders: Mapping[str, EvalDatasetBuilder]
    digest: str
    evaluator: Evaluator

    @property
    def plan(self) -> EvalPlan:
        """The questions, tokenised."""
        return self.evaluator.plan


def plan_of(
    preparation: Preparation, cache: Cache | None, waiting: Callable[[], None] = lambda: None
) -> PlannedSuite:
    """All questions of a run, its own metrics among what is asked."""
    own_metrics = load_metric_files(preparation.args.metric_files)
    builders = {
        name: builder.also_asking(own_metrics) for name, builder in preparation.asked_sets().items()
    }
    digest = suite_digest(builders, preparation.tokenizer)
    plan = cached_plan(builders, preparation.tokenizer, digest, cache, waiting)
    descriptions = {name: asdict(describe_set(name, builder)) for name, builder in builders.items()}
    return PlannedSuite(builders, digest, Evaluator(plan, descriptions=descriptions))


def loss_documents(preparation: Preparation) -> DocumentLosses | None:
    """The documents whose losses a run measures; None if there are none."""
    p, args = preparation, preparation.args
    if args.n_loss_documents == 0:
        return None
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


class RunAsking:
    """The evaluations of a run; `weights_digest` is that of the untouched model.

    `plan_of` gives the questions where somebody has planned them already.
    """

    def __init__(
        self,
        run: RunContext,
        model: Any,
        weights_digest: str,
        plan_of: Callable[[], PlannedSuite] | None = None,
    ) -> None:
        self._run, self._model, self._weights_digest = run, model, weights_digest
        self._names = {moment.step: moment.name for moment in run.preparation.evaluations}
        self._baseline: Scores | None = None
        self._evaluator = self._plan(plan_of or self._planned)
        self.plan_digest = self._evaluator.plan.digest
        self._document_losses = loss_documents(run.preparation)

    def is_due(self, step: int) -> bool:
        """Whether the schedule asks for an evaluation at this step."""
        return step in self._names

    def after_step(self, step: int) -> None:
        """Ask what the schedule asks for, if no attempt before has done so."""
        if step not in self._names or step in self._run.log.steps:
            return
        name = self._names[step]
        found = self._ask_untouched(name) if step == 0 else self._ask(step, name)
        self._record(step, name, found)

    def _planned(self) -> PlannedSuite:
        waiting = self._run.waiting("planning by another run")
        return plan_of(self._run.preparation, self._run.cache, waiting)

    def _plan(self, plan_of: Callable[[], PlannedSuite]) -> Evaluator:
        suite = plan_of()
        builders, plan, self._suite = suite.builders, suite.plan, suite.digest
        self._run.log.update(
            eval_plan_digest=plan.digest, eval_suite_digest=self._suite, n_eval_sets=len(builders)
        )
        for name, builder in builders.items() if self._run.args.save_datasets else ():
            if self._run.folder.eval_dataset(name).exists():
                continue  # of the attempt before this one
            self._run.folder.save_eval_dataset(
                name,
                plan.eval_dataset_rows(name),
                [metric.model_dump() for metric in builder.metrics],
            )
        return suite.evaluator

    def _asks_for_beams(self, step: int) -> bool:
        last = step == self._run.total_steps
        return self._run.args.beam_search == "every" or (
            self._run.args.beam_search == "final" and last
        )

    def _ask(self, step: int, name: str) -> Measured:
        """Ask the model, and write what it answers."""

        def progress(done: int, total: int) -> None:
            said = f"evaluating {name} {100 * done // max(total, 1)} %"
            self._run.report(step, said, evaluation=name)

        if step and self._baseline is None and self._run.args.eval_first_step:
            self._baseline = self._untouched_scores()
        beam_search = self._asks_for_beams(step)
        # What the untouched model says is every later evaluation's baseline.
        ranks = self._run.args.ranks if step else "full"
        team = self._run.team
        with self._run.phases("evaluate"):
            team.tell("evaluate", beam_search, ranks)
            found = self._evaluator.evaluate(
                self._model,
                beam_search=beam_search,
                baseline=self._baseline,
                ranks=ranks,
                progress=progress,
                team=team,
            )
        losses = None
        if self._document_losses is not None:
            with self._run.phases("document_losses"):
                team.tell("losses")
                losses = self._document_losses.measure(self._model, team)
        measured = Measured(found.eval_sets, found.records, found.scores, found.seconds, losses)
        self._write_evaluation(step, name, measured)
        return measured

    def _ask_untouched(self, name: str) -> Measured:
        """The same for step 0, out of the cache where an earlier run has asked this model."""
        # What a metric file imports can change unseen, so that nothing made by one is kept.
        if self._run.cache is None or self._run.args.metric_files:
            found = self._ask(0, name)
        else:
            untouched = self._untouched(self._run.cache)
            beams = self._asks_for_beams(0)
            with untouched.alone(
                beam_search=beams, waiting=self._run.waiting(f"evaluation of {name} by another run")
            ):
                kept = untouched.find(beam_search=beams)
                if kept is None:
                    found = self._ask(0, name)
                    untouched.keep(self._run.folder, name, found.scores, beam_search=beams)
                else:
                    found = self._adopt(kept, name)
        self._baseline = found.scores
        return found

    def _untouched(self, cache: Cache) -> UntouchedModel:
        documents = None if self._document_losses is None else self._document_losses.digest
        return UntouchedModel(
            cache, self._model, weights=self._weights_digest, suite=self._suite, documents=documents
        )

    def _untouched_scores(self) -> Scores:
        """Step 0's scores in a run that goes on: out of the cache, or asked for again."""
        if self._run.cache is not None and not self._run.args.metric_files:
            kept = self._untouched(self._run.cache).scores()
            if kept is not None:
                return kept
        logger.info("asking the untouched model again, whose scores later ones are compared with")
        with self._run.phases("evaluate_untouched_again"):
            untouched = load_model(
                self._run.preparation.resolved, precision=self._run.args.precision
            )
            return self._evaluator.evaluate(untouched, beam_search=False).scores

    def _adopt(self, kept: Kept, name: str) -> Measured:
        """Take an evaluation out of the cache, and say so."""
        about = {**kept.entry.about, "seconds": kept.measured.seconds}
        try:
            kept.give_to(self._run.folder, name)
        except OSError:  # the cache was emptied this moment
            self._write_evaluation(0, name, kept.measured)
        self._run.log.update(evaluation_from_cache={"name": name, **about})
        logger.info("%s is out of the cache: this model was asked by %s", name, about.get("run"))
        return kept.measured

    def _write_evaluation(self, step: int, name: str, found: Measured) -> None:
        self._run.folder.write_evaluation(
            name,
            step_num=step,
            epoch_num=step / self._run.preparation.schedule.steps_per_epoch,
            eval_seconds=found.seconds,
            eval_sets=found.eval_sets,
            records=found.records,
            document_losses=found.document_losses,
        )

    def _record(self, step: int, name: str, found: Measured) -> None:
        """One entry of the log's history."""
        losses = found.document_losses
        self._run.tracking.evaluation(step, found.eval_sets, losses, found.seconds)
        epoch = step / self._run.preparation.schedule.steps_per_epoch
        self._run.log.append(
            {
                "epoch_num": epoch,
                "step_num": step,
                "train_loss": self._run.last_step.loss if self._run.last_step else None,
                "global_grad_norm": self._run.last_step.grad_norm if self._run.last_step else None,
                "eval_results": with_records(found.eval_sets, found.records)
                if self._run.args.save_datasets
                else found.eval_sets,
                "eval_time": found.seconds / 60,
                "document_losses": losses,
            }
        )
        self._run.log.update(phases=self._run.phases.record)
        self._run.log.write()
        logger.info("evaluated %s (step %d) in %.1f s", name, step, found.seconds)
        if losses is not None:
            told = (f"{group} {loss['mean_loss']:.3f}" for group, loss in losses.items())
            logger.info("loss a token of whole documents: %s", ", ".join(told))
