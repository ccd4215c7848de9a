"""What a sweep will do, counted: exact, since runs follow from the same preparation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oocr_influence.cli.preparation import Preparation
from oocr_influence.cli.run_asking import loss_documents, plan_of
from oocr_influence.evaluation.beam_search import set_queries
from oocr_influence.evaluation.evaluate import TOKEN_BUDGET
from oocr_influence.evaluation.plan import EvalPlan
from oocr_influence.evaluation.trie import lay_out
from oocr_influence.results.cache import Cache


@dataclass(frozen=True)
class AskedCounts:
    """What one evaluation asks."""

    suite: str
    """Digest of the questions: equal ones ask the same."""
    sets: int
    questions: int
    pairs: int
    """Of a question and a candidate."""
    prompts: int
    scored_tokens: int
    """Tokens of the forward passes, padding included."""
    scored_context: float
    """Tokens before each of them, at most, on average."""
    beam_prompts: int
    loss_tokens: int
    """Of the whole documents whose loss is measured."""


@dataclass(frozen=True)
class RunCounts:
    """What each run of a point does."""

    documents: int
    windows: int
    tokens: int
    """Of an epoch."""
    labels: int
    steps_per_epoch: int
    total_steps: int
    burn_in_steps: int
    trained_windows: int
    """In all updates, each as often as it is trained."""
    trained_tokens: int
    evaluations: list[str]
    checkpoints: list[str]
    """Those that are left in the end."""

    @property
    def updates(self) -> int:
        return self.burn_in_steps + self.total_steps


def count_run(preparation: Preparation) -> RunCounts:
    """Steps, names and tokens of one run."""
    schedule, windows = preparation.schedule, preparation.windows
    trained = sum(
        batch.stop - batch.start
        for n_steps in (schedule.burn_in_steps, schedule.total_steps)
        for batch in map(schedule.batch, range(1, n_steps + 1))
    )
    return RunCounts(
        documents=len(preparation.documents),
        windows=len(windows),
        tokens=windows.n_tokens,
        labels=windows.n_labels,
        steps_per_epoch=schedule.steps_per_epoch,
        total_steps=schedule.total_steps,
        burn_in_steps=schedule.burn_in_steps,
        trained_windows=trained,
        trained_tokens=round(windows.n_tokens * trained / len(windows)),
        evaluations=[moment.name for moment in preparation.evaluations],
        checkpoints=[moment.name for moment in preparation.checkpoints],
    )


def count_asked(preparation: Preparation, kind: str, cache: Cache | None) -> AskedCounts:
    """What each evaluation of a run asks, on a device of this kind."""
    suite = plan_of(preparation, cache)
    plan: EvalPlan = suite.plan
    batches = lay_out(plan, TOKEN_BUDGET.get(kind, TOKEN_BUDGET["cuda"]))
    tokens = sum(batch.n_tokens for batch in batches)
    context = sum(batch.n_tokens * batch.ids_BT.shape[1] / 2 for batch in batches)
    searched = {
        query
        for one in plan.sets.values()
        if one.beam_search is not None
        for query in set_queries(plan, one)
    }
    losses = loss_documents(preparation)
    return AskedCounts(
        suite=suite.digest,
        sets=len(plan.sets),
        questions=sum(len(one.points) for one in plan.sets.values()),
        pairs=int(sum(np.size(one.path_QC) for one in plan.sets.values())),
        prompts=len(plan.prefixes),
        scored_tokens=tokens,
        scored_context=context / max(tokens, 1),
        beam_prompts=len(searched),
        loss_tokens=0 if losses is None else losses.n_tokens,
    )
