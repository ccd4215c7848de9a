"""What does this model know: every question of a plan, in one call, as often as a run asks.

    evaluator = Evaluator(build_plan(builders, tokenizer), descriptions=descriptions)
    start = evaluator.evaluate(model)
    later = evaluator.evaluate(model, baseline=start.scores, beam_search=False)
    later.eval_sets["name_mayor_eval_qa_1_no_fs"]["mean_rank"]

The model leaves as it came: weights, training mode, configuration and random state untouched.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from oocr_influence.evaluation.beam_search import (
    Beam,
    BeamQuery,
    gives_answer,
    search,
    search_plain,
    set_queries,
)
from oocr_influence.evaluation.metrics import (
    PathSums,
    QuestionBeams,
    check_finite,
    own_columns,
    question_metrics,
    set_means,
    sum_paths,
)
from oocr_influence.evaluation.metrics.run import warn_of_unknown
from oocr_influence.evaluation.plain import score_plain
from oocr_influence.evaluation.plan import EvalPlan, PlannedSet
from oocr_influence.evaluation.pruned import score_pruned
from oocr_influence.evaluation.records import KNOWN_COLUMNS, set_records
from oocr_influence.evaluation.scores import Scores, model_device
from oocr_influence.evaluation.tree import probe, score_tree
from oocr_influence.evaluation.trie import TreeBatch, lay_out
from oocr_influence.models.team import ALONE, Team

logger = logging.getLogger(__name__)

# Padded tokens of a forward pass. CPU: 1,024 to 4,096 are equally fast, 8,192 is 15 % slower (2 M
# parameters, one thread), and beam search likes few large batches.
TOKEN_BUDGET = {"cpu": 4096, "cuda": 16384}
SETS_NAMED = 10  # in a warning

Progress = Callable[[int, int], None]
RankScoring = Literal["full", "pruned"]


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation found; `eval_sets` and `records` hold plain JSON values."""

    eval_sets: dict[str, dict[str, float | int | None]]
    """Means of each set by name."""
    records: list[dict[str, Any]]
    """One row a question, all sets in the order of the plan."""
    scores: Scores
    """The token scores, which a later evaluation takes as its `baseline`."""
    seconds: float
    scorer: str
    """`tree` or `plain`."""


@dataclass(frozen=True)
class _Read:
    """What the forward passes of one evaluation gave."""

    scores: Scores
    sums: PathSums
    beams: Mapping[BeamQuery, list[Beam]]
    scorer: str


