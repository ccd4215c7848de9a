"""Intervals over entities and seeds: against a naive bootstrap, and how often they are right."""

import itertools
import math

import numpy as np
import pytest

from oocr_influence.results.intervals import mean_interval, sign_test


def design(n_runs, n_entities, n_questions, seed=0, missing=0):
    """(value, run, entity) of every question, some of them missing."""
    draw = np.random.default_rng(seed)
    rows = [
        (float(draw.normal(run + entity)), f"run {run}", f"entity {entity}")
        for run in range(n_runs)
        for entity in range(n_entities)
        for _ in range(n_questions)
    ]
    kept = sorted(draw.permutation(len(rows))[missing:])
    return [rows[place] for place in kept]


def interval_of(rows, **options):
    values, runs, entities = zip(*rows, strict=True)
    return mean_interval(values, runs=runs, entities=entities, **options)


def naive_interval(rows, n_resamples, seed, confidence):
    """Draw runs, draw entities, write down every question of each pair of them, take the mean."""
    runs = sorted({row[1] for row in rows})
    entities = sorted({row[2] for row in rows})
    draw = np.random.default_rng(seed)
    means = []
    left = n_resamples
    while left:
        n = min(256, left)
        drawn_runs = draw.integers(len(runs), size=(n, len(runs)))
        drawn_entities = draw.integers(len(entities), size=(n, len(entities)))
        for run_places, entity_places in zip(drawn_runs, drawn_entities, strict=True):
            pairs = itertools.product(run_places, entity_places)
            values = [
                value
                for r, e in pairs
                for value, run, entity in rows
                if (run, entity) == (runs[r], entities[e])
            ]
            if values:
                means.append(sum(values) / len(values))
        left -= n
    tail = (1 - confidence) / 2
    return np.quantile(means, [tail, 1 - tail])


@pytest.mark.parametrize(
    ("shape", "missing"), [((3, 4, 2), 0), ((3, 4, 2), 9), ((1, 5, 2), 0), ((4, 1, 1), 0)]
)
def test_equal_to_a_naive_bootstrap(shape, missing):
    rows = design(*shape, missing=missing)
    found = interval_of(rows, n_resamples=300, seed=5, confidence=0.9)
    assert (found.low, found.high) == pytest.approx(tuple(naive_interval(rows, 300, 5, 0.9)))
    assert found.mean == pytest.approx(sum(row[0] for row in rows) / len(rows))
    assert (found.n_runs, found.n_entities) == shape[:2]
    assert found.n_questions == len(rows)


def test_the_same_seed_gives_the_same_interval_in_any_order():
    rows = design(3, 5, 2)
    again = [rows[place] for place in np.random.default_rng(1).permutation(len(rows))]
    first, second = interval_of(rows, seed=3), interval_of(again, seed=3)
    assert (first.low, first.high) == pytest.approx((second.low, second.high), abs=1e-12)
    assert interval_of(rows, seed=3) == first
    assert interval_of(rows, seed=4) != first


def test_one_run_of_one_entity_has_no_interval():
    found = interval_of([(1.0, "r", "e"), (2.0, "r", "e")])
    assert (found.mean, found.low, found.high) == (1.5, None, None)


def test_more_questions_about_the_same_entities_make_nothing_surer():
    few = [(float(e), "r", e) for e in range(8)]
    many = few * 50
    assert interval_of(many).low == pytest.approx(interval_of(few).low)
    assert interval_of(many).high == pytest.approx(interval_of(few).high)


@pytest.mark.parametrize(
    ("values", "runs", "entities", "fault"),
    [
        ([], [], [], "0 values"),
        ([1.0], ["a", "b"], ["e"], "1 values of 2 runs"),
        ([math.nan], ["a"], ["e"], "not finite"),
    ],
)
def test_what_has_no_interval_is_an_error(values, runs, entities, fault):
    with pytest.raises(ValueError, match=fault):
        mean_interval(values, runs=runs, entities=entities)


def coverage(n_runs, n_entities, spread_runs, spread_entities, n_times, resample):
    """How often the interval holds the true mean, which is 0."""
    draw = np.random.default_rng(8)
    held = 0
    for _ in range(n_times):
        of_runs = draw.normal(0, spread_runs, (n_runs, 1, 1))
        of_entities = draw.normal(0, spread_entities, (1, n_entities, 1))
        values = of_runs + of_entities + draw.normal(0, 1, (n_runs, n_entities, 3))
        low, high = resample(values, int(draw.integers(1 << 30)))
        held += low <= 0 <= high
    return held / n_times


def ours(values, seed):
    run, entity, _ = np.indices(values.shape).reshape(3, -1).tolist()
    found = mean_interval(values.ravel(), runs=run, entities=entity, n_resamples=400, seed=seed)
    return found.low, found.high


def entities_anew_in_each_run(values, seed):
    """What is not done: the entities of each drawn run are drawn apart."""
    cells, draw = values.mean(axis=2), np.random.default_rng(seed)
    n_runs, n_entities = cells.shape
    runs = draw.integers(n_runs, size=(400, n_runs))
    entities = draw.integers(n_entities, size=(400, n_runs, n_entities))
    return np.quantile(cells[runs[:, :, None], entities].mean(axis=(1, 2)), [0.025, 0.975])


@pytest.mark.parametrize(
    ("shape", "spreads", "at_least"),
    [((5, 10), (0.1, 1.0), 0.86), ((5, 10), (0.5, 1.0), 0.86), ((20, 30), (0.5, 1.0), 0.9)],
)
def test_intervals_hold_the_truth_about_as_often_as_they_say(shape, spreads, at_least):
    """A little less often with few entities and seeds, as percentile intervals do."""
    assert at_least <= coverage(*shape, *spreads, 200, ours) <= 1


def test_entities_drawn_anew_in_each_run_would_be_too_sure():
    assert coverage(5, 10, 0.1, 1.0, 200, entities_anew_in_each_run) < 0.75


def every_sign(n):
    return itertools.product((-1, 1), repeat=n)


@pytest.mark.parametrize("differences", [[1, 1, 1, -1, 0], [1] * 6, [-2, -1], [1, -1], [0, 0], []])
def test_the_sign_test_counts_every_way_the_signs_could_fall(differences):
    signs = [value for value in differences if value]
    excess = abs(sum(np.sign(signs)))
    as_uneven = [abs(sum(way)) >= excess for way in every_sign(len(signs))]
    assert sign_test(differences) == pytest.approx(sum(as_uneven) / len(as_uneven))


def test_the_sign_test_of_many_differences_is_a_number():
    assert sign_test([1.0, -1.0] * 2000) == 1.0
    assert 0 <= sign_test([1.0] * 5000) < 1e-300
    assert sign_test([1.0] * 100) == pytest.approx(2 * 0.5**100)
