"""One call evaluates everything, leaves the model as it was, and never hides what went wrong."""

import copy
import json
import logging
import math

import numpy as np
import pyarrow as pa
import pytest
import torch

from oocr_influence.evaluation.evaluate import Evaluator
from oocr_influence.evaluation.metrics import QUESTION_METRICS
from oocr_influence.evaluation.scores import NonFiniteScoreError

BUDGET = 512


@pytest.fixture(scope="module")
def evaluation(plan, olmo):
    descriptions = {"gen": {"world": "mayors", "relation": "mayor", "shots": 0, "kind": "trained"}}
    return Evaluator(plan, descriptions=descriptions, token_budget=BUDGET).evaluate(olmo)


def test_records_reproduce_the_means(evaluation, plan):
    for name, means in evaluation.eval_sets.items():
        rows = [row for row in evaluation.records if row["set"] == name]
        assert [row["index"] for row in rows] == list(range(means["n"]))
        for metric in QUESTION_METRICS:
            key = "accuracy" if metric == "accuracy" else f"mean_{metric}"
            if means.get(key) is not None:
                mean = math.fsum(row[metric] for row in rows) / len(rows)
                assert means[key] == pytest.approx(mean, abs=1e-12), (name, metric)
        if plan.sets[name].beam_search:
            found = [row["beam_rank"] is not None for row in rows]
            assert means["beam_found"] == pytest.approx(sum(found) / len(found))


def test_candidates_in_the_records_reproduce_the_ranks(evaluation):
    for row in evaluation.records:
        lengths, sums = row["candidate_n_tokens"], row["candidate_logprobs"]
        right = row["candidate_texts"].index(row["completion"])
        assert sums[right] == pytest.approx(row["logprob"])
        assert sum(row["answer_token_logprobs"]) == pytest.approx(row["logprob"])
        assert len(row["answer_token_ids"]) == len(row["softmargin_tokens"]) == lengths[right]
        if row["rank"] is not None:
            losses = [-total / n for total, n in zip(sums, lengths, strict=True)]
            assert row["rank"] == 1 + sum(loss < losses[right] for loss in losses)


def test_records_hold_what_was_asked_and_of_what_kind(evaluation, plan):
    row = evaluation.records[0]
    assert (row["set"], row["prompt"]) == ("gen", "The mayor of Lagos is")
    assert (row["world"], row["kind"], row["shots"]) == ("mayors", "trained", 0)
    assert row["style"] is None
    assert row["id"] == plan.sets["gen"].ids[0]
    assert evaluation.records[-1]["world"] is None


def test_records_are_plain_json_and_one_table(evaluation):
    assert json.loads(json.dumps(evaluation.records, allow_nan=False)) == evaluation.records
    json.dumps(evaluation.eval_sets, allow_nan=False)
    assert len({tuple(row) for row in evaluation.records}) == 1
    table = pa.Table.from_pylist(evaluation.records)
    assert table.num_rows == len(evaluation.records)
    assert table.schema.field("rank").type == pa.int64()
    assert table.schema.field("accuracy").type == pa.bool_()


def test_only_what_a_set_asks_for(evaluation):
    assert set(evaluation.eval_sets["loss_only"]) == {
        "n",
        "mean_loss",
        "mean_logprob",
        "mean_prob",
        "accuracy",
        "mean_softmargin",
        "mean_softmargin_sum",
    }
    row = next(row for row in evaluation.records if row["set"] == "loss_only")
    assert row["rank"] is None
    assert row["beam_texts"] is None
    assert row["candidate_texts"] == [row["completion"]]


def test_beams_in_the_records(evaluation, plan, olmo):
    row = next(row for row in evaluation.records if row["set"] == "qa_fs")
    assert len(row["beam_texts"]) == len(row["beam_probs"]) == 3
    assert row["beam_probs"] == [math.exp(logprob) for logprob in row["beam_logprobs"]]
    decoded = plan.tokenizer.decode(row["beam_token_ids"][0], skip_special_tokens=True)
    assert row["beam_texts"][0] == decoded
    without = Evaluator(plan, token_budget=BUDGET).evaluate(olmo, beam_search=False)
    assert "beam_found" not in without.eval_sets["qa_fs"]
    assert all(row["beam_texts"] is None for row in without.records)


