"""Asking one model after the other the same sets, and writing what they answer into new files."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers

from oocr_influence.cli.evaluation_targets import Target
from oocr_influence.cli.untouched import UntouchedModel
from oocr_influence.datasets.document_dataset import EvalDatasetBuilder
from oocr_influence.datasets.eval_sets import describe_set
from oocr_influence.evaluation.evaluate import Evaluation, Evaluator
from oocr_influence.evaluation.plan_cache import cached_plan, suite_digest
from oocr_influence.evaluation.scores import Scores
from oocr_influence.models.load import (
    WeightPrecision,
    load_model,
    load_tokenizer,
    pick_dtype,
    weights_digest,
)
from oocr_influence.models.resolve import ResolvedModel
from oocr_influence.results.cache import Cache
from oocr_influence.results.digests import file_digest
from oocr_influence.results.run_folder import SUITE_LETTERS

_EVERY = 30.0  # seconds between two lines of progress where there is no terminal


@dataclass(frozen=True)
class Suite:
    """The chosen sets of one dataset in one tokenizer's words."""

    digest: str
    evaluator: Evaluator
    n_questions: int

    @property
    def short(self) -> str:
        return self.digest[:SUITE_LETTERS]


@dataclass
class Session:
    """What is loaded once and used for many targets."""

    builders: dict[Path, dict[str, EvalDatasetBuilder]]
    cache: Cache | None
    device: torch.device
    patterns: Sequence[str]
    """Of the sets that were chosen, to be written down."""
    beam_search: bool
    again: bool
    metric_files: Mapping[str, str] = field(default_factory=dict)
    """Digest of each file of metrics by its name."""
    suites: dict[tuple[Path, str], Suite] = field(default_factory=dict)
    digests: dict[Path, str] = field(default_factory=dict)
    untouched: dict[tuple[ResolvedModel, str, str], Scores] = field(default_factory=dict)

    def suite(self, target: Target) -> Suite:
        tokenizer = load_tokenizer(target.tokenizer)
        builders = self.builders[target.dataset]
        digest = suite_digest(builders, tokenizer)
        key = target.dataset, digest
        if key not in self.suites:
            plan = cached_plan(builders, tokenizer, digest, self.cache)
            described = {name: asdict(describe_set(name, b)) for name, b in builders.items()}
            n_questions = sum(len(builder.eval_points) for builder in builders.values())
            evaluator = Evaluator(plan, descriptions=described)
            self.suites[key] = Suite(digest, evaluator, n_questions)
        return self.suites[key]

    def dataset_digest(self, path: Path) -> str:
        if path not in self.digests:
            self.digests[path] = file_digest(path)
        return self.digests[path]

    def ask(self, target: Target, progress: Progress) -> str:
        """Ask one target unless that was done, and write what it answers; returns what to say.

        Raises OSError where files cannot be read or written, ValueError for scores that are not
        finite or sets that cannot be tokenised.
        """
        suite = self.suite(target)
        made = target.folder.read_made(target.name, suite.short)
        # A folder of weights may hold others by now; a checkpoint or a commit is what it was.
        lasting = target.in_run or target.model.commit is not None
        if lasting and self._asked_before(target, made):
            return "asked before (--again asks anew)"
        baseline = self._baseline(target, suite, progress)
        model = self._load(target.model, target.precision)
        weights = None
        if not lasting or target.name == "start":
            weights = weights_digest(model)
        if (
            not lasting
            and made.get("weights_digest") == weights
            and self._asked_before(target, made)
        ):
            return "asked before (--again asks anew)"
        found = suite.evaluator.evaluate(
            model,
            beam_search=self.beam_search,
            baseline=baseline,
            progress=progress.of(target.label),
        )
        self._write(target, suite, found, weights_digest=weights, baseline=baseline is not None)
        if target.in_run and target.name == "start":
            assert weights is not None
            self.untouched[target.model, suite.digest, target.precision] = found.scores
            if self.cache is not None:
                kept = UntouchedModel(self.cache, model, weights=weights, suite=suite.digest)
                kept.keep_scores(found.scores)
        n_sets = len(found.eval_sets)
        return f"{n_sets} sets, {suite.n_questions} questions in {found.seconds:.1f} s"

    def _asked_before(self, target: Target, made: Mapping[str, Any]) -> bool:
        """Whether what is there is what would be made."""
        return (
            not self.again
            and bool(made)
            and made.get("dtype") == str(pick_dtype(target.precision, self.device))
            and made.get("commit") == target.model.commit
            and made.get("metric_files", {}) == self.metric_files
            and bool(made.get("beam_search")) >= self.beam_search
        )

    def _baseline(self, target: Target, suite: Suite, progress: Progress) -> Scores | None:
        """What the run's untouched model says, from which later answers are told apart."""
        if target.untouched is None:
            return None
        key = target.untouched, suite.digest, target.precision
        if key not in self.untouched:
            model = self._load(target.untouched, target.precision)
            kept = None
            if self.cache is not None:
                weights = weights_digest(model)
                kept = UntouchedModel(self.cache, model, weights=weights, suite=suite.digest)
            scores = None if kept is None else kept.scores()
            if scores is None:
                label = f"{target.folder.name} start, to compare with"
                scores = suite.evaluator.evaluate(
                    model, beam_search=False, progress=progress.of(label)
                ).scores
                if kept is not None:
                    kept.keep_scores(scores)
            self.untouched[key] = scores
        return self.untouched[key]

    def _load(self, model: ResolvedModel, precision: WeightPrecision) -> Any:
        return load_model(model, precision=precision, device=self.device)

    def _write(self, target: Target, suite: Suite, found: Evaluation, **more: Any) -> None:
        if target.in_run and not target.folder.path.is_dir():
            raise FileNotFoundError(f"{target.folder.path} was deleted meanwhile")
        made = {
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": target.model.name,
            "revision": target.model.revision,
            "commit": target.model.commit,
            "dataset": str(target.dataset.resolve()),
            "dataset_digest": self.dataset_digest(target.dataset),
            "sets": list(self.patterns),
            "suite_digest": suite.digest,
            "plan_digest": suite.evaluator.plan.digest,
            "metric_files": dict(self.metric_files),
            "beam_search": self.beam_search,
            "dtype": str(pick_dtype(target.precision, self.device)),
            "device": str(self.device),
            "scorer": found.scorer,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }
        target.folder.write_evaluation(
            target.name,
            step_num=target.step,
            epoch_num=target.epoch,
            eval_seconds=found.seconds,
            eval_sets=found.eval_sets,
            records=found.records,
            suite=suite.short,
            made=made | more,
        )


class Progress:
    """How far an evaluation is: a line that moves in a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._said = time.monotonic()

    def of(self, label: str) -> Callable[[int, int], None]:
        """What an evaluator calls to say how far it is with `label`."""

        def progress(done: int, total: int) -> None:
            text = f"{label}: {100 * done // max(total, 1)} %"
            now = time.monotonic()
            if self._terminal:
                print(f"\r\x1b[K{text[-100:]}", end="", file=sys.stderr, flush=True)
            elif now - self._said >= _EVERY:
                self._said = now
                print(text, file=sys.stderr, flush=True)

        return progress

    def clear(self) -> None:
        """Make room for a line that stays."""
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
