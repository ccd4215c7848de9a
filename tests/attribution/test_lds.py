"""The linear datamodeling score against SciPy, its analytic value, and chance."""

import numpy as np
import pytest
from linear_world import LinearWorld, half_of
from scipy.stats import pearsonr, spearmanr

from oocr_influence.attribution.lds import lds, noise_ceiling
from oocr_influence.attribution.noise import crossed_seeds, same_seeds, variances


def made(n_subsets=80, runs=4, noise=1.0, n_documents=30, n_questions=6, seed=0, **more):
    draw = np.random.default_rng(seed)
    world = LinearWorld(draw.normal(size=(n_questions, n_documents)), noise)
    x = half_of(n_subsets, n_documents, draw)
    return world, x, world.outcomes(x, runs, draw, **more)


def test_it_is_the_correlation_over_subsets():
    world, x, values = made()
    scores = world.effects + np.random.default_rng(1).normal(size=world.effects.shape)
    score = lds(scores, x, values, n_resamples=20, n_permutations=20)
    for q in range(6):
        predicted = [sum(scores[q, d] for d in range(30) if row[d]) for row in x]
        outcome = values[:, :, q].mean(axis=1)
        assert score.spearman.of_question[q] == pytest.approx(spearmanr(predicted, outcome)[0])
        assert score.pearson.of_question[q] == pytest.approx(pearsonr(predicted, outcome)[0])
    assert score.spearman.mean == pytest.approx(np.mean(score.spearman.of_question))
    assert score.spearman.low < score.spearman.mean < score.spearman.high


def test_a_perfect_predictor_reaches_the_analytic_value_and_the_ceiling():
    # Signal: 30 documents, each in a half of the subsets, of variance 1/4 its effect squared.
    world, x, values = made(n_subsets=2000, runs=4, noise=3.0)
    signal = (world.effects**2).sum(axis=1) / 4
    analytic = np.sqrt(signal / (signal + 3.0**2 / 4))
    score = lds(world.effects, x, values, n_resamples=20, n_permutations=20)
    np.testing.assert_allclose(score.pearson.of_question, analytic, atol=0.04)
    assert score.pearson.ceiling == pytest.approx(analytic.mean(), abs=0.03)
    assert score.spearman.ceiling == pytest.approx(score.spearman.mean, abs=0.03)
    reliability = variances(values).reliability()
    np.testing.assert_allclose(np.sqrt(reliability), analytic, atol=0.04)


def test_the_sign_says_the_direction():
    world, x, values = made(noise=0.1)
    right = lds(world.effects, x, values, n_resamples=10, n_permutations=99)
    wrong = lds(-world.effects, x, values, n_resamples=10, n_permutations=99)
    assert wrong.spearman.mean == pytest.approx(-right.spearman.mean)
    assert right.spearman.p_value == pytest.approx(0.01)
    assert wrong.spearman.p_value == 1.0


def test_by_chance_p_values_are_even_and_intervals_hold_zero():
    p_values, held = [], 0
    for seed in range(40):
        world, x, values = made(n_subsets=30, seed=seed, noise=1.0, n_questions=3)
        scores = np.random.default_rng(500 + seed).normal(size=world.effects.shape)
        score = lds(scores, x, values, n_resamples=60, n_permutations=99)
        p_values.append(score.spearman.p_value)
        held += score.spearman.low <= 0 <= score.spearman.high
    assert 0.35 < np.mean(p_values) < 0.65
    assert np.mean(np.array(p_values) <= 0.1) < 0.25
    assert held >= 32


def test_what_does_not_vary_is_counted_and_never_flatters():
    world, x, values = made()
    values[:, :, 0] = 2.0  # an outcome that no subset moves
    scores = world.effects.copy()
    scores[1] = 0.0  # a predictor that says nothing of question 1
    score = lds(scores, x, values, n_resamples=20, n_permutations=20)
    assert np.isnan(score.spearman.of_question[0])
    assert score.spearman.of_question[1] == 0.0
    assert (score.n_constant_outcomes, score.n_constant_predictions) == (1, 1)
    assert score.spearman.mean == pytest.approx(np.mean(score.spearman.of_question[1:]))
    same = lds(np.ones_like(scores), np.ones_like(x), values, n_resamples=20, n_permutations=20)
    assert same.spearman.mean == 0.0
    assert same.spearman.p_value == 1.0