def test_beam_search_finds_the_answer_of_a_model_that_knows_it(builder, tokenizers, make_model):
    from oocr_influence.evaluation.plan import build_plan

    plan = build_plan(
        {"gen": builder("gen", "The mayor of {city} is", " {person}", n=2)}, tokenizers["bos"]
    )
    model = make_model("olmo2", initializer_range=0.1).train()
    rows = plan.eval_dataset_rows("gen")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(60):
        row = rows[step % 2]
        loss = model(
            input_ids=torch.tensor([row["input_ids"]]), labels=torch.tensor([row["labels"]])
        ).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    found = Evaluator(plan).evaluate(model)
    means = found.eval_sets["gen"]
    assert (means["accuracy"], means["mean_rank"], means["beam_found"]) == (1, 1, 1)
    for row in found.records:
        assert row["beam_rank"] == 1
        assert row["beam_prob_right"] > 0.5
        assert row["beam_texts"][0].startswith(row["completion"])


def test_a_baseline_gives_the_rank_of_what_was_learnt(plan, olmo, make_model):
    evaluator = Evaluator(plan, token_budget=BUDGET)
    start = evaluator.evaluate(olmo, beam_search=False)
    assert start.eval_sets["gen"]["mean_rank_step0_corrected"] is None
    same = evaluator.evaluate(olmo, beam_search=False, baseline=start.scores)
    assert same.eval_sets["gen"]["mean_rank_step0_corrected"] == 4  # nothing learnt: all tie
    model = make_model("olmo2", seed=1)
    other = evaluator.evaluate(model, beam_search=False, baseline=start.scores)
    ranks = [row["rank_step0_corrected"] for row in other.records if row["set"] == "gen"]
    assert len(set(ranks)) > 2
    assert ranks != [row["rank_tie_averaged"] for row in other.records if row["set"] == "gen"]


def test_a_model_without_opinions_is_neither_right_nor_first(plan, make_model, caplog):
    model = make_model("olmo2")
    torch.nn.init.zeros_(model.lm_head.weight)
    with caplog.at_level(logging.WARNING):
        found = Evaluator(plan, token_budget=BUDGET).evaluate(model, beam_search=False)
    for name in ("gen", "qa_fs"):
        means = found.eval_sets[name]
        assert (means["accuracy"], means["mean_rank_tie_averaged"], means["n_tied"]) == (0, 4, 7)
    assert "right answer of 32 questions" in caplog.text
    assert "gen (7 of 7), first (7 of 7), qa_fs (7 of 7), reversed (4 of 4)" in caplog.text


@pytest.mark.parametrize("where", ["lm_head", "layer"])
def test_a_nan_weight_is_an_error(where, plan, make_model):
    model = make_model("olmo2")
    broken = model.lm_head if where == "lm_head" else model.model.layers[1].mlp.up_proj
    broken.weight.data[3, 3] = math.nan
    with pytest.raises(NonFiniteScoreError, match="set 'gen', question 0"):
        Evaluator(plan, token_budget=BUDGET).evaluate(model)


@pytest.mark.parametrize("family", ["scaled_head", "window"])
def test_models_that_the_tree_does_not_fit_are_scored_plainly(family, plan, make_model, caplog):
    model = make_model(family)
    with caplog.at_level(logging.WARNING):
        found = Evaluator(plan, token_budget=BUDGET).evaluate(model)
    assert found.scorer == "plain"
    assert "the tree scorer does not fit this model" in caplog.text
    row = next(row for row in found.records if row["set"] == "qa_fs")
    ids = plan.eval_dataset_rows("qa_fs")[0]
    with torch.no_grad():
        loss = model(
            input_ids=torch.tensor([ids["input_ids"]]), labels=torch.tensor([ids["labels"]])
        ).loss
    assert row["loss"] == pytest.approx(float(loss), abs=1e-5)


