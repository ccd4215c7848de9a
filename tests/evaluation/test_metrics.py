"""Every metric against a second implementation in plain loops, on random scores with many ties."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oocr_influence.evaluation.metrics import question_metrics, set_means, sum_paths
from oocr_influence.evaluation.plan import build_plan
from oocr_influence.evaluation.scores import NonFiniteScoreError, Scores


def random_scores(plan, seed, levels):
    """Token log-probabilities of few distinct values, so that sums and means tie often."""
    draw = np.random.default_rng(seed)
    n = len(plan.token_E)
    values = -draw.integers(1, levels + 1, n) / 4
    margins = np.where(plan.right_E, draw.normal(size=n), np.nan)
    correct = plan.right_E & (draw.random(n) < 0.7)
    return Scores(plan.digest, values.astype(np.float32), correct, margins.astype(np.float32))


def tokens_of(plan, scores, name, question, column):
    path = plan.sets[name].path_QC[question, column]
    here = range(plan.first_token_P[path], plan.first_token_P[path + 1])
    return [
        (float(scores.logprob_E[e]), bool(scores.correct_E[e]), float(scores.softmargin_E[e]))
        for e in here
    ]


def mean_loss(tokens):
    return -math.fsum(logprob for logprob, _, _ in tokens) / len(tokens)


def naive_rank(losses, right, *, halves=True, excluded=()):
    lower = tied = 0
    for column, loss in enumerate(losses):
        if column == right or column in excluded:
            continue
        lower += loss < losses[right]
        tied += loss == losses[right]
    return 1 + lower + (tied / 2 if halves else 0)


def naive_metrics(plan, name, scores, baseline):
    """The definitions, one question and one candidate at a time."""
    planned = plan.sets[name]
    n, width = planned.path_QC.shape
    table = [[tokens_of(plan, scores, name, q, c) for c in range(width)] for q in range(n)]
    before = [[tokens_of(plan, baseline, name, q, c) for c in range(width)] for q in range(n)]
    losses = [[mean_loss(tokens) for tokens in row] for row in table]
    rows = []
    for q in range(n):
        right = int(planned.right_Q[q])
        tokens = table[q][right]
        total = math.fsum(logprob for logprob, _, _ in tokens)
        margins = [margin for _, _, margin in tokens]
        row = {
            "loss": mean_loss(tokens),
            "logprob": total,
            "prob": math.exp(total),
            "accuracy": all(correct for _, correct, _ in tokens),
            "softmargin": math.fsum(margins) / len(margins),
            "softmargin_sum": math.fsum(margins),
        }
        if planned.ranks:
            shown = {answer for _, answer in planned.points[q].few_shot_examples}
            others = [c for c in range(width) if c != right]
            prior = [math.fsum(losses[k][c] for k in range(n)) / n for c in range(width)]
            steps = [losses[q][c] - mean_loss(before[q][c]) for c in range(width)]
            sums = [-math.fsum(logprob for logprob, _, _ in cell) for cell in table[q]]
            row |= {
                "rank": naive_rank(losses[q], right, halves=False),
                "rank_tie_averaged": naive_rank(losses[q], right),
                "n_ties": sum(losses[q][c] == losses[q][right] for c in others),
                "rank_logprob": naive_rank(sums, right),
                "rank_step0_corrected": naive_rank(steps, right),
                "rank_without_few_shot": naive_rank(
                    losses[q], right, excluded=[c for c in others if planned.candidates[c] in shown]
                ),
                "n_candidates": width,
                "normalised_rank": (naive_rank(losses[q], right, halves=False) - 1) / (width - 1),
            }
            corrected = [loss - mean for loss, mean in zip(losses[q], prior, strict=True)]
            gaps = [abs(corrected[c] - corrected[right]) for c in others]
            if min(gaps) > 1e-9:  # a subtraction of means ties only up to rounding
                row["rank_prior_corrected"] = naive_rank(corrected, right)
        rows.append(row)
    return rows


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1, 2, 8, 1000]))
def test_metrics_equal_a_second_implementation(plan, seed, levels):
    scores, baseline = random_scores(plan, seed, levels), random_scores(plan, seed + 1, levels)
    sums, before = sum_paths(plan, scores), sum_paths(plan, baseline)
    for name, planned in plan.sets.items():
        columns = question_metrics(planned, sums, before)
        naive = naive_metrics(plan, name, scores, baseline)
        for question, row in enumerate(naive):
            for metric, expected in row.items():
                assert columns[metric][question] == pytest.approx(expected, abs=1e-9), metric
        means = set_means(planned, columns)
        assert means["n"] == len(naive)
        for metric in naive[0]:
            mean = math.fsum(row.get(metric, math.nan) for row in naive) / len(naive)
            key = "accuracy" if metric == "accuracy" else f"mean_{metric}"
            if key in means and not math.isnan(mean):
                assert means[key] == pytest.approx(mean, abs=1e-9), metric


def test_all_candidates_tied(plan):
    n = len(plan.token_E)
    equal = Scores(
        plan.digest,
        np.full(n, -6.0402, np.float32),
        np.zeros(n, bool),
        np.full(n, -6.0, np.float32),
    )
    columns = question_metrics(plan.sets["gen"], sum_paths(plan, equal), sum_paths(plan, equal))
    assert columns["rank"].tolist() == [1] * 7  # by its definition
    assert columns["n_ties"].tolist() == [6] * 7
    for name in ("rank_tie_averaged", "rank_prior_corrected", "rank_step0_corrected"):
        assert columns[name].tolist() == [4.0] * 7, name


@pytest.mark.parametrize("bad", [np.nan, -np.inf, np.inf])
def test_a_loss_that_is_not_finite_is_an_error_and_never_a_rank(bad, plan):
    scores = random_scores(plan, 0, 8)
    planned = plan.sets["reversed"]
    path = planned.path_QC[2, 3]
    scores.logprob_E[plan.first_token_P[path]] = bad
    with pytest.raises(NonFiniteScoreError) as error:
        question_metrics(planned, sum_paths(plan, scores))
    assert "set 'reversed', question 2" in str(error.value)
    assert f"candidate {planned.candidates[3]!r}" in str(error.value)
    question_metrics(plan.sets["gen"], sum_paths(plan, scores))  # other sets are not blamed


def test_a_margin_that_is_not_finite_is_an_error(plan):
    scores = random_scores(plan, 0, 8)
    planned = plan.sets["gen"]
    scores.softmargin_E[plan.first_token_P[planned.right_path_Q[1]]] = np.inf
    with pytest.raises(NonFiniteScoreError, match=r"question 1 .* a softmargin of inf"):
        question_metrics(planned, sum_paths(plan, scores))


def test_only_what_the_set_asks_for(plan):
    sums = sum_paths(plan, random_scores(plan, 0, 8))
    columns = question_metrics(plan.sets["loss_only"], sums)
    assert "rank" not in columns
    assert "mean_rank" not in set_means(plan.sets["loss_only"], columns)
    assert plan.sets["loss_only"].path_QC.shape == (7, 1)
    without_baseline = question_metrics(plan.sets["gen"], sums)
    assert "rank_step0_corrected" not in without_baseline
    assert set_means(plan.sets["gen"], without_baseline)["mean_rank_step0_corrected"] is None


def test_ranks_alone(builder, tokenizers):
    only = builder("r", "In {city}:", " {person}", metrics=[{"function_name": "ranks"}])
    plan = build_plan({"r": only}, tokenizers["bos"])
    columns = question_metrics(plan.sets["r"], sum_paths(plan, random_scores(plan, 0, 8)))
    means = set_means(plan.sets["r"], columns)
    assert "mean_loss" not in means
    assert means["mean_rank"] >= 1


def test_a_single_candidate_has_no_normalised_rank(builder, tokenizers):
    plan = build_plan({"one": builder("one", "In {city}:", " {person}", n=1)}, tokenizers["bos"])
    columns = question_metrics(plan.sets["one"], sum_paths(plan, random_scores(plan, 0, 8)))
    means = set_means(plan.sets["one"], columns)
    assert means["mean_rank"] == 1
    assert means["mean_normalised_rank"] is None


def test_no_questions_no_means(builder, tokenizers):
    plan = build_plan({"e": builder("e", "{city}", " x", n=0)}, tokenizers["bos"])
    columns = question_metrics(plan.sets["e"], sum_paths(plan, random_scores(plan, 0, 8)))
    means = set_means(plan.sets["e"], columns)
    assert means["n"] == 0
    assert means["mean_loss"] is None
    assert means["mean_rank"] is None


def test_scores_of_another_plan_are_refused(plan, builder, tokenizers):
    other = build_plan({"one": builder("one", "In {city}:", " {person}")}, tokenizers["bos"])
    with pytest.raises(ValueError, match="these scores belong to plan"):
        sum_paths(plan, random_scores(other, 0, 8))
