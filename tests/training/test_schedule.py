"""The arithmetic of steps, cadences and rates, against worked examples."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oocr_influence.training.schedule import (
    Cadence,
    LearningRate,
    Schedule,
    epochs_cadence,
    steps_cadence,
)


def names(schedule, cadence, **options):
    return [moment.name for moment in schedule.milestones(cadence, **options)]


def test_the_published_example_209_steps_at_every_fifth_of_an_epoch():
    schedule = Schedule(n_windows=1672, batch_size=8, epochs=1)
    moments = schedule.milestones(epochs_cadence(0.2))
    assert [m.step for m in moments] == [0, 42, 84, 125, 167, 209]
    assert [m.name for m in moments] == [
        "start",
        "e1_s42",
        "e1_s84",
        "e1_s125",
        "e1_s167",
        "final",
    ]
    assert schedule.describe(epochs_cadence(0.2)) == "0.2 epochs = 42 steps"
    assert schedule.describe_length() == "1 epochs = 209 steps"


def test_five_epochs_have_26_moments_and_end_at_five_times_the_steps():
    schedule = Schedule(n_windows=1672, batch_size=8, epochs=5)
    moments = schedule.milestones(epochs_cadence(0.2))
    assert len(moments) == 26
    assert moments[5].name == "e1_s209"
    assert moments[6].name == "e2_s251"
    assert moments[-1].step == schedule.total_steps == 1045


def test_the_earlier_cadence_is_rounded_up():
    schedule = Schedule(n_windows=1672, batch_size=8, epochs=1, cadence_rounding="up")
    assert [m.step for m in schedule.milestones(epochs_cadence(0.2))] == [0, 42, 84, 126, 168, 209]


def test_ends_of_epochs_are_always_met():
    schedule = Schedule(n_windows=100, batch_size=10, epochs=3)
    steps = {m.step for m in schedule.milestones(epochs_cadence(0.7))}
    assert {10, 20, 30} <= steps


def test_steps_as_unit_and_never():
    schedule = Schedule(n_windows=100, batch_size=10, epochs=1)
    assert names(schedule, steps_cadence(4)) == ["start", "e1_s4", "e1_s8", "final"]
    assert names(schedule, Cadence(None)) == ["start", "final"]
    assert names(schedule, Cadence(None), first=False, final=False) == []
    with pytest.raises(ValueError, match="must be above 0"):
        Cadence(0)


def test_fractions_are_exact_decimals():
    # 0.1 * 30 is 3.0000000000000004 in floats for some products; a third of them would round up.
    for windows in range(1, 400):
        rate = LearningRate(peak=1.0, total_steps=windows * 10, warmup_proportion=0.1)
        assert rate.warmup == windows
    assert Schedule(n_windows=30, batch_size=1, epochs=0.1).total_steps == 3


@given(
    st.integers(1, 500),
    st.integers(1, 64),
    st.integers(1, 4),
    st.sampled_from([0.1, 0.2, 0.25, 0.3, 1.0]),
)
def test_every_epoch_trains_every_window_once_in_even_batches(n_windows, batch_size, epochs, every):
    schedule = Schedule(n_windows=n_windows, batch_size=batch_size, epochs=epochs)
    s = math.ceil(Fraction(n_windows, batch_size))
    assert schedule.steps_per_epoch == s
    assert schedule.total_steps == epochs * s
    for epoch in range(epochs):
        steps = range(epoch * s + 1, (epoch + 1) * s + 1)
        places = [list(range(n_windows))[schedule.batch(step)] for step in steps]
        assert [p for batch in places for p in batch] == list(range(n_windows))
        sizes = {len(batch) for batch in places}
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) <= batch_size
        assert {schedule.epoch_of(step) for step in steps} == {epoch + 1}
    moments = schedule.milestones(epochs_cadence(every))
    assert len({m.step for m in moments}) == len({m.name for m in moments}) == len(moments)


def test_drop_last_keeps_full_batches_alone():
    schedule = Schedule(n_windows=100, batch_size=8, epochs=1, drop_last=True)
    assert schedule.steps_per_epoch == 12
    assert {len(range(100)[schedule.batch(step)]) for step in range(1, 13)} == {8}
    with pytest.raises(ValueError, match="batch_size 8"):
        Schedule(n_windows=7, batch_size=8, epochs=1, drop_last=True)


def test_burn_in_is_counted_apart():
    schedule = Schedule(n_windows=100, batch_size=10, epochs=1, burn_in_epochs=0.5)
    assert (schedule.burn_in_steps, schedule.total_steps) == (5, 10)


def test_rates_go_up_then_down_and_are_never_zero():
    rate = LearningRate(peak=1.0, total_steps=20, warmup_proportion=0.1)
    assert rate.warmup == 2
    assert rate.at(0) == 0.5
    assert rate.at(1) == 1.0
    assert rate.at(2) == 1.0
    assert rate.at(19) == pytest.approx(1 / 18)
    assert all(rate.at(t) > 0 for t in range(20))


@given(st.integers(1, 300), st.floats(0, 1))
def test_no_batch_is_wasted_on_a_zero_rate(total, proportion):
    rate = LearningRate(peak=1e-4, total_steps=total, warmup_proportion=round(proportion, 3))
    rates = [rate.at(t) for t in range(total)]
    assert all(0 < r <= 1e-4 for r in rates)
    assert max(rates) == 1e-4


def test_the_earlier_warm_up_begins_at_zero():
    rate = LearningRate(peak=1.0, total_steps=20, warmup_proportion=0.2, zero_first_rate=True)
    assert [rate.at(t) for t in range(5)] == [0, 0.25, 0.5, 0.75, 1.0]


def test_constant_after_the_warm_up():
    rate = LearningRate(peak=1.0, total_steps=20, warmup_steps=4, scheduler="warmup_constant")
    assert [rate.at(t) for t in (0, 3, 4, 19)] == [0.25, 1.0, 1.0, 1.0]
