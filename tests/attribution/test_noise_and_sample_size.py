"""Components of variance against their definition and truth; what a pilot foretells, against it."""

import numpy as np
import pytest
from linear_world import LinearWorld, half_of

from oocr_influence.attribution.datamodels import fit
from oocr_influence.attribution.features import Features
from oocr_influence.attribution.noise import variances
from oocr_influence.attribution.sample_size import Pilot


def test_components_are_the_analysis_of_variances():
    draw = np.random.default_rng(0)
    values = draw.normal(size=(7, 5, 2)) + draw.normal(size=(7, 1, 2))
    values[2, 3:] = np.nan
    values[4, 1:] = np.nan
    found = variances(values)
    for q in range(2):
        groups = [[v for v in row if np.isfinite(v)] for row in values[:, :, q]]
        everything = [v for g in groups for v in g]
        n, s = len(everything), len(groups)
        within = sum(sum((v - np.mean(g)) ** 2 for v in g) for g in groups) / (n - s)
        grand = np.mean(everything)
        between = sum(len(g) * (np.mean(g) - grand) ** 2 for g in groups) / (s - 1)
        n0 = (n - sum(len(g) ** 2 for g in groups) / n) / (s - 1)
        assert found.noise[q] == pytest.approx(within)
        assert found.signal[q] == pytest.approx(max((between - within) / n0, 0))
    assert found.runs == pytest.approx(7 / (5 / 5 + 1 / 3 + 1 / 1))


def test_they_find_the_truth():
    draw = np.random.default_rng(1)
    subset = draw.normal(0, 2.0, (3000, 1, 1))
    seed = draw.normal(0, 3.0, (1, 4, 1))
    noise = draw.normal(0, 1.5, (3000, 4, 1))
    found = variances(subset + noise)
    assert found.signal[0] == pytest.approx(4, rel=0.1)
    assert found.noise[0] == pytest.approx(2.25, rel=0.1)
    assert found.reliability(1)[0] == pytest.approx(4 / 6.25, rel=0.05)
    crossed = variances(subset + seed + noise, crossed=True)
    assert crossed.noise[0] == pytest.approx(2.25, rel=0.1)
    assert variances(subset + seed + noise).noise[0] > 4
    assert np.isnan(variances(subset + noise[:, :1]).noise[0])


def test_a_pilot_foretells_how_wide_intervals_will_be():
    draw = np.random.default_rng(2)
    world = LinearWorld(draw.normal(size=(40, 6)), 2.0, missed=0.7)
    names = [f"f{i}" for i in range(6)]

    def sweep(n_subsets, runs):
        x = half_of(n_subsets, 6, draw)
        return Features("fact", names, x), world.outcomes(x, runs, draw)

    pilot = Pilot.of(*sweep(60, 3))
    for n_subsets, runs in [(100, 1), (40, 8), (300, 2)]:
        model = fit(*sweep(n_subsets, runs), method="least_squares")
        measured = np.median((model.high - model.low) / 2)
        assert np.median(pilot.half_width(n_subsets, runs)) == pytest.approx(measured, rel=0.15)


def test_what_is_needed_is_the_least_that_is_enough():
    draw = np.random.default_rng(3)
    world = LinearWorld(draw.normal(size=(10, 5)), 1.0, missed=0.5)
    x = half_of(80, 5, draw)
    pilot = Pilot.of(Features("fact", list("abcde"), x), world.outcomes(x, 3, draw))
    subsets, runs = pilot.needed(half_width=0.3)
    assert np.median(pilot.half_width(subsets, runs)) <= 0.3
    assert np.median(pilot.half_width(subsets - 1, runs)) > 0.3
    assert runs == 1  # a further subset says more than a further run of one
    ceiling = (pilot.ceiling(1) + 1) / 2
    subsets, runs = pilot.needed(half_width=0.3, ceiling=ceiling)
    assert pilot.ceiling(runs) >= ceiling > pilot.ceiling(runs - 1)
    assert pilot.needed(half_width=1e-9) is None
    with pytest.raises(ValueError, match="two runs"):
        Pilot.of(Features("fact", list("abcde"), x), world.outcomes(x, 1, draw))


@pytest.mark.parametrize("scale", [np.ones(30), np.repeat([1.0, 0.0], 15)])
def test_a_pilots_ceiling_is_the_mean_of_a_perfect_predictors(scale):
    draw = np.random.default_rng(4)
    world = LinearWorld(scale[:, None] * draw.normal(size=(30, 5)), 1.0)
    x = half_of(150, 5, draw)
    pilot = Pilot.of(Features("fact", list("abcde"), x), world.outcomes(x, 3, draw))
    signal = (world.effects**2).sum(axis=1) / 4
    for runs in (1, 3, 10):
        perfect = np.sqrt(signal / (signal + 1 / runs)).mean()
        # The root of the mean would be 0.26 to 0.33 too high where half have no signal.
        assert pilot.ceiling(runs) == pytest.approx(perfect, abs=0.04 if scale.all() else 0.18)
