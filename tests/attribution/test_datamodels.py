"""Datamodels against the truth of a linear world, and against slow and plain ways to fit them."""

import numpy as np
import pytest
from linear_world import LinearWorld, fixed_size, half_of

from oocr_influence.attribution.datamodels import fit
from oocr_influence.attribution.features import Features, features_of
from oocr_influence.results.outcomes import Outcomes


def features(values, by="document"):
    return Features(by, [f"f{i}" for i in range(values.shape[1])], values)


def world_of(n_documents, n_questions, draw, noise=1.0, **more):
    return LinearWorld(draw.normal(size=(n_questions, n_documents)), noise, **more)


def test_without_noise_the_effects_are_found_exactly():
    draw = np.random.default_rng(0)
    world, x = world_of(8, 3, draw, noise=0.0), half_of(40, 8, draw)
    model = fit(features(x), world.outcomes(x, 2, draw), method="least_squares")
    np.testing.assert_allclose(model.effects, world.effects, atol=1e-10)
    np.testing.assert_allclose(model.intercept, 3.0, atol=1e-10)
    np.testing.assert_allclose(model.high - model.low, 0, atol=1e-8)
    np.testing.assert_allclose(model.explained, 1.0)
    np.testing.assert_allclose(model.predict(x), world.outcomes(x, 1, draw)[:, 0], atol=1e-9)


def test_least_squares_is_the_textbooks():
    draw = np.random.default_rng(1)
    world, x = world_of(5, 2, draw), half_of(30, 5, draw)
    values = world.outcomes(x, 3, draw)
    model = fit(features(x), values, method="least_squares")
    for q in range(2):
        y = values[:, :, q].mean(axis=1)
        a = np.column_stack([np.ones(30), x])
        beta = np.linalg.solve(a.T @ a, a.T @ y)
        np.testing.assert_allclose(model.effects[q], beta[1:])
        # HC3 as it is written down: (A'A)^-1 A' diag(e² / (1-h)²) A (A'A)^-1.
        inverse = np.linalg.inv(a.T @ a)
        leverage = np.array([row @ inverse @ row for row in a])
        error = ((y - a @ beta) / (1 - leverage)) ** 2
        covariance = inverse @ a.T @ np.diag(error) @ a @ inverse
        from scipy.stats import t

        half = t.ppf(0.975, 30 - 6) * np.sqrt(np.diag(covariance))[1:]
        np.testing.assert_allclose(model.high[q] - model.effects[q], half)
        left_out = []
        for s in range(30):
            keep = np.arange(30) != s
            without = np.linalg.lstsq(a[keep], y[keep], rcond=None)[0]
            left_out.append((y[s] - a[s] @ without, y[s] - y[keep].mean()))
        squares = (np.array(left_out) ** 2).sum(axis=0)
        assert model.explained[q] == pytest.approx(1 - squares[0] / squares[1])


def test_ridge_leaves_each_subset_out_exactly_and_solves_its_equations():
    draw = np.random.default_rng(2)
    world, x = world_of(40, 2, draw), half_of(25, 40, draw)
    values = world.outcomes(x, 2, draw)
    model = fit(features(x), values, method="ridge")
    for q in range(2):
        y, penalty = values[:, :, q].mean(axis=1), model.penalty[q]

        def solved(x, y, penalty=penalty):
            xc, yc = x - x.mean(axis=0), y - y.mean()
            beta = np.linalg.solve(xc.T @ xc + penalty * np.eye(x.shape[1]), xc.T @ yc)
            return beta, y.mean() - x.mean(axis=0) @ beta

        np.testing.assert_allclose(model.effects[q], solved(x, y)[0], atol=1e-9)
        errors = []
        for s in range(25):
            keep = np.arange(25) != s
            beta, constant = solved(x[keep], y[keep])
            errors.append((y[s] - constant - x[s] @ beta, y[s] - y[keep].mean()))
        squares = (np.array(errors) ** 2).sum(axis=0)
        assert model.explained[q] == pytest.approx(1 - squares[0] / squares[1], abs=1e-9)


