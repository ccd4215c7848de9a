"""Subsets drawn in pairs: a pair is left out, drawn anew and exchanged as a whole.

What a pair's halves share is checked against plain loops over pairs, and in worlds whose truth is
known: taken one by one, its halves would make intervals too narrow and predictions too good.
"""

from dataclasses import replace

import numpy as np
import pytest
from linear_world import LinearWorld, half_of
from scipy.stats import t

from oocr_influence.attribution.datamodels import _bootstrapped, fit
from oocr_influence.attribution.draws import by_size, drawn_together, exchanged
from oocr_influence.attribution.features import Features, features_of
from oocr_influence.attribution.lds import lds
from oocr_influence.attribution.mean_effects import jackknifed, means_at
from oocr_influence.attribution.penalised import fit_lasso
from oocr_influence.attribution.sample_size import Pilot
from oocr_influence.attribution.scoring import lds_of_methods
from oocr_influence.results.attributions import Attributions
from oocr_influence.results.outcomes import Outcomes


def pairs_of(n_pairs, n_documents, draw):
    """(S, D) halves of the documents and their complements, pair by pair, and (S,) the pairs."""
    rows = []
    for _ in range(n_pairs):
        one = np.zeros(n_documents)
        one[draw.choice(n_documents, n_documents // 2, replace=False)] = 1
        rows += [one, 1 - one]
    return np.array(rows), np.repeat(np.arange(n_pairs), 2)


def features(x, draws=None):
    return Features("document", [f"f{i}" for i in range(x.shape[1])], x, draws)


def slopes(x, y):
    """By least squares with a constant, the shortest solution."""
    xc = x - x.mean(axis=0)
    return np.linalg.pinv(xc) @ (y - y.mean())


def test_halves_of_a_pair_are_one_draw():
    rows = [{"split": split, "dataset_idx": i, "design": "complement"}
            for split in ("train", "test") for i in range(4)]  # fmt: skip
    assert drawn_together(rows).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert drawn_together(rows[1:4] + rows[6:7]).tolist() == [0, 1, 1, 2]  # halves are missing
    assert drawn_together([{**row, "design": "random"} for row in rows]).tolist() == list(range(8))
    assert drawn_together([{"split": "train"}] * 3).tolist() == [0, 1, 2]  # of older files


def test_an_exchange_keeps_pairs_together_and_mixes_their_halves():
    draws, draw = np.array([0, 0, 1, 1, 2, 3, 3, 4]), np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        to = exchanged(by_size(draws), draw)
        assert sorted(to) == list(range(8))
        for a, b in [(0, 1), (2, 3), (5, 6)]:
            assert draws[to[a]] == draws[to[b]]
        assert {to[4], to[7]} == {4, 7}
        seen.add(tuple(to[[0, 1, 2, 3, 5, 6]]))
    assert len(seen) == 6 * 8  # orders of three pairs, times those of their halves


def test_least_squares_leaves_pairs_out():
    draw = np.random.default_rng(1)
    x, draws = pairs_of(14, 5, draw)
    values = draw.normal(size=(28, 2, 2)) + draw.normal(size=(28, 1, 2))
    model = fit(features(x, draws), values, method="least_squares")
    for q in range(2):
        y = values[:, :, q].mean(axis=1)
        whole, moved, errors = slopes(x, y), [], []
        for pair in range(14):
            kept = draws != pair
            beta = slopes(x[kept], y[kept])
            moved.append(whole - beta)
            constant = y[kept].mean() - x[kept].mean(axis=0) @ beta
            errors += [
                (y[s] - constant - x[s] @ beta, y[s] - y[kept].mean())
                for s in np.flatnonzero(~kept)
            ]
        np.testing.assert_allclose(model.effects[q], whole, atol=1e-9)
        half = t.ppf(0.975, 14 - 5 - 1) * np.sqrt((np.array(moved) ** 2).sum(axis=0))
        np.testing.assert_allclose(model.high[q] - model.effects[q], half)
        squares = (np.array(errors) ** 2).sum(axis=0)
        assert model.explained[q] == pytest.approx(1 - squares[0] / squares[1])


@pytest.mark.parametrize("of_pairs", [True, False])
def test_marginal_effects_leave_pairs_out(of_pairs):
    draw = np.random.default_rng(2)
    x, draws = pairs_of(9, 40, draw)
    x, draws = x[:-1], draws[:-1]  # a half is missing
    if not of_pairs:
        draws = np.arange(17)
    values = draw.normal(size=(17, 1, 2))
    model = fit(features(x, draws), values, method="marginal")
    n_draws = len(set(draws))
    for q in range(2):
        for f in range(40):
            whole = slopes(x[:, [f]], values[:, 0, q])[0]
            moved = []
            for number in range(n_draws):
                kept = draws != number
                moved.append(whole - slopes(x[kept][:, [f]], values[kept, 0, q])[0])
            half = t.ppf(0.975, n_draws - 2) * np.sqrt(np.square(moved).sum())
            assert model.effects[q, f] == pytest.approx(whole)
            assert model.high[q, f] - whole == pytest.approx(half)


def test_ridge_leaves_pairs_out():
    draw = np.random.default_rng(3)
    x, draws = pairs_of(10, 30, draw)
    world = LinearWorld(draw.normal(size=(2, 30)), 1.0)
    values = world.outcomes(x, 2, draw)
    model = fit(features(x, draws), values, method="ridge")
    for q in range(2):
        y, errors, moved = values[:, :, q].mean(axis=1), [], []
        for pair in range(10):
            kept = draws != pair
            xc, yc = x[kept] - x[kept].mean(axis=0), y[kept] - y[kept].mean()
            beta = np.linalg.solve(xc.T @ xc + model.penalty[q] * np.eye(30), xc.T @ yc)
            constant = y[kept].mean() - x[kept].mean(axis=0) @ beta
            errors += [
                (y[s] - constant - x[s] @ beta, y[s] - y[kept].mean())
                for s in np.flatnonzero(~kept)
            ]
            moved.append(model.effects[q] - beta)
        squares = (np.array(errors) ** 2).sum(axis=0)
        assert model.explained[q] == pytest.approx(1 - squares[0] / squares[1], abs=1e-9)
        half = t.ppf(0.975, 9) * np.sqrt(np.square(moved).sum(axis=0))
        np.testing.assert_allclose(model.high[q] - model.effects[q], half, rtol=1e-6)


@pytest.mark.parametrize("method", ["ridge", "lasso"])
def test_what_is_explained_is_of_new_subsets_and_not_of_the_other_half(method):
    # 300 documents, 20 pairs: a new subset cannot be predicted, the other half of a pair can.
    draw = np.random.default_rng(4)
    world = LinearWorld(draw.normal(size=(4, 300)), 0.1)
    x, draws = pairs_of(20, 300, draw)
    model = fit(features(x, draws), world.outcomes(x, 2, draw), method=method, n_resamples=2)
    assert (model.explained < 0.4).all()
    new = half_of(200, 300, draw)
    outcome = world.outcomes(new, 2, draw).mean(axis=1)
    left = ((outcome - model.predict(new)) ** 2).mean(axis=0) / outcome.var(axis=0)
    assert (1 - left < 0.4).all()
    # Taken one by one, a subset would be told by its other half.
    leaking = fit(features(x), world.outcomes(x, 2, draw), method=method, n_resamples=2)
    assert (leaking.explained > model.explained + 0.3).all()


def test_a_bootstrap_draws_pairs():
    # What facts of ten documents miss, they miss of both halves: 20 pairs say as much as 20 halves.
    draw = np.random.default_rng(11)
    x, draws = pairs_of(20, 60, draw)
    values = LinearWorld(draw.normal(size=(12, 60)), 0.1).outcomes(x, 1, draw)
    by_fact = x.reshape(-1, 6, 10).sum(axis=2)

    def effects(x, y):
        return fit_lasso(x, y, np.full(12, 0.01))[0]

    of_pairs, alone = (
        _bootstrapped(effects, by_fact, values, own, 150, 0).mean()
        for own in (draws, np.arange(40))
    )
    assert 1.25 < of_pairs / alone < 1.9  # √2, and more for so few pairs


def test_marginal_intervals_of_pairs_hold_the_truth_as_often_as_they_say():
    held, n = 0, 0
    for trial in range(80):
        draw = np.random.default_rng(2000 + trial)
        world = LinearWorld(draw.normal(size=(2, 100)), 1.0)
        x, draws = pairs_of(30, 100, draw)
        model = fit(
            features(x, draws), world.outcomes(x, 2, draw), method="marginal", confidence=0.9
        )
        # Of subsets of one size: beside the mean of all others.
        others = (world.effects.sum(axis=1, keepdims=True) - world.effects) / 99
        truth = world.effects - others
        held += ((model.low <= truth) & (truth <= model.high)).sum()
        n += truth.size
    assert 0.87 < held / n < 0.93


@pytest.mark.parametrize("method", ["least_squares", "marginal"])
def test_mean_effects_of_pairs_hold_the_truth(method):
    # By facts of ten documents each, whose own effects differ: what the facts miss of a half, they
    # miss of the other half with the opposite sign.
    n_facts, held, n_worlds = 6, 0, 300
    for trial in range(n_worlds):
        draw = np.random.default_rng([5, trial])
        effects = draw.normal(size=(3, 60))
        x, draws = pairs_of(16, 60, draw)
        by_fact = x.reshape(-1, n_facts, 10).sum(axis=2)
        y = x @ effects.T + 0.1 * draw.normal(size=(32, 3))
        own = [np.arange(3) * n_facts + np.arange(3)]
        _, low, high = jackknifed(by_fact, y, method, means_at(own), draws_S=draws)
        of_facts = effects.reshape(3, n_facts, 10).mean(axis=2)
        beside = of_facts - of_facts.mean(axis=1, keepdims=True)
        if method == "marginal":  # of counts of a fixed total, on one of them
            beside = of_facts - (of_facts.sum(axis=1, keepdims=True) - of_facts) / (n_facts - 1)
        truth = beside[np.arange(3), np.arange(3)].mean()
        held += low[0] <= truth <= high[0]
    assert 0.92 <= held / n_worlds <= 0.99


def test_the_jackknife_leaves_pairs_out():
    draw = np.random.default_rng(6)
    x, draws = pairs_of(30, 6, draw)
    y = draw.normal(size=(60, 1))
    mean, _, high = jackknifed(x, y, "least_squares", means_at([np.array([2])]), draws_S=draws)
    left = np.array([slopes(x[draws != g], y[draws != g, 0])[2] for g in range(30)])
    deviation = np.sqrt(29 / 30 * ((left - left.mean()) ** 2).sum())
    assert high[0] - mean[0] == pytest.approx(t.ppf(0.975, 29) * deviation)


def test_by_chance_p_values_of_pairs_are_even_and_intervals_hold_zero():
    p_values, held, n_worlds = [], 0, 200
    for trial in range(n_worlds):
        draw = np.random.default_rng([7, trial])
        world = LinearWorld(draw.normal(size=(1, 80)), 0.5)
        x, draws = pairs_of(30, 80, draw)
        scores = draw.normal(size=(1, 80))
        # What knows nothing of the effects: both beside their means, at a right angle.
        true = world.effects - world.effects.mean()
        scores -= true * (scores @ true.T) / (true @ true.T)
        values = world.outcomes(x, 1, draw)
        score = lds(scores, x, values, draws_S=draws, n_resamples=100, n_permutations=99)
        p_values.append(score.spearman.p_value)
        held += score.spearman.low <= 0 <= score.spearman.high
    assert np.mean(np.array(p_values) <= 0.05) < 0.09
    assert 0.4 < np.mean(p_values) < 0.6
    assert held / n_worlds > 0.88


@pytest.mark.parametrize("noise", [1.0, 12.0])
def test_a_pilot_of_pairs_foretells_pairs(noise):
    draw = np.random.default_rng(8)
    effects = draw.normal(size=(40, 60))

    def sweep(n_pairs, runs):
        x, draws = pairs_of(n_pairs, 60, draw)
        values = LinearWorld(effects, noise).outcomes(x, runs, draw)
        return Features("fact", list("abcdef"), x.reshape(-1, 6, 10).sum(axis=2), draws), values

    pilot = Pilot.of(*sweep(60, 3))
    for n_pairs, runs in [(50, 1), (120, 2)]:
        model = fit(*sweep(n_pairs, runs), method="least_squares")
        measured = np.median((model.high - model.low) / 2)
        assert np.median(pilot.half_width(2 * n_pairs, runs)) == pytest.approx(measured, rel=0.15)
    subsets, runs = pilot.needed(half_width=0.2)
    assert subsets % 2 == 0
    assert np.median(pilot.half_width(subsets, runs)) <= 0.2
    assert np.median(pilot.half_width(subsets - 2, runs)) > 0.2


def test_a_sweep_says_which_of_its_subsets_are_pairs():
    draw = np.random.default_rng(9)
    x, draws = pairs_of(6, 8, draw)
    values = LinearWorld(draw.normal(size=(3, 8)), 0.5).outcomes(x, 2, draw)
    rows = [
        {"split": "test", "design": "complement", "dataset_idx": s, "dataset_id": str(s)}
        for s in range(12)
    ]
    documents = [
        {"id": f"d{d}", "occurrence": 0, "fact_id": "f", "relation": "r"} for d in range(8)
    ]
    questions = [{"set": "s", "index": q} for q in range(3)]
    seeds = np.tile([1, 2], (12, 1))
    outcomes = Outcomes(rows, documents, questions, x, seeds, {"logprob": values})
    assert features_of(outcomes, "document").draws.tolist() == draws.tolist()
    assert features_of(outcomes, "fact").draws.tolist() == draws.tolist()
    queries = [{**q, "entity": str(q["index"]), "kind": "trained"} for q in questions]
    scores = draw.normal(size=(3, 8)).astype(np.float32)
    table = Attributions(documents, queries, {"m": {}}, {"m": scores})
    found = lds_of_methods(table, outcomes)[0].score
    told = {"entities": list("012"), "crossed": True}
    direct = lds(scores, x, values, draws_S=draws, **told)
    for one, other in ((found.spearman, direct.spearman), (found.pearson, direct.pearson)):
        for name in ("low", "high", "p_value", "ceiling"):
            assert getattr(one, name) == getattr(other, name)
    alone = replace(outcomes, subsets=[{**row, "design": "random"} for row in rows])
    assert lds_of_methods(table, alone)[0].score.spearman.low != found.spearman.low


def test_a_single_pair_says_nothing_of_others():
    draw = np.random.default_rng(10)
    x, draws = pairs_of(2, 8, draw)
    values = draw.normal(size=(4, 1, 2))
    with pytest.raises(ValueError, match="of one pair"):
        fit(features(x[:2], draws[:2]), values[:2])
    with pytest.raises(ValueError, match="pairs of subsets says nothing"):
        lds(draw.normal(size=(2, 8)), x, values, draws_S=draws)
    with pytest.raises(ValueError, match="4 subsets, but the draws of 3"):
        fit(features(x, draws[:3]), values)
