"""The tree scorer equals the plain one, however it is batched, and knows where it would not."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oocr_influence.evaluation import tree
from oocr_influence.evaluation.float32_head import Float32Head
from oocr_influence.evaluation.plain import answer_logits, score_plain
from oocr_influence.evaluation.plan import build_plan
from oocr_influence.evaluation.scores import Scores
from oocr_influence.evaluation.tree import probe, score_tree
from oocr_influence.evaluation.trie import build_trie, lay_out

BUDGET = 512


def run_tree(model, plan, budget=BUDGET):
    return score_tree(model, plan, lay_out(plan, budget))


def assert_same(first, second, tolerance):
    np.testing.assert_allclose(first.logprob_E, second.logprob_E, rtol=0, atol=tolerance)
    np.testing.assert_allclose(first.softmargin_E, second.softmargin_E, rtol=0, atol=tolerance)
    assert (first.correct_E == second.correct_E).all()


@pytest.mark.parametrize("tokenizer", ["bos", "no_bos", "merging"])
@pytest.mark.parametrize("family", ["llama", "olmo2", "qwen2", "qwen3", "gpt2"])
def test_tree_equals_plain(family, tokenizer, builders, tokenizers, make_model):
    plan = build_plan(builders, tokenizers[tokenizer])
    model = make_model(family)
    plain = score_plain(model, plan)
    assert np.ptp(plain.logprob_E) > 3  # the model has opinions that could differ
    assert_same(run_tree(model, plan), plain, 1e-5)
    assert probe(model, plan, BUDGET) is None


def test_tree_equals_plain_under_eager_attention(plan, make_model):
    model = make_model("olmo2", attn_implementation="eager")
    assert_same(run_tree(model, plan), score_plain(model, plan), 1e-5)


@pytest.mark.parametrize("budget", [1, 100, 333, 100_000])
def test_the_token_budget_changes_nothing(budget, plan, olmo):
    assert_same(run_tree(olmo, plan, budget), run_tree(olmo, plan), 2e-6)


def test_batches_keep_the_budget(plan):
    batches = lay_out(plan, 300)
    assert all(batch.n_tokens <= 300 or len(batch.groups) == 1 for batch in batches)
    groups = sorted(group for batch in batches for group in batch.groups)
    assert groups == list(range(len(plan.prefixes)))
    entries = sorted(entry for batch in batches for entry in batch.entry_K.tolist())
    assert entries == list(range(len(plan.token_E)))


def test_the_order_of_sets_changes_nothing(builders, tokenizers, olmo):
    forward = build_plan(builders, tokenizers["bos"])
    backward = build_plan(dict(reversed(builders.items())), tokenizers["bos"])
    one, other = run_tree(olmo, forward), run_tree(olmo, backward)

    def of_set(plan, scores, name):
        sums_P = np.add.reduceat(scores.logprob_E, plan.first_token_P[:-1])
        return sums_P[plan.sets[name].path_QC]

    for name in builders:
        np.testing.assert_allclose(
            of_set(forward, one, name), of_set(backward, other, name), rtol=0, atol=5e-6
        )


def test_the_prompt_is_read_once(plan):
    pairs = sum(
        len(plan.prefixes[group]) + length
        for group, length in zip(plan.path_group_P, plan.path_length_P, strict=True)
    )
    tree_tokens = sum(batch.n_tokens for batch in lay_out(plan, BUDGET))
    assert tree_tokens * 3 < pairs


def test_no_candidate_leaks_into_another(plan, olmo):
    """Other tokens in one candidate, the tree's shape kept: no other score moves by a bit."""
    path = int(plan.sets["qa_fs"].path_QC[0, 3])
    here = slice(*plan.first_token_P[path : path + 2].tolist())
    changed_E = plan.token_E.copy()
    changed_E[here] = (changed_E[here] + 7) % 200 + 100
    before = run_tree(olmo, plan)
    changed = dataclasses.replace(plan, token_E=changed_E)
    assert [b.ids_BT.shape for b in lay_out(changed, BUDGET)] == [
        b.ids_BT.shape for b in lay_out(plan, BUDGET)
    ]
    after = run_tree(olmo, changed)
    other_E = np.ones(len(plan.token_E), bool)
    other_E[here] = False
    assert (before.logprob_E[other_E] == after.logprob_E[other_E]).all()
    assert (before.logprob_E[here] != after.logprob_E[here]).all()