def test_the_penalty_of_a_question_is_the_best_of_the_grid_for_it():
    draw = np.random.default_rng(3)
    x = half_of(60, 10, draw)
    strong = LinearWorld(np.full((1, 10), 5.0), 0.1).outcomes(x, 2, draw)
    nothing = LinearWorld(np.zeros((1, 10)), 1.0).outcomes(x, 2, draw)
    model = fit(features(x), np.concatenate([strong, nothing], axis=2))
    assert model.penalty[0] < model.penalty[1] / 100
    assert model.explained[0] > 0.99
    assert model.explained[1] < 0.2


def test_lasso_finds_the_few_that_matter():
    draw = np.random.default_rng(4)
    effects = np.zeros((1, 80))
    effects[0, :3] = [4.0, -4.0, 3.0]
    x = half_of(60, 80, draw)
    values = LinearWorld(effects, 0.3).outcomes(x, 2, draw)
    model = fit(features(x), values, method="lasso", n_resamples=3)
    assert set(np.argsort(-np.abs(model.effects[0]))[:3]) == {0, 1, 2}
    assert (model.effects[0, 3:] == 0).sum() > 40
    # What makes a lasso: the gradient is the penalty where an effect is not 0, and less elsewhere.
    xc, y = x - x.mean(axis=0), values.mean(axis=1)[:, 0]
    gradient = xc.T @ (y - y.mean() - xc @ model.effects[0]) / len(x)
    found = model.effects[0] != 0
    np.testing.assert_allclose(
        gradient[found], model.penalty[0] * np.sign(model.effects[0, found]), rtol=1e-2
    )
    assert (np.abs(gradient[~found]) <= model.penalty[0] * 1.01).all()


@pytest.mark.parametrize("method", ["least_squares", "marginal"])
@pytest.mark.parametrize("design", ["half", "unequal runs"])
def test_intervals_hold_the_truth_as_often_as_they_say(method, design):
    held, n = 0, 0
    for trial in range(60):
        draw = np.random.default_rng(1000 + trial)
        # Marginal effects: many more documents than subsets.
        n_documents = 12 if method == "least_squares" else 120
        world = world_of(n_documents, 2, draw, noise=1.5, missed=0.5)
        x = half_of(60, n_documents, draw)
        values = world.outcomes(x, 4, draw)
        if design == "unequal runs":
            values[::2, 1:] = np.nan
        model = fit(features(x), values, method=method, confidence=0.9)
        inside = (model.low <= world.effects) & (world.effects <= model.high)
        held, n = held + inside.sum(), n + inside.size
    # Within 4 standard deviations of 90 %, taken as if effects of one world came in eighths.
    slack = 4 * np.sqrt(0.9 * 0.1 / (n / 8))
    assert abs(held / n - 0.9) < min(slack, 0.05)


def test_subsets_of_one_size_show_effects_beside_their_mean():
    draw = np.random.default_rng(5)
    world = LinearWorld(draw.normal(2.0, 1.0, (2, 10)), 0.0)
    x = fixed_size(60, 10, 4, draw)
    model = fit(features(x), world.outcomes(x, 1, draw), method="least_squares")
    assert model.fixed_total
    beside = world.effects - world.effects.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(model.effects, beside, atol=1e-10)
    np.testing.assert_allclose(model.predict(x), world.outcomes(x, 1, draw)[:, 0], atol=1e-9)


