"""What came of removals: paired by seed, told of three groups, and intervals that hold."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t

from oocr_influence.attribution.removal import (
    ALL_TARGETS,
    crossed_mean,
    removal_effects,
)
from oocr_influence.results.outcomes import Outcomes

N_K, N_DRAWS = 4, 3
FACTS = [["f0"], ["f0"], ["f1"], ["f2"], [], ["f0", "f9"]]
QUERIES = {"t0": [0], "t1": [2]}


def made_outcomes(seed=0):
    """Two targets, one method, one k; six questions: a control is answered by no fact."""
    draw = np.random.default_rng(seed)
    removals = [{"kind": "none", "target": None, "method": None, "k": 0, "queries": []}]
    for target, own in QUERIES.items():
        queries = [{"set": "s", "index": q, "id": f"q{q}"} for q in own]
        cell = {"target": target, "method": "m", "k": 5, "queries": queries}
        for kind, n in (("top", 1), ("random", N_DRAWS), ("matched_fact", N_DRAWS)):
            removals += [{**cell, "kind": kind, "draw": i} for i in range(n)]
    values = draw.normal(size=(len(removals), N_K, 6))
    return Outcomes(
        subsets=[{"split": "train", "removal": one} for one in removals],
        documents=[{"id": "d", "occurrence": 0}],
        questions=[{"set": "s", "index": q, "id": f"q{q}"} for q in range(6)],
        trained=np.ones((len(removals), 1)),
        seeds=np.tile(np.arange(N_K), (len(removals), 1)),
        metrics={"logprob": values},
    )


def by_key(effects):
    return {(e.target, e.questions, e.what): e for e in effects}


def test_means_are_those_of_loops_over_pairs_of_runs():
    outcomes = made_outcomes()
    found = by_key(removal_effects(outcomes, "logprob", FACTS))
    groups = {
        "t0": {"target": [0], "same_facts": [1, 5], "other_facts": [2, 3]},
        "t1": {"target": [2], "other_facts": [0, 1, 3, 5]},
    }
    values = outcomes.metrics["logprob"]

    def change(target, kind, questions):
        """Draw by draw and seed by seed."""
        rows = []
        for s, subset in enumerate(outcomes.subsets):
            if (subset["removal"]["target"], subset["removal"]["kind"]) == (target, kind):
                rows.append(
                    [
                        np.mean([values[s][k][q] - values[0][k][q] for q in questions])
                        for k in range(N_K)
                    ]
                )
        return rows

    assert {(target, group) for target, group, _ in found if target != ALL_TARGETS} == {
        (target, group) for target, own in groups.items() for group in own
    }
    for target, own in groups.items():
        for group, questions in own.items():
            (top,) = change(target, "top", questions)
            one = found[target, group, "top"]
            assert one.mean == pytest.approx(np.mean(top))
            half = t.ppf(0.975, N_K - 1) * np.std(top, ddof=1) / np.sqrt(N_K)
            assert (one.low, one.high) == pytest.approx((np.mean(top) - half, np.mean(top) + half))
            assert (one.n_seeds, one.n_draws, one.n_questions) == (N_K, 1, len(questions))
            for control in ("random", "matched_fact"):
                rows = change(target, control, questions)
                assert found[target, group, control].mean == pytest.approx(np.mean(rows))
                less = found[target, group, f"top - {control}"]
                pairs = [top[k] - row[k] for row in rows for k in range(N_K)]
                assert less.mean == pytest.approx(np.mean(pairs))
                assert less.n_draws == N_DRAWS
    both = found[ALL_TARGETS, "target", "top"]
    assert both.mean == pytest.approx(
        np.mean([found[t, "target", "top"].mean for t in ("t0", "t1")])
    )
    assert (both.n_draws, both.n_questions) == (2, 2)
    assert found[ALL_TARGETS, "same_facts", "top"].n_draws == 1


def test_what_a_seed_does_to_all_runs_is_no_noise():
    outcomes = made_outcomes()
    values = outcomes.metrics["logprob"]
    shifted = values + 100 * np.random.default_rng(1).normal(size=(1, N_K, 6))
    one = by_key(removal_effects(outcomes, "logprob", FACTS))
    other = by_key(
        removal_effects(replace(outcomes, metrics={"logprob": shifted}), "logprob", FACTS)
    )
    for key, effect in one.items():
        assert other[key].mean == pytest.approx(effect.mean)
        assert other[key].high == pytest.approx(effect.high)


def test_a_sweep_that_goes_on_is_told_of_what_is_there():
    outcomes = made_outcomes()
    values = outcomes.metrics["logprob"].copy()
    values[2, 3] = np.nan  # a seed of the first target's first random draw
    values[10:] = np.nan  # of the second target all but its top and a draw
    partial = replace(outcomes, metrics={"logprob": values}).split("train")
    found = by_key(removal_effects(partial, "logprob", FACTS))
    assert found["t0", "target", "top"].n_seeds == N_K
    assert found["t0", "target", "random"].n_seeds == N_K - 1
    assert found["t0", "target", "random"].n_draws == N_DRAWS
    assert found["t1", "target", "random"].n_draws == 1
    assert ("t1", "target", "matched_fact") not in found
    values[:, 1:] = np.nan
    single = replace(outcomes, metrics={"logprob": values}).split("train")
    effects = removal_effects(single, "logprob", FACTS)
    assert all(np.isnan([e.low, e.high]).all() for e in effects)  # one seed decides
    assert all(np.isfinite(e.mean) for e in effects)


def test_subsets_of_other_designs_and_a_missing_reference_are_refused():
    outcomes = made_outcomes()
    with pytest.raises(ValueError, match="no run without a removal has completed"):
        removal_effects(outcomes.where(subsets=range(1, 5)), "logprob", FACTS)
    with pytest.raises(ValueError, match="no metric 'taste'"):
        removal_effects(outcomes, "taste", FACTS)
    plain = replace(outcomes, subsets=[{"split": "train"} for _ in outcomes.subsets])
    with pytest.raises(ValueError, match="are no removals"):
        removal_effects(plain, "logprob", FACTS)


def test_another_question_at_the_same_place_is_not_the_one_that_was_ranked_for():
    outcomes = made_outcomes()
    questions = [{**row, "id": f"new{q}"} for q, row in enumerate(outcomes.questions)]
    effects = removal_effects(replace(outcomes, questions=questions), "logprob", FACTS)
    assert {e.questions for e in effects} == {"other_facts"}


@pytest.mark.parametrize(
    ("n_rows", "n_seeds", "row_sd", "seed_sd", "noise"),
    [
        (1, 3, 0, 0, 1),
        (5, 3, 1, 0.2, 1),
        (5, 5, 0, 1, 0.2),
        (10, 4, 0.5, 0.5, 0.5),
        (3, 6, 0, 0, 1),
    ],
)
def test_intervals_hold_the_truth_about_as_often_as_they_say(
    n_rows, n_seeds, row_sd, seed_sd, noise
):
    draw = np.random.default_rng(7)
    n_worlds, held = 1500, 0
    for _ in range(n_worlds):
        values = (
            2
            + row_sd * draw.normal(size=(n_rows, 1))
            + seed_sd * draw.normal(size=(1, n_seeds))
            + noise * draw.normal(size=(n_rows, n_seeds))
        )
        _, low, high, *_ = crossed_mean(values)
        held += low <= 2 <= high
    assert held / n_worlds > 0.93


def test_nothing_says_how_sure_what_never_varies_is():
    mean, low, high, n_seeds, n_rows = crossed_mean(np.full((3, 4), 0.1))
    assert (mean, n_seeds, n_rows) == (pytest.approx(0.1), 4, 3)
    assert np.isnan([low, high]).all()
    assert np.isnan(crossed_mean(np.full((2, 3), np.nan))[0])
    for rows, seeds in itertools.product((1, 2), (1, 2)):
        ends = crossed_mean(np.random.default_rng(0).normal(size=(rows, seeds)))[1:3]
        assert np.isnan(ends).any() == (seeds == 1)
