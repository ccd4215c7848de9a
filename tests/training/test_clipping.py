"""Gradients are multiplied by the very factor that is logged, in 16 bits too."""

import copy

import numpy as np
import pytest
import torch

from oocr_influence.datasets.packing import pack
from oocr_influence.models.tiny import untrained_model
from oocr_influence.training.clipping import scale_down, total_norm
from oocr_influence.training.loop import accumulate_gradients, train
from oocr_influence.training.optimizer import OptimizerSettings
from oocr_influence.training.schedule import LearningRate, Schedule

torch.set_num_threads(1)


def some_gradients(dtype, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    shapes = [(40, 30), (7,), (300, 11), (1,)]
    return [(scale * torch.randn(s, generator=generator)).to(dtype) for s in shapes]


def exact_norm(gradients):
    return float(torch.cat([g.double().flatten() for g in gradients]).norm())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_the_norm_is_that_of_exact_arithmetic(dtype):
    gradients = some_gradients(dtype)
    assert float(total_norm(gradients)) == pytest.approx(exact_norm(gradients), rel=1e-6)


@pytest.mark.parametrize("limit", [0.37, 1.0, 50.0, 1e9])
def test_in_float32_it_is_torchs_own_clipping_to_the_bit(limit):
    ours = some_gradients(torch.float32)
    theirs = [torch.nn.Parameter(torch.zeros_like(g)) for g in ours]
    for parameter, gradient in zip(theirs, ours, strict=True):
        parameter.grad = gradient.clone()
    norm = total_norm(ours)
    scale_down(ours, norm, limit)
    assert torch.equal(norm, torch.nn.utils.clip_grad_norm_(theirs, limit))
    for gradient, parameter in zip(ours, theirs, strict=True):
        assert torch.equal(gradient, parameter.grad)


def test_nothing_is_changed_where_nothing_is_too_long_or_no_number():
    for limit, number in ((None, 1.0), (1e6, 1.0), (1.0, float("nan"))):
        gradients = [g * number for g in some_gradients(torch.bfloat16)]
        before = [g.clone() for g in gradients]
        assert scale_down(gradients, total_norm(gradients), limit) == 1.0
        for gradient, old in zip(gradients, before, strict=True):
            assert torch.equal(gradient.nan_to_num(), old.nan_to_num())


def test_a_step_in_bf16_logs_the_norm_and_the_factor_that_it_had():
    """What lies in the gradients before the update is what the log's factor makes of them."""
    generator = np.random.default_rng(0)
    documents = [np.array([0, *generator.integers(2, 97, 12), 0]) for _ in range(12)]
    windows = pack(documents, chunk_size=32, packing="masked", pad_id=1)
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4}
    model = untrained_model(0, vocab_size=97, hidden_size=32, intermediate_size=64, **heads)
    model.to(torch.bfloat16)
    untouched = copy.deepcopy(model)
    schedule = Schedule(len(windows), batch_size=2, epochs=1, max_steps=1)
    clipped, steps = [], []
    train(
        model,
        windows,
        schedule,
        LearningRate(1e-3, 1),
        OptimizerSettings(max_grad_norm=0.37),
        data_order_seed=1,
        micro_batch_size=1,
        after_step=lambda step, _: None,
        log_step=steps.append,
        before_update=lambda: clipped.extend(p.grad.clone() for p in model.parameters()),
    )
    (step,) = steps
    accumulate_gradients(untouched, windows, step.windows, micro_batch_size=1)
    raw = [p.grad for p in untouched.parameters()]
    assert step.grad_norm == pytest.approx(exact_norm(raw), rel=1e-6)
    assert step.clip_factor == pytest.approx(0.37 / step.grad_norm, rel=1e-5)
    assert step.clip_factor < 0.9, "nothing was clipped"
    for gradient, found in zip(raw, clipped, strict=True):
        assert torch.equal(found, (gradient.float() * step.clip_factor).to(torch.bfloat16))