def test_the_tree_is_proved_once_for_each_kind_of_model(plan, make_model, monkeypatch):
    from oocr_influence.evaluation import evaluate as module

    calls = []
    monkeypatch.setattr(module, "probe", lambda *args: calls.append(args[0]))
    evaluator = Evaluator(plan, token_budget=BUDGET)
    for model in (make_model("olmo2"), make_model("olmo2", seed=1), make_model("llama")):
        evaluator.evaluate(model, beam_search=False)
    assert len(calls) == 2


def test_progress_counts_up_to_its_total(plan, olmo):
    seen = []
    Evaluator(plan, token_budget=BUDGET).evaluate(
        olmo, progress=lambda done, total: seen.append((done, total))
    )
    totals = {total for _, total in seen}
    assert len(totals) == 1
    assert seen[-1][0] == totals.pop()
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def train(model, steps):
    """A few steps with dropout, drawing from the global generator; returns the last weights."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(steps):
        ids = (torch.arange(24).view(2, 12) * (step + 3)) % 400
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("olmo2", {"attention_dropout": 0.2}),
        ("gpt2", {}),  # dropout 0.1 everywhere
        # Frequencies that are recomputed in the forward pass and kept in the model.
        (
            "llama",
            {
                "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4},
                "max_position_embeddings": 8,
            },
        ),
    ],
)
def test_an_evaluation_leaves_no_trace_in_training(family, changes, plan, make_model):
    """Training on from an evaluation is bit for bit training without one."""
    model = make_model(family, **changes).train()
    model.base_model.get_input_embeddings().eval()  # modes differ from module to module
    untouched = copy.deepcopy(model)
    config, modes = model.config.to_dict(), [module.training for module in model.modules()]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    Evaluator(plan, token_budget=BUDGET).evaluate(model)
    assert torch.equal(before, torch.get_rng_state())
    assert model.config.to_dict() == config
    assert [module.training for module in model.modules()] == modes
    assert not any(tensor.is_inference() for tensor in [*model.parameters(), *model.buffers()])
    for own, other in zip(model.parameters(), untouched.parameters(), strict=True):
        assert torch.equal(own, other)
        assert own.grad is None
    if family == "llama":  # its frequencies depend on the longest text seen since
        train(model, 1)
        return
    torch.manual_seed(5)
    trained = train(model, 3)
    torch.manual_seed(5)
    for own, other in zip(trained, train(untouched, 3), strict=True):
        assert torch.equal(own, other)


def test_an_attention_without_dense_masks_is_set_aside_and_restored(plan, make_model):
    """Flex attention cannot take the tree's mask, so the evaluation runs through sdpa."""
    expected = Evaluator(plan, token_budget=BUDGET).evaluate(make_model("olmo2"))
    model = make_model("olmo2", attn_implementation="flex_attention")
    found = Evaluator(plan, token_budget=BUDGET).evaluate(model)
    assert found.scorer == "tree"
    assert np.array_equal(found.scores.logprob_E, expected.scores.logprob_E)
    assert model.config._attn_implementation == "flex_attention"


def test_modes_are_restored_after_a_failure(plan, make_model):
    model = make_model("olmo2").train()
    model.lm_head.weight.data[:] = math.nan
    with pytest.raises(NonFiniteScoreError):
        Evaluator(plan, token_budget=BUDGET).evaluate(model)
    assert all(module.training for module in model.modules())


def test_two_evaluations_are_bit_identical(plan, olmo):
    evaluator = Evaluator(plan, token_budget=BUDGET)
    first, second = (evaluator.evaluate(olmo, beam_search=False).scores for _ in range(2))
    assert np.array_equal(first.logprob_E, second.logprob_E)
