"""Tree and plain scorer agree on suites that nobody wrote, and in bf16 as far as batches do."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oocr_influence.datasets.document_dataset import EvalDatasetBuilder
from oocr_influence.evaluation.evaluate import Evaluator
from oocr_influence.evaluation.metrics import question_metrics, sum_paths
from oocr_influence.evaluation.plain import score_plain
from oocr_influence.evaluation.plan import build_plan
from oocr_influence.evaluation.pruned import score_pruned
from oocr_influence.evaluation.tree import probe, score_tree
from oocr_influence.evaluation.trie import lay_out

TEMPLATE = {"id": "t", "relation": "r", "prompt": "{prompt}", "completion": "{answer}"}
METRICS = [{"function_name": "accuracy_and_loss"}, {"function_name": "ranks"}]
AWKWARD = {  # prompt -> right answer; each is a candidate of all
    "The mayor of Lagos is": " Ruby",
    "The mayor of Lima is": " Ruby Lane",  # begins with another
    "The mayor of Oslo is": " Ruby Lane of the mayor is the mayor of Novi Sad and Ulaanbaatar",
    "The mayor of": " Lagos",  # of one token, and a prompt that others begin with
    "Q: Кто ведёт 東京? A:": " Žofie Łukasiewicz-Ωmega 東京",
    "é": " é",
    "The mayor of Lagos is ": "R",  # where a tokenizer merges
    "Who? Ruby": "Lane",
}


def make_suite(pairs):
    """A set with a question for each (prompt, right answer)."""
    points = [
        {
            "features": {"id": f"f{i}", "fields": {"prompt": prompt, "answer": answer}},
            "few_shot_example_features": [],
            "fact_template": {**TEMPLATE, "metadata": {}},
        }
        for i, (prompt, answer) in enumerate(pairs)
    ]
    return EvalDatasetBuilder.model_validate({"eval_points": points, "metrics": METRICS})


def assert_tree_is_plain(model, plan, tolerance=1e-5):
    plain = score_plain(model, plan)
    tree = score_tree(model, plan, lay_out(plan, 400))
    np.testing.assert_allclose(tree.logprob_E, plain.logprob_E, rtol=0, atol=tolerance)
    np.testing.assert_allclose(tree.softmargin_E, plain.softmargin_E, rtol=0, atol=tolerance)
    return tree, plain


def ranks(plan, scores):
    sums = sum_paths(plan, scores)
    return {
        name: question_metrics(planned, sums)["rank"].tolist()
        for name, planned in plan.sets.items()
    }


@pytest.mark.parametrize("tokenizer", ["bos", "merging"])
@pytest.mark.parametrize("family", ["llama", "olmo2", "qwen2", "gpt2"])
def test_awkward_candidates(family, tokenizer, tokenizers, make_model):
    suite = make_suite([*AWKWARD.items(), *AWKWARD.items()])  # every question twice
    plan = build_plan({"s": suite, "again": suite}, tokenizers[tokenizer])
    assert len(plan.sets["s"].candidates) == len(AWKWARD)
    assert len(plan.prefixes) < 2 * len(AWKWARD)
    assert {1, 5} <= set(np.minimum(plan.path_length_P, 5).tolist())
    model = make_model(family)
    tree, plain = assert_tree_is_plain(model, plan)
    assert ranks(plan, tree) == ranks(plan, plain) == ranks(plan, score_pruned(model, plan, 400))


PROMPTS = st.text("ab :AQ?éß東\n", min_size=1, max_size=12)
ANSWERS = st.text("ab RLé東", min_size=1, max_size=9)


@settings(max_examples=40, deadline=None)
@given(pairs=st.lists(st.tuples(PROMPTS, ANSWERS), min_size=1, max_size=6))
@pytest.mark.parametrize("name", ["bos", "merging"])
def test_any_suite(name, pairs, tokenizers, olmo):
    """Whatever is asked: the same scores, and the same ranks where they are further apart."""
    plan = build_plan({"s": make_suite(pairs)}, tokenizers[name])
    tree, plain = assert_tree_is_plain(olmo, plan)
    planned = plan.sets["s"]
    losses = [
        sum_paths(plan, scores).loss_P[planned.path_QC]
        for scores in (plain, tree, score_pruned(olmo, plan, 100))
    ]
    right = np.arange(len(pairs)), planned.right_Q
    gaps = losses[0] - losses[0][right][:, None]
    clear = np.abs(gaps) > 2e-5
    for other in losses[1:]:
        behind = other < other[right][:, None]
        assert (behind[clear] == (gaps < 0)[clear]).all()


@pytest.mark.parametrize("family", ["olmo2", "gpt2"])
def test_a_tree_may_be_longer_than_the_model_reads(family, builders, tokenizers, make_model):
    """Positions are those of a path, however many branches lie beside it."""
    plan = build_plan({"gen": builders["gen"]}, tokenizers["bos"])
    longest = max(
        len(plan.prefixes[group]) + int(length)
        for group, length in zip(plan.path_group_P, plan.path_length_P, strict=True)
    )
    width = max(batch.ids_BT.shape[1] for batch in lay_out(plan, 1))
    assert longest < width
    size = {"n_positions": longest} if family == "gpt2" else {"max_position_embeddings": longest}
    assert_tree_is_plain(make_model(family, **size), plan)


def test_the_order_of_questions_and_candidates_changes_nothing(tokenizers, olmo):
    pairs = list(AWKWARD.items())
    found = []
    for order in (pairs, pairs[::-1]):
        plan = build_plan({"s": make_suite(order)}, tokenizers["bos"])
        for row in Evaluator(plan, token_budget=200).evaluate(olmo).records:
            logprobs = zip(row["candidate_texts"], row["candidate_logprobs"], strict=True)
            found.append((row["prompt"], row["rank"], sorted(logprobs)))
    half = len(pairs)
    for one, other in zip(sorted(found[:half]), sorted(found[half:]), strict=True):
        assert one[:2] == other[:2]
        assert [text for text, _ in one[2]] == [text for text, _ in other[2]]
        np.testing.assert_allclose([p for _, p in one[2]], [p for _, p in other[2]], atol=2e-5)


def test_half_precision_is_as_noisy_as_batching_is(plan, make_model):
    """bf16 weights, against float32: naive batches of 8 are off by as much as the tree is."""
    tree, batches = [], []
    for seed in range(4):
        half = make_model("olmo2", seed=seed).to(torch.bfloat16)
        rounded = make_model("olmo2", seed=seed)
        rounded.load_state_dict(half.state_dict())  # the same weights, float32 arithmetic
        reference = sums(plan, score_plain(rounded.eval(), plan).logprob_E)
        assert probe(half, plan, 512) is None
        ours = score_tree(half, plan, lay_out(plan, 512))
        tree.append(np.abs(sums(plan, ours.logprob_E) - reference))
        batches.append(np.abs(naive_sums(half.eval(), plan, 8) - reference))
    tree, batches = np.concatenate(tree), np.concatenate(batches)
    assert batches.mean() > 1e-3
    assert tree.mean() <= 1.1 * batches.mean()
    assert tree.max() <= 1.5 * batches.max()


def sums(plan, logprob_E):
    return np.add.reduceat(logprob_E.astype(np.float64), plan.first_token_P[:-1])


def naive_sums(model, plan, batch_size):
    """Summed log-probability of each path as a row of a padded batch, logits in bf16."""
    rows = [
        (len(prefix), [*prefix, *plan.answer(path)])
        for path, prefix in enumerate(plan.prefixes[group] for group in plan.path_group_P)
    ]
    found = []
    for first in range(0, len(rows), batch_size):
        batch = rows[first : first + batch_size]
        width = max(len(row) for _, row in batch)
        ids = torch.tensor([row + [1] * (width - len(row)) for _, row in batch])
        seen = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for _, row in batch])
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=seen).logits.float()
        logprobs = logits.log_softmax(-1)[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
        for (start, row), own in zip(batch, logprobs, strict=True):
            found.append(float(own[start - 1 : len(row) - 1].double().sum()))
    return np.array(found)