class Evaluator:
    """Runs one plan on any number of models; layouts are made once, and each kind of model proved.

    `descriptions` gives each set's record columns (world, relation, answer_format, style, phrasing,
    shots, kind). `token_budget` is the most padded tokens of a forward pass; by default it
    follows from the device.
    """

    def __init__(
        self,
        plan: EvalPlan,
        *,
        descriptions: Mapping[str, Mapping[str, Any]] | None = None,
        token_budget: int | None = None,
    ) -> None:
        self.plan = plan
        self.token_budget = token_budget
        self._descriptions = descriptions or {}
        self._batches: tuple[int, list[TreeBatch]] | None = None
        self._proved: dict[tuple[Any, ...], bool] = {}
        warn_of_unknown(plan.sets.values())

    def evaluate(
        self,
        model: Any,
        *,
        beam_search: bool = True,
        baseline: Scores | None = None,
        ranks: RankScoring = "full",
        progress: Progress | None = None,
        team: Team = ALONE,
    ) -> Evaluation:
        """Score `model` on every set.

        `baseline` holds the untouched model's scores on the same plan; `beam_search=False` leaves
        out the completions that sets ask for. `ranks="pruned"` scores candidates no further than
        strict ranks need (see `pruned.py`): what takes every candidate's log-probability is then
        None. `progress(done, total)` counts prompts. The others of a `team` must call `assist` with
        the same model and settings; the results are those of one process. Raises
        NonFiniteScoreError for a model whose losses are not finite, ValueError for a baseline of
        another plan.
        """
        started = time.perf_counter()
        if baseline is not None:
            baseline.check_baseline(self.plan)
        queries = self._queries() if beam_search else {}
        read = self._read(model, queries, ranks, progress, team)
        scores, sums, found = read.scores, read.sums, read.beams
        before = None if baseline is None else sum_paths(self.plan, baseline)
        eval_sets: dict[str, dict[str, float | int | None]] = {}
        records: list[dict[str, Any]] = []
        own = own_columns(self.plan.sets.values(), KNOWN_COLUMNS)
        for name, planned in self.plan.sets.items():
            beams = None
            if name in queries:
                beams = self._question_beams(planned, [found[query] for query in queries[name]])
            columns = question_metrics(planned, sums, before, beams)
            eval_sets[name] = set_means(planned, columns)
            description = self._descriptions.get(name, {})
            records += set_records(
                self.plan, planned, columns, sums, scores, beams, description, own
            )
        _warn_of_ties(eval_sets)
        seconds = time.perf_counter() - started
        return Evaluation(eval_sets, records, scores, seconds, read.scorer)

    def assist(
        self, model: Any, *, beam_search: bool, ranks: RankScoring = "full", team: Team
    ) -> None:
        """Do this process's share of an `evaluate` that the team's leader calls."""
        self._read(model, self._queries() if beam_search else {}, ranks, None, team)

    def _read(
        self,
        model: Any,
        queries: Mapping[str, list[BeamQuery]],
        ranks: RankScoring,
        progress: Progress | None,
        team: Team,
    ) -> _Read:
        """All that takes forward passes."""
        distinct = {query for of_set in queries.values() for query in of_set}
        use_tree = all(team.gather(self._tree_is_right(model)))
        passes = 2 if use_tree and ranks == "pruned" else 1
        count = _counter(progress, passes * len(self.plan.prefixes) + len(distinct), team)
        if use_tree and ranks == "pruned":
            scores = score_pruned(model, self.plan, self._budget(model), count, team)
        elif use_tree:
            scores = score_tree(model, self.plan, self._layout(self._budget(model)), count, team)
        else:
            scores = score_plain(model, self.plan, count, team)
        sums = sum_paths(self.plan, scores)
        for planned in self.plan.sets.values():
            check_finite(planned, sums)  # before a search that would be for nothing
        found = self._search(model, distinct, use_tree, count, team)
        return _Read(scores, sums, found, "tree" if use_tree else "plain")

    def _budget(self, model: Any) -> int:
        device = model_device(model).type
        return self.token_budget or TOKEN_BUDGET.get(device, TOKEN_BUDGET["cuda"])

    def _layout(self, budget: int) -> list[TreeBatch]:
        if self._batches is None or self._batches[0] != budget:
            self._batches = budget, lay_out(self.plan, budget)
        return self._batches[1]

    def _tree_is_right(self, model: Any) -> bool:
        """Prove the tree on this kind of model; the answer holds for all its later checkpoints."""
        attention = getattr(model.config, "_attn_implementation", None)
        dtype = model.get_input_embeddings().weight.dtype
        kind = (type(model), attention, dtype, model_device(model).type)
        if kind not in self._proved:
            fault = probe(model, self.plan, self._budget(model))
            if fault is not None:
                logger.warning(
                    "the tree scorer does not fit this model, so each pair is scored by its own "
                    "forward pass (slow): %s",
                    fault,
                )
            self._proved[kind] = fault is None
        return self._proved[kind]

    def _queries(self) -> dict[str, list[BeamQuery]]:
        return {
            name: set_queries(self.plan, planned)
            for name, planned in self.plan.sets.items()
            if planned.beam_search is not None
        }

    def _search(
        self,
        model: Any,
        queries: set[BeamQuery],
        use_tree: bool,
        count: Callable[[int], None],
        team: Team,
    ) -> dict[BeamQuery, list[Beam]]:
        if not queries:
            return {}
        if use_tree:
            budget = self._budget(model)
            return search(model, sorted(queries), token_budget=budget, progress=count, team=team)
        return search_plain(model, sorted(queries), progress=count, team=team)

    def _question_beams(
        self, planned: PlannedSet, beams_Q: list[list[Beam]]
    ) -> list[QuestionBeams]:
        decoded = self.plan.tokenizer.batch_decode(
            [list(beam.tokens) for beams in beams_Q for beam in beams],
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )
        texts = iter(decoded)
        result = []
        for beams, answer in zip(beams_Q, planned.completions, strict=True):
            own = [next(texts) for _ in beams]
            probs = [math.exp(beam.logprob) for beam in beams]
            right = [gives_answer(text, answer) for text in own]
            result.append(
                QuestionBeams(
                    texts=own,
                    tokens=[beam.tokens for beam in beams],
                    logprobs=[beam.logprob for beam in beams],
                    probs=probs,
                    rank=right.index(True) + 1 if any(right) else None,
                    prob_right=sum(p for p, is_right in zip(probs, right, strict=True) if is_right),
                )
            )
        return result


def _counter(progress: Progress | None, total: int, team: Team) -> Callable[[int], None]:
    """Counts for the whole team, whose processes are about equally far."""
    done = 0

    def count(n: int) -> None:
        nonlocal done
        done = min(total, done + n * team.size)
        if progress is not None:
            progress(done, total)

    return count


def _warn_of_ties(eval_sets: Mapping[str, Mapping[str, float | int | None]]) -> None:
    """A tie with the right answer flatters the strict rank, so say where there are any."""
    tied = {name: means["n_tied"] for name, means in eval_sets.items() if means.get("n_tied")}
    if not tied:
        return
    named = [f"{name} ({tied[name]} of {eval_sets[name]['n']})" for name in list(tied)[:SETS_NAMED]]
    more = f" and {len(tied) - SETS_NAMED} more sets" if len(tied) > SETS_NAMED else ""
    logger.warning(
        "candidates tie exactly with the right answer of %d questions, whose strict rank is "
        "flattering (see rank_tie_averaged): %s%s",
        sum(int(count or 0) for count in tied.values()),
        ", ".join(named),
        more,
    )
