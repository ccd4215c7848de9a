"""Candidates that have lost are not read on, and no strict rank changes."""

import dataclasses

import numpy as np
import pytest
import torch

from oocr_influence.cli.options import TrainingArgs
from oocr_influence.datasets.document_dataset import EvalDatasetBuilder
from oocr_influence.evaluation import pruned
from oocr_influence.evaluation.evaluate import Evaluator
from oocr_influence.evaluation.plan import build_plan
from oocr_influence.evaluation.pruned import score_pruned
from oocr_influence.evaluation.scores import NonFiniteScoreError, Scores
from oocr_influence.evaluation.tree import score_tree
from oocr_influence.evaluation.trie import build_trie, lay_out

BUDGET = 512
SAME = ("rank", "rank_tie_averaged", "n_ties", "rank_without_few_shot", "normalised_rank")
NEEDS_EVERY_SUM = ("rank_logprob", "rank_prior_corrected", "rank_step0_corrected", "rank_swapped")


def forwarded(model, run):
    """Tokens that `run` sends through the model."""
    counts = []
    hook = model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: counts.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    try:
        result = run()
    finally:
        hook.remove()
    return result, sum(counts)


def teach(model, plan):
    """Let the model know the answers of `gen`, and of no other set."""
    rows = [
        torch.tensor([[*plan.prefixes[plan.path_group_P[path]], *plan.answer(path)]])
        for path in plan.sets["gen"].right_path_Q
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(20):
        for ids in rows:
            model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@pytest.fixture(scope="module")
def taught(make_model, plan):
    return teach(make_model("olmo2"), plan)


@pytest.mark.parametrize("family", ["llama", "olmo2", "qwen3", "gpt2"])
@pytest.mark.parametrize("tokenizer", ["bos", "merging"])
def test_strict_ranks_are_those_of_full_scoring(
    family, tokenizer, builders, tokenizers, make_model
):
    plan = build_plan(builders, tokenizers[tokenizer])
    model = teach(make_model(family), plan)
    evaluator = Evaluator(plan, token_budget=BUDGET)
    full = evaluator.evaluate(model, beam_search=False)
    fewer = evaluator.evaluate(model, beam_search=False, ranks="pruned", baseline=full.scores)
    assert fewer.scores.pruned_P.any()
    for one, other in zip(full.records, fewer.records, strict=True):
        assert [one[name] for name in SAME] == [other[name] for name in SAME]
        assert one["accuracy"] == other["accuracy"]
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)
        assert one["softmargin"] == pytest.approx(other["softmargin"], abs=1e-4)


def test_what_takes_every_sum_is_null(plan, taught):
    full = Evaluator(plan).evaluate(taught, beam_search=False)
    fewer = Evaluator(plan).evaluate(
        taught, beam_search=False, ranks="pruned", baseline=full.scores
    )
    for one, other in zip(full.records, fewer.records, strict=True):
        assert all(other[name] is None for name in NEEDS_EVERY_SUM)
        for before, after in zip(
            one["candidate_logprobs"], other["candidate_logprobs"], strict=True
        ):
            assert after is None or after == pytest.approx(before, abs=1e-4)
        gone = [p is None for p in other["candidate_logprobs"]]
        assert not gone[other["candidate_texts"].index(other["completion"])]
    assert any(None in row["candidate_logprobs"] for row in fewer.records)
    assert all(fewer.eval_sets["gen"][f"mean_{name}"] is None for name in NEEDS_EVERY_SUM)
    assert fewer.eval_sets["gen"]["mean_rank"] == full.eval_sets["gen"]["mean_rank"]


def test_a_known_answer_needs_one_pass(plan, taught):
    """All that is read of the known set are the prompts with their right answers."""
    known = build_plan({"gen": builder_of(plan, "gen")}, plan.tokenizer)
    scores, few = forwarded(taught, lambda: score_pruned(taught, known, BUDGET))
    _, many = forwarded(taught, lambda: score_tree(taught, known, lay_out(known, BUDGET)))
    first = lay_out(known, BUDGET, read_P=pruned.right_paths(known))
    assert few == sum(batch.n_tokens for batch in first)
    assert few < many
    wrong_P = ~pruned.right_paths(known)
    complete_P = np.logical_and.reduceat(~np.isnan(scores.logprob_E), known.first_token_P[:-1])
    assert (scores.pruned_P | complete_P)[wrong_P].all()


def builder_of(plan, name):
    planned = plan.sets[name]
    metrics = [{"function_name": "ranks"}]
    return EvalDatasetBuilder.model_validate({"eval_points": planned.points, "metrics": metrics})


def test_sets_with_other_metrics_keep_their_candidates(plan, taught):
    asked = {**plan.sets["gen"].metrics, "in_top_3": {}}
    sets = {**plan.sets, "gen": dataclasses.replace(plan.sets["gen"], metrics=asked)}
    scores = score_pruned(taught, dataclasses.replace(plan, sets=sets), BUDGET)
    assert not scores.pruned_P[plan.sets["gen"].path_QC].any()
    assert scores.pruned_P[plan.sets["qa_fs"].path_QC].any()


def test_too_eager_pruning_would_be_seen(plan, taught, monkeypatch):
    """The planted fault: a candidate is given up before it costs more than the right answer."""
    full = Evaluator(plan).evaluate(taught, beam_search=False)
    monkeypatch.setattr(pruned, "tolerance", lambda model: -3.0)
    eager = Evaluator(plan).evaluate(taught, beam_search=False, ranks="pruned")
    assert [row["rank"] for row in full.records] != [row["rank"] for row in eager.records]


def test_progress_ends_at_its_total(plan, taught):
    told = []
    Evaluator(plan).evaluate(
        taught, ranks="pruned", progress=lambda done, total: told.append((done, total))
    )
    assert told[-1][0] == told[-1][1]
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_pruned_scores_are_no_baseline(plan, taught, tmp_path):
    score_pruned(taught, plan, BUDGET).save(tmp_path / "scores.npz")
    scores = Scores.load(tmp_path / "scores.npz")
    assert scores.pruned_P.any()
    with pytest.raises(ValueError, match="every candidate"):
        Evaluator(plan).evaluate(taught, baseline=scores)


def test_a_model_without_numbers_is_an_error(plan, make_model):
    model = make_model("olmo2")
    torch.nn.init.constant_(model.lm_head.weight, torch.nan)
    with pytest.raises(NonFiniteScoreError):
        Evaluator(plan).evaluate(model, beam_search=False, ranks="pruned")


def test_a_model_that_the_tree_does_not_fit_is_scored_in_full(plan, make_model):
    found = Evaluator(plan).evaluate(make_model("window"), beam_search=False, ranks="pruned")
    assert (found.scorer, found.scores.pruned_P) == ("plain", None)


def test_an_unread_answer_is_scored_to_where_it_parts():
    answers = [(1, 2, 3), (1, 2, 4), (1, 5, 6, 7), (8, 9), (1, 2)]
    trie = build_trie(answers, [True, False, False, False, False])
    assert trie.token_N.tolist() == [1, 2]
    #             1  2  3 | 1  2  4 | 1  5 | 8 | 1   2
    assert trie.scored_K.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 10, 12, 13]
    assert trie.parent_row_K.tolist() == [-1, 0, 1, -1, 0, 1, -1, 0, -1, -1, 0]


def test_the_command_line_takes_it():
    assert TrainingArgs.model_fields["ranks"].default == "full"
    args = TrainingArgs.model_validate({"structured_dataset": "x.json", "ranks": "pruned"})
    assert args.ranks == "pruned"