def test_questions_of_one_entity_are_drawn_together():
    world, x, values = made(n_questions=2, noise=2.0)
    many = lambda a, axis: np.repeat(a, 20, axis=axis)  # noqa: E731
    scores = many(world.effects, 0)
    of_two = [q // 20 for q in range(40)]
    together = lds(scores, x, many(values, 2), entities=of_two, n_permutations=10)
    alone = lds(scores, x, many(values, 2), n_permutations=10)
    assert together.spearman.mean == pytest.approx(alone.spearman.mean)
    assert together.spearman.high - together.spearman.low >= (
        alone.spearman.high - alone.spearman.low
    )


def test_seeds_that_all_subsets_share_are_no_noise_between_them():
    world, _, values = made(n_subsets=300, runs=6, noise=1.0, seed_effect=8.0)
    seeds = np.tile(np.arange(6), (300, 1))
    assert crossed_seeds(seeds, values)
    signal = (world.effects**2).sum(axis=1) / 4
    analytic = np.sqrt(signal / (signal + 1 / 6)).mean()
    assert noise_ceiling(values, lambda v: v, crossed=True) == pytest.approx(analytic, abs=0.02)
    assert noise_ceiling(values, lambda v: v) < analytic - 0.1
    assert not crossed_seeds(np.where(seeds == 2, -1, seeds), values)
    values[0, 0, 0] = np.nan
    assert not crossed_seeds(seeds, values)


def test_seeds_are_shared_though_some_runs_are_missing():
    world, x, values = made(n_subsets=300, runs=6, noise=1.0, seed_effect=8.0)
    seeds = np.tile(np.arange(6), (300, 1))
    values[3, 2] = values[200, 5] = np.nan
    signal = (world.effects**2).sum(axis=1) / 4
    analytic = np.sqrt(signal / (signal + 1 / 6)).mean()
    assert noise_ceiling(values, lambda v: v, crossed=True) == pytest.approx(analytic, abs=0.04)
    assert same_seeds(seeds)
    assert same_seeds(np.where(np.arange(300)[:, None] % 2 * (seeds > 3), -1, seeds))
    assert not same_seeds(np.arange(1800).reshape(300, 6))
    # A mean over other seeds is another mean: where half of the subsets have two of the runs, the
    # ceiling is that of such means, with what seeds do to all alike between them.
    values[::2, 2:] = np.nan
    means, expected = np.nanmean(values, axis=1), x @ world.effects.T
    perfect = np.mean([pearsonr(expected[:, q], means[:, q])[0] for q in range(6)])
    assert perfect < analytic - 0.1
    assert perfect < noise_ceiling(values, lambda v: v, crossed=True) < analytic - 0.05


@pytest.mark.parametrize("runs", [3, 5])
def test_an_odd_number_of_shared_seeds_is_divided_alike_for_all_subsets(runs):
    world, _, values = made(n_subsets=300, runs=runs, noise=1.0, seed_effect=8.0)
    signal = (world.effects**2).sum(axis=1) / 4
    analytic = np.sqrt(signal / (signal + 1 / runs)).mean()
    assert noise_ceiling(values, lambda v: v, crossed=True) == pytest.approx(analytic, abs=0.02)


@pytest.mark.parametrize("runs", [2, 5])
@pytest.mark.parametrize(
    "signals",
    [np.full(40, 0.3), np.full(40, 1.0), np.repeat([3.0, 0.0], 20), np.geomspace(0.05, 5, 40)],
    ids=["weak", "like the noise", "half have none", "very different"],
)
def test_the_ceiling_is_the_mean_of_what_a_perfect_predictor_has(signals, runs):
    perfect = np.sqrt(signals**2 / (signals**2 + 1 / runs)).mean()
    found = []
    for world in range(12):
        draw = np.random.default_rng([1, world])
        values = signals * draw.normal(size=(60, 1, 40)) + draw.normal(size=(60, runs, 40))
        found.append(noise_ceiling(values, lambda v: v, draw=draw))
    # Half of the questions without any: 0.8 by the root of the mean, for 0.49.
    assert np.mean(found) == pytest.approx(perfect, abs=0.04 if signals.all() else 0.12)


def test_with_one_run_a_subset_the_ceiling_is_unknown():
    world, x, values = made(runs=1)
    score = lds(world.effects, x, values, n_resamples=5, n_permutations=5)
    assert np.isnan(score.spearman.ceiling)


def test_what_says_nothing_is_refused():
    world, x, values = made()
    with pytest.raises(ValueError, match="not finite"):
        lds(np.full_like(world.effects, np.nan), x, values)
    with pytest.raises(ValueError, match="do not fit"):
        lds(world.effects[:2], x, values)
    with pytest.raises(ValueError, match="at least 3"):
        lds(world.effects, x[:2], values[:2])