def test_a_leaking_mask_would_be_seen(plan, olmo, make_model, monkeypatch):
    """The planted fault: branches that see each other. Both the comparison and the probe notice."""
    monkeypatch.setattr(tree, "tree_mask", lambda end_BT, dtype: _causal(end_BT.shape, dtype))
    with pytest.raises(AssertionError):
        assert_same(run_tree(olmo, plan), score_plain(olmo, plan), 1e-5)
    assert "nats apart" in probe(olmo, plan, BUDGET)
    assert "nats apart" in probe(make_model("llama").to(torch.bfloat16), plan, BUDGET)


def _causal(shape, dtype):
    seen = torch.ones(shape[1], shape[1], dtype=torch.bool).tril()
    return tree.additive_mask(seen.expand(shape[0], -1, -1), dtype)


@pytest.mark.parametrize("family", ["scaled_head", "window"])
def test_the_probe_finds_models_that_the_tree_does_not_fit(family, plan, make_model):
    assert "nats apart" in probe(make_model(family), plan, BUDGET)


def test_the_probe_finds_models_that_cannot_run_it(plan, make_model):
    model = make_model("llama")
    model.get_decoder = None
    assert "cannot run it: TypeError" in probe(model, plan, BUDGET)


def test_half_precision_weights_are_scored_from_float32_logits(plan, make_model):
    """bf16 logits of this size are multiples of 1/32 and more; float32 ones are no such numbers."""
    model = make_model("olmo2").to(torch.bfloat16)
    hidden_RD = torch.randn(9, 32).to(torch.bfloat16)
    plain_KV = answer_logits(model, plan.prefixes[0], plan.answer(0))
    for logits in (plain_KV, Float32Head(model).logits(hidden_RD)):
        assert (logits != logits.to(torch.bfloat16).float()).float().mean() > 0.9
    assert model.lm_head.weight.dtype == torch.bfloat16
    assert model(input_ids=torch.tensor([[5, 6]])).logits.dtype == torch.bfloat16
    assert probe(model, plan, BUDGET) is None
    assert np.isfinite(run_tree(model, plan).logprob_E).all()


@pytest.mark.parametrize("scorer", [run_tree, score_plain])
def test_equal_logits_are_not_correct(scorer, plan, make_model):
    model = make_model("olmo2")
    torch.nn.init.zeros_(model.lm_head.weight)
    assert not scorer(model, plan).correct_E.any()


@pytest.mark.parametrize("scorer", [run_tree, score_plain])
def test_the_softmargin_does_not_cancel_near_certainty(scorer, plan, make_model):
    """One logit far above the rest: p rounds to 1 in float32, the margin stays exact."""
    model = make_model("gpt2", tie_word_embeddings=False)
    torch.nn.init.zeros_(model.lm_head.weight)
    model.lm_head.bias = torch.nn.Parameter(torch.zeros(model.config.vocab_size))
    token = int(plan.token_E[plan.right_E][0])
    model.lm_head.bias.data[token] = 50.0
    scores = scorer(model, plan)
    right_E = plan.right_E & (plan.token_E == token)
    expected = 50.0 - np.log(model.config.vocab_size - 1)
    np.testing.assert_allclose(scores.softmargin_E[right_E], expected, rtol=1e-6)
    assert scores.correct_E[right_E].all()
    assert (scores.logprob_E[right_E] == 0).all()


def test_scores_survive_a_file(plan, olmo, tmp_path):
    scores = run_tree(olmo, plan)
    scores.save(tmp_path / "scores.npz")
    loaded = Scores.load(tmp_path / "scores.npz")
    assert loaded.plan_digest == scores.plan_digest
    assert_same(loaded, scores, 0)


ANSWERS = st.lists(
    st.lists(st.integers(0, 3), min_size=1, max_size=5).map(tuple), min_size=1, max_size=8
)


@settings(max_examples=200, deadline=None)
@given(ANSWERS)
def test_a_trie_shows_each_node_exactly_its_own_past(answers):
    trie = build_trie(answers)
    places = np.arange(len(trie.token_N))
    seen = (places <= places[:, None]) & (places[:, None] < trie.subtree_end_N)
    rows = iter(trie.parent_row_K.tolist())
    for answer in answers:
        for depth in range(len(answer)):
            row = next(rows)
            if row < 0:
                assert depth == 0
                continue
            visible = np.flatnonzero(seen[row])
            assert tuple(trie.token_N[visible]) == answer[:depth]
            assert trie.depth_N[visible].tolist() == list(range(depth))
    assert len(trie.token_N) == len({a[:k] for a in answers for k in range(1, len(a))})