@pytest.mark.parametrize("method", ["ridge", "lasso"])
def test_intervals_of_shrunken_effects_have_the_noise_of_runs_in_them(method):
    # Noise between runs alone: more runs a subset make narrower intervals.
    draw = np.random.default_rng(6)
    x = half_of(50, 5, draw)
    world = LinearWorld(np.ones((1, 5)), 2.0)
    widths = []
    for runs in (2, 32):
        values = world.outcomes(x, runs, draw)
        model = fit(features(x), values, method=method, n_resamples=100)
        widths.append(float(np.mean(model.high - model.low)))
    assert 2.5 < widths[0] / widths[1] < 6.5  # √16 = 4
    values = world.outcomes(x, 2, np.random.default_rng(0))
    same = [fit(features(x), values, method=method, n_resamples=9).low for _ in range(2)]
    np.testing.assert_array_equal(*same)


@pytest.mark.parametrize("n_documents", [10, 120])
def test_intervals_of_ridge_say_how_the_shrunken_effects_vary(n_documents):
    """Over sweeps of 60 subsets drawn anew; a bootstrap holds their mean 0.75 of the time, not 0.9,
    where documents are more than subsets."""
    world = LinearWorld(np.random.default_rng(3).normal(size=(4, n_documents)), 2.0, missed=0.5)
    effects, low, high = [], [], []
    for trial in range(60):
        draw = np.random.default_rng([7, trial])
        x = half_of(60, n_documents, draw)
        model = fit(features(x), world.outcomes(x, 4, draw), method="ridge", confidence=0.9)
        effects.append(model.effects)
        low.append(model.low)
        high.append(model.high)
    mean = np.mean(effects, axis=0)
    held = (np.array(low) <= mean) & (mean <= np.array(high))
    assert 0.87 < held.mean() < 0.98


def test_errors_of_ridge_are_those_of_leaving_each_subset_out():
    draw = np.random.default_rng(12)
    x = half_of(20, 30, draw)
    values = world_of(30, 2, draw).outcomes(x, 2, draw)
    model = fit(features(x), values, method="ridge")
    from scipy.stats import t

    for q in range(2):
        y, moved = values[:, :, q].mean(axis=1), []
        for s in range(20):
            kept = np.arange(20) != s
            xc, yc = x[kept] - x[kept].mean(axis=0), y[kept] - y[kept].mean()
            solved = np.linalg.solve(xc.T @ xc + model.penalty[q] * np.eye(30), xc.T @ yc)
            moved.append(model.effects[q] - solved)
        half = t.ppf(0.975, 19) * np.sqrt(np.square(moved).sum(axis=0))
        np.testing.assert_allclose(model.high[q] - model.effects[q], half, rtol=1e-6)


def test_an_effect_that_a_single_subset_decides_has_no_interval():
    draw = np.random.default_rng(9)
    x = 1.0 - np.eye(10)  # each leaves one out
    values = world_of(10, 2, draw).outcomes(x, 3, draw)
    model = fit(features(x), values, method="marginal")
    assert np.isfinite(model.effects).all()
    assert np.isnan(model.low).all()
    x = half_of(30, 4, draw)
    x[:, 0] = np.arange(30) == 7  # one subset alone has it
    model = fit(features(x), world_of(4, 2, draw).outcomes(x, 3, draw), method="least_squares")
    assert np.isfinite(model.effects).all()
    assert np.isnan(model.high[:, 0]).all()
    assert np.isfinite(model.high[:, 1:]).all()


def test_a_feature_that_never_varies_has_no_effect_to_tell():
    draw = np.random.default_rng(7)
    x = half_of(30, 4, draw)
    x[:, 1] = 1.0
    values = world_of(4, 1, draw).outcomes(x, 2, draw)
    for method in ("least_squares", "ridge", "marginal"):
        model = fit(features(x), values, method=method, n_resamples=3)
        assert np.isnan(model.effects[0, 1])
        assert np.isfinite(np.delete(model.effects[0], 1)).all()


