"""Every setting of a run's optimizer is the one that its updates are made with."""

import pytest
import torch

from oocr_influence.models.tiny import untrained_model
from oocr_influence.training.optimizer import OptimizerSettings, make_optimizer, set_rate

torch.set_num_threads(1)
PRECISIONS = ["fp32", "bf16", "bf16_stochastic", "fp32_master"]
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
SMALL |= {"num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 97}
UNUSUAL = {"beta1": 0.7, "beta2": 0.9, "eps": 1e-2, "weight_decay": 0.3}


def updated(precision, *, seed=0, **settings):
    """(before, after) of every weight, by name, after three updates of the same gradients."""
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    model = untrained_model(0, **SMALL).to(dtype)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = make_optimizer(model, OptimizerSettings(precision=precision, **settings), seed=seed)
    for step in range(3):
        set_rate(optimizer, 1e-2)
        for index, parameter in enumerate(model.parameters()):
            generator = torch.Generator().manual_seed(100 * step + index)
            gradient = 1e-2 * torch.randn(parameter.shape, generator=generator)
            parameter.grad = gradient.to(dtype)
        optimizer.step()
    return before, {name: p.detach() for name, p in model.named_parameters()}


def in_float64(before, *, beta1, beta2, eps, weight_decay):
    """Algorithm 2 of Loshchilov and Hutter, arXiv 1711.05101, of the same gradients."""
    after = {}
    for index, (name, weight) in enumerate(before.items()):
        value, mean, square = weight.double(), 0.0, 0.0
        decay = weight_decay if "proj" in name else 0.0
        for step in range(3):
            generator = torch.Generator().manual_seed(100 * step + index)
            gradient = (1e-2 * torch.randn(weight.shape, generator=generator)).to(weight.dtype)
            mean = beta1 * mean + (1 - beta1) * gradient.double()
            square = beta2 * square + (1 - beta2) * gradient.double() ** 2
            right = (square / (1 - beta2 ** (step + 1))) ** 0.5 + eps
            value = value - 1e-2 * (mean / (1 - beta1 ** (step + 1)) / right + decay * value)
        after[name] = value
    return after


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("left_out", [None, *UNUSUAL])
def test_a_setting_changes_the_update_as_in_exact_arithmetic(precision, left_out):
    """On average over all elements, since bf16 rounds each of them."""
    settings = {name: value for name, value in UNUSUAL.items() if name != left_out}
    usual = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
    before, after = updated(precision, **settings)
    exact = in_float64(before, **{**usual, **settings})
    moved = torch.cat([(after[n].double() - w.double()).flatten() for n, w in before.items()])
    wanted = torch.cat([(exact[n] - w.double()).flatten() for n, w in before.items()])
    share = float((moved @ wanted) / (wanted @ wanted))
    error = float((moved - wanted).norm() / wanted.norm())
    assert share == pytest.approx(1, abs=1e-5 if precision == "fp32" else 0.01)
    assert error < (1e-4 if precision == "fp32" else 0.1)


def test_the_noise_of_stochastic_rounding_belongs_to_the_seed():
    (_, first), (_, again), (_, other) = (
        updated("bf16_stochastic", seed=seed) for seed in (1, 1, 2)
    )
    assert all(torch.equal(again[name], weight) for name, weight in first.items())
    assert any(not torch.equal(other[name], weight) for name, weight in first.items())
