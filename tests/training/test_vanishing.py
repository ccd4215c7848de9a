"""What rounding takes of an update, against a naive count over all elements."""

import math

import numpy as np
import pytest
import torch

from oocr_influence.datasets.packing import pack
from oocr_influence.models.tiny import untrained_model
from oocr_influence.training.bf16_rounding import join_halves
from oocr_influence.training.loop import train
from oocr_influence.training.optimizer import OptimizerSettings, make_optimizer, set_rate
from oocr_influence.training.schedule import LearningRate, Schedule
from oocr_influence.training.vanishing import UpdateSample

torch.set_num_threads(1)
BF16 = torch.bfloat16


def model_of(dtype=BF16):
    return untrained_model(
        0,
        vocab_size=61,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    ).to(dtype)


def set_gradients(model, step):
    generator = torch.Generator().manual_seed(step)
    for p in model.parameters():
        p.grad = (1e-3 * torch.randn(p.shape, generator=generator)).to(p.dtype)


def naive(optimizer, step):
    """The three numbers, one element at a time in Python's own floats."""

    def all_values():
        values = []
        for group in optimizer.param_groups:
            for p in group["params"]:
                state = optimizer.state[p]
                weight = join_halves(p.detach(), state["low"]) if "low" in state else p.detach()
                zeros = torch.zeros_like(p)
                moments = [state.get(name, zeros) for name in ("exp_avg", "exp_avg_sq")]
                columns = [t.double().flatten().tolist() for t in (weight, *moments)]
                values += [(*row, group["weight_decay"]) for row in zip(*columns, strict=True)]
        return values

    gradients = [
        g
        for group in optimizer.param_groups
        for p in group["params"]
        for g in p.grad.double().flatten().tolist()
    ]
    lr = float(optimizer.param_groups[0]["lr"])
    before = all_values()
    optimizer.step()
    after = all_values()
    moved = stayed = fell = stuck = 0
    along = length = 0.0
    for (w, m, v, decay), (new_w, _, new_v, _), g in zip(before, after, gradients, strict=True):
        mean, square = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        ratio = mean / (1 - 0.9**step) / (math.sqrt(square / (1 - 0.999**step)) + 1e-8)
        exact = w * (1 - lr * decay) - lr * ratio
        if exact != w:
            moved += 1
            stayed += new_w == w
            along += (exact - w) * (new_w - w)
            length += (exact - w) ** 2
        if square < v:
            fell += 1
            stuck += new_v >= v
    return stayed / moved, along / length, stuck / fell if fell else None


def at(precision, dtype=BF16, *, lr=1e-5, steps=3):
    """A measured update after `steps` others, and the naive numbers of its twin."""
    found = []
    for measured in (True, False):
        model = model_of(dtype)
        optimizer = make_optimizer(
            model, OptimizerSettings(precision=precision, weight_decay=0.1), seed=4
        )
        set_rate(optimizer, lr)
        for step in range(steps):
            set_gradients(model, step)
            optimizer.step()
        set_gradients(model, 99)
        if measured:
            losses = UpdateSample(optimizer).measure(optimizer.step)
            found.append(
                (
                    losses.weight_updates_vanished,
                    losses.update_realised,
                    losses.second_moments_stuck,
                )
            )
        else:
            found.append(naive(optimizer, steps + 1))
        found.append(torch.cat([p.detach().double().flatten() for p in model.parameters()]))
    measured, weights, counted, twins = found
    assert torch.equal(weights, twins), "measuring changes an update"
    return measured, counted


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("fp32", torch.float32),
        ("bf16", BF16),
        ("bf16_stochastic", BF16),
        ("fp32_master", BF16),
    ],
)
def test_the_shares_are_those_of_a_naive_count(precision, dtype):
    measured, counted = at(precision, dtype)
    assert measured == pytest.approx(counted, rel=1e-6)
    vanished, realised, stuck = measured
    if precision == "bf16":
        assert vanished > 0.5
        assert stuck > 0.95
    elif precision == "bf16_stochastic":
        assert vanished > 0.5, "most weights stay in place, and others move further"
        assert realised == pytest.approx(1, abs=0.2)
        assert stuck < 0.01
    else:
        assert vanished < 0.01
        assert realised == pytest.approx(1, abs=1e-3)
        assert stuck < 0.01


def test_a_huge_rate_loses_nothing_and_a_tiny_one_all():
    (vanished, realised, _), _ = at("bf16", lr=10.0, steps=0)
    assert (vanished, realised) == (0.0, pytest.approx(1, abs=0.01))
    (vanished, realised, _), _ = at("bf16", lr=1e-12)
    assert vanished > 0.99
    assert abs(realised) < 0.05


def test_the_first_update_has_no_second_moment_to_lose():
    measured, counted = at("bf16", steps=0)
    assert measured[2] is counted[2] is None
    assert measured[:2] == pytest.approx(counted[:2], rel=1e-6)


def test_nothing_is_lost_where_nothing_is_to_change():
    model = model_of()
    optimizer = make_optimizer(model, OptimizerSettings())
    assert UpdateSample(optimizer).measure(lambda: None).weight_updates_vanished is None
    set_gradients(model, 0)
    losses = UpdateSample(optimizer).measure(optimizer.step)  # at rate 0
    assert losses.weight_updates_vanished is None
    assert losses.update_realised is None


def test_a_sample_estimates_the_whole_and_is_bounded():
    numbers = []
    for limit in (2**20, 1500):
        model = model_of()
        optimizer = make_optimizer(model, OptimizerSettings(precision="bf16"))
        sample = UpdateSample(optimizer, 1, limit=limit)
        places = [p for p in sample._places if p is not None]
        assert bool(places) == (limit == 1500)
        assert sum(len(p) for p in places) <= limit
        for step in range(3):
            set_gradients(model, step)
            set_rate(optimizer, 3e-5)
            if step == 2:
                numbers.append(sample.measure(optimizer.step))
            else:
                optimizer.step()
    whole, part = numbers
    assert 0.2 < whole.weight_updates_vanished < 0.98
    assert part.weight_updates_vanished == pytest.approx(whole.weight_updates_vanished, abs=0.06)
    assert part != whole


def test_the_loop_measures_the_steps_that_it_is_told_and_changes_none():
    generator = np.random.default_rng(0)
    documents = [np.array([0, *generator.integers(2, 61, 12), 0]) for _ in range(16)]
    windows = pack(documents, chunk_size=32, packing="masked", pad_id=1)
    schedule = Schedule(len(windows), batch_size=2, epochs=1, burn_in_epochs=0.5)

    def trained(measured):
        model, steps = model_of(), []
        train(
            model,
            windows,
            schedule,
            LearningRate(1e-4, schedule.total_steps),
            OptimizerSettings(precision="bf16_stochastic"),
            data_order_seed=5,
            micro_batch_size=1,
            after_step=lambda step, _: None,
            log_step=steps.append,
            measured_steps=measured,
        )
        assert {s.step for s in steps if s.losses_of_update is not None} == set(measured)
        assert not any(s.burn_in and s.losses_of_update is not None for s in steps)
        return [p.detach() for p in model.parameters()]

    assert schedule.total_steps > 2
    pairs = zip(trained({1, schedule.total_steps}), trained(()), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