def test_what_cannot_be_fitted_is_refused():
    draw = np.random.default_rng(8)
    x = half_of(10, 30, draw)
    values = world_of(30, 2, draw).outcomes(x, 2, draw)
    with pytest.raises(ValueError, match="do not tell 30 features apart"):
        fit(features(x), values, method="least_squares")
    values[3] = np.nan
    with pytest.raises(ValueError, match="subset 3 has no run"):
        fit(features(x), values)
    values[3] = 0.0
    values[3, 0, 0] = values[3, 1, 1] = np.nan  # each question has a run, no run both
    with pytest.raises(ValueError, match="subset 3 has no run that answered every question"):
        fit(features(x), values, method="lasso")
    with pytest.raises(ValueError, match="nothing to fit"):
        fit(features(np.ones((10, 2))), np.zeros((10, 2, 1)))
    with pytest.raises(ValueError, match="squares, ridge, lasso"):
        fit(features(x), values, method="magic")


def small_outcomes():
    documents = [
        {"id": "a", "occurrence": 0, "fact_id": "f1", "relation": "r1"},
        {"id": "b", "occurrence": 0, "fact_id": "f2", "relation": "r1"},
        {"id": "b", "occurrence": 1, "fact_id": "f2", "relation": "r1"},
        {"id": "c", "occurrence": 0, "fact_id": "f3", "relation": "r2"},
        {"id": "p", "occurrence": 0, "fact_id": None, "relation": None},
    ]
    trained = np.array([[1, 0, 2, 1, 1], [0, 1, 1, 0, 1]], dtype=np.float32)
    seeds = np.array([[42, 43], [42, -1]])
    values = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    values[1, 1] = np.nan
    return Outcomes(
        subsets=[{"split": "train", "dataset_id": "x"}, {"split": "test", "dataset_id": "y"}],
        documents=documents,
        questions=[{"set": "s", "index": i} for i in range(3)],
        trained=trained,
        seeds=seeds,
        metrics={"logprob": values},
    )


def test_features_count_what_was_trained():
    outcomes = small_outcomes()
    by_document = features_of(outcomes, "document")
    assert by_document.names == ["a", "b", "b#1", "c", "p"]
    by_fact = features_of(outcomes, "fact")
    assert by_fact.names == ["f1", "f2", "f3"]
    assert by_fact.values.tolist() == [[1, 2, 1], [0, 2, 0]]
    by_relation = features_of(outcomes, "relation")
    assert by_relation.values.tolist() == [[3, 1], [2, 0]]
    assert by_relation.varied().tolist() == [True, True]
    assert by_fact.varied().tolist() == [True, False, True]


def test_outcomes_are_written_and_read_again(tmp_path):
    outcomes = small_outcomes()
    outcomes.save(tmp_path / "outcomes")
    first = {p.name: p.read_bytes() for p in (tmp_path / "outcomes").iterdir()}
    read = Outcomes.load(tmp_path / "outcomes")
    assert read.documents == outcomes.documents
    assert read.subsets == outcomes.subsets
    np.testing.assert_array_equal(read.trained, outcomes.trained)
    np.testing.assert_array_equal(read.values("logprob"), outcomes.values("logprob"))
    assert isinstance(read.values("logprob"), np.memmap)
    read.save(tmp_path / "outcomes")  # in its own place
    assert {p.name: p.read_bytes() for p in (tmp_path / "outcomes").iterdir()} == first
    assert read.completed().tolist() == [[True, True], [True, False]]
    assert read.means("logprob").tolist() == [[1.5, 2.5, 3.5], [6, 7, 8]]
    assert [s["dataset_id"] for s in read.split("test").subsets] == ["y"]
    with pytest.raises(ValueError, match="no metric 'loss' here: logprob"):
        read.means("loss")
    with pytest.raises(FileNotFoundError, match="is not there: no outcomes"):
        Outcomes.load(tmp_path)


def test_arrays_that_do_not_fit_are_refused():
    outcomes = small_outcomes()
    with pytest.raises(ValueError, match=r"trained \(1, 5\), not \(2, 5\)"):
        Outcomes(
            outcomes.subsets,
            outcomes.documents,
            outcomes.questions,
            outcomes.trained[:1],
            outcomes.seeds,
            outcomes.metrics,
        )
