"""Means of effects: the fit's own effects, a naive jackknife, and intervals that cover."""

import numpy as np
import pytest
from linear_world import LinearWorld, fixed_size, half_of

from oocr_influence.attribution.datamodels import fit
from oocr_influence.attribution.features import Features
from oocr_influence.attribution.mean_effects import (
    jackknifed,
    linear_effects,
    means_at,
    run_rows,
)

S, F, Q = 30, 6, 5


@pytest.mark.parametrize("method", ["least_squares", "marginal"])
@pytest.mark.parametrize("fixed", [False, True])
def test_effects_are_those_of_the_fit(method, fixed):
    draw = np.random.default_rng(1)
    x = fixed_size(S, F, 3, draw) if fixed else half_of(S, F, draw)
    y = LinearWorld(draw.normal(size=(Q, F)), 0.2).outcomes(x, 1, draw)
    whole = fit(Features("document", [str(f) for f in range(F)], x), y, method=method)
    np.testing.assert_allclose(linear_effects(x, y[:, 0], method), whole.effects, atol=1e-10)


def test_intervals_are_those_of_leaving_each_subset_out():
    draw = np.random.default_rng(2)
    x = half_of(8, 2, draw)
    y = draw.normal(size=(8, 3))
    mask = np.array([[True, False], [False, True], [False, False]])
    mean, low, high = jackknifed(x, y, "least_squares", means_at([np.flatnonzero(mask)]))

    def naive(rows):
        design = np.column_stack([np.ones(len(rows)), x[rows]])
        slopes = np.linalg.solve(design.T @ design, design.T @ y[rows])[1:]
        return (slopes[0, 0] + slopes[1, 1]) / 2

    left_out = [naive([r for r in range(8) if r != s]) for s in range(8)]
    deviation = np.sqrt(7 / 8 * np.sum((np.array(left_out) - np.mean(left_out)) ** 2))
    assert mean[0] == pytest.approx(naive(list(range(8))))
    assert high[0] - mean[0] == pytest.approx(2.3646 * deviation, rel=1e-4)  # t of 7, 97.5 %
    assert mean[0] - low[0] == pytest.approx(high[0] - mean[0])


@pytest.mark.parametrize("method", ["least_squares", "marginal"])
def test_intervals_cover_the_truth_where_questions_share_their_noise(method):
    effects = np.random.default_rng(3).normal(size=(Q, F))
    own = np.arange(Q)[:, None] == np.arange(F)
    held = 0
    for world in range(300):
        draw = np.random.default_rng([4, world])
        x = half_of(S, F, draw)
        shared = draw.normal(size=(S, 1))  # what befell a run befell all of its answers
        y = x @ effects.T + shared + 0.2 * draw.normal(size=(S, Q))
        _, low, high = jackknifed(x, y, method, means_at([np.flatnonzero(own)]))
        held += low[0] <= effects[own].mean() <= high[0]
    assert 0.92 <= held / 300 <= 0.995


def test_what_rests_on_one_subset_has_no_interval():
    x = np.ones((6, 2))
    x[2, 0] = 0  # the only subset without the first
    x[:3, 1] = 0
    y = np.random.default_rng(5).normal(size=(6, 1))
    masks = [np.array([[True, False]]), np.array([[False, True]]), np.array([[False, False]])]
    mean, low, high = jackknifed(
        x, y, "marginal", means_at([np.flatnonzero(mask) for mask in masks])
    )
    assert np.isfinite(mean[:2]).all()
    assert np.isnan(low[[0, 2]]).all()
    assert np.isnan(high[[0, 2]]).all()
    assert np.isfinite([low[1], high[1]]).all()


def test_missing_runs_are_no_rows():
    values = np.arange(12.0).reshape(3, 2, 2)
    values[1, 0] = np.nan
    subsets, rows = run_rows(values)
    assert subsets.tolist() == [0, 0, 1, 2, 2]
    assert rows.tolist() == [[0, 1], [2, 3], [6, 7], [8, 9], [10, 11]]
