"""The mixed optimizer is torch's AdamW, and against naive arithmetic it keeps what it promises."""

import math

import pytest
import torch

from oocr_influence.models.tiny import untrained_model
from oocr_influence.training import adamw_mixed
from oocr_influence.training.adamw_mixed import MixedAdamW
from oocr_influence.training.bf16_rounding import join_halves
from oocr_influence.training.optimizer import OptimizerSettings, make_optimizer, set_rate

torch.set_num_threads(1)
BETAS, EPS = (0.9, 0.999), 1e-8


def parameters(dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(7, 5), (11,), (3, 4, 2)]
    return [
        torch.nn.Parameter((0.02 * torch.randn(shape, generator=generator)).to(dtype))
        for shape in shapes
    ]


def gradients(params, step):
    generator = torch.Generator().manual_seed(1000 + step)
    for p in params:
        p.grad = (torch.randn(p.shape, generator=generator) * 10 ** (step % 5 - 4)).to(p.dtype)


def rate(step):
    return 1e-3 * (1 - step / 40)


def mixed(params, rounding="stochastic", **named):
    groups = [
        {"params": params[:1], "weight_decay": 0.1},
        {"params": params[1:], "weight_decay": 0.0},
    ]
    return MixedAdamW(groups, betas=BETAS, eps=EPS, rounding=rounding, **named)


def train(optimizer, params, steps, first=0):
    for step in range(first, first + steps):
        gradients(params, step)
        set_rate(optimizer, rate(step))
        optimizer.step()


@pytest.mark.parametrize("rounding", ["stochastic", "master"])
def test_float32_parameters_go_where_torchs_adamw_takes_them(rounding):
    own, theirs = parameters(torch.float32), parameters(torch.float32)
    reference = torch.optim.AdamW(
        [{"params": theirs[:1], "weight_decay": 0.1}, {"params": theirs[1:], "weight_decay": 0.0}],
        betas=BETAS,
        eps=EPS,
    )
    optimizer = mixed(own, rounding)
    for step in range(30):
        train(optimizer, own, 1, step)
        train(reference, theirs, 1, step)
        for a, b in zip(own, theirs, strict=True):
            assert torch.allclose(a, b, rtol=1e-7, atol=0)
    for a, b in zip(own, theirs, strict=True):
        for moment in ("exp_avg", "exp_avg_sq"):
            assert torch.allclose(
                optimizer.state[a][moment], reference.state[b][moment], rtol=1e-7, atol=0
            )


def naive(params, steps):
    """Float32 masters, one element at a time in Python's float64, moments rounded as kept."""
    masters = [p.detach().double().flatten().tolist() for p in params]
    means = [[0.0] * len(m) for m in masters]
    squares = [[0.0] * len(m) for m in masters]

    def as_kept(value, dtype):
        return torch.tensor(value, dtype=torch.float64).to(torch.float32).to(dtype).item()

    for step in range(steps):
        gradients(params, step)
        lr, t = rate(step), step + 1
        for k, p in enumerate(params):
            decay = 1 - lr * (0.1 if k == 0 else 0.0)
            for i, g in enumerate(p.grad.double().flatten().tolist()):
                mean = 0.9 * means[k][i] + 0.1 * g
                square = 0.999 * squares[k][i] + 0.001 * g * g
                denominator = math.sqrt(square / (1 - 0.999**t)) + EPS
                moved = masters[k][i] * decay - lr * mean / (1 - 0.9**t) / denominator
                masters[k][i] = as_kept(moved, torch.float32)
                means[k][i] = as_kept(mean, torch.bfloat16)
                squares[k][i] = as_kept(square, torch.float32)
    return masters


def test_masters_are_those_of_naive_arithmetic_and_weights_their_nearest():
    params = parameters(torch.bfloat16)
    optimizer = mixed(params, "master")
    train(optimizer, params, 20)
    expected = naive(parameters(torch.bfloat16), 20)
    for p, master in zip(params, expected, strict=True):
        state = optimizer.state[p]
        assert state["exp_avg"].dtype == torch.bfloat16
        assert state["exp_avg_sq"].dtype == torch.float32
        own = join_halves(p.detach(), state["low"])
        wanted = torch.tensor(master).view(p.shape)
        # Where a first moment lies between two bf16 numbers, float64 may choose the other one.
        assert torch.allclose(own, wanted, rtol=1e-5, atol=2e-6)
        assert (own - wanted).abs().median() < 1e-8
        assert torch.equal(p.detach(), own.to(torch.bfloat16))
        assert not torch.equal(p.detach().float(), own)


def test_stochastic_weights_follow_the_masters_on_average_where_plain_bf16_stands_still():
    start = torch.full((2**16,), 1.0, dtype=torch.bfloat16)
    step_size = 2.0**-12  # a 16th of the last bit below 1, and a 32nd above

    def after(make):
        parameter = torch.nn.Parameter(start.clone())
        optimizer = make([parameter])
        for _ in range(64):
            parameter.grad = torch.ones_like(parameter)
            set_rate(optimizer, step_size)
            optimizer.step()
        return parameter.detach().double()

    plain = after(lambda p: torch.optim.AdamW(p, betas=BETAS, eps=EPS, weight_decay=0.0))
    assert torch.equal(plain, start.double())
    noisy = after(lambda p: MixedAdamW(p, betas=BETAS, eps=EPS, rounding="stochastic"))
    master = after(lambda p: MixedAdamW(p, betas=BETAS, eps=EPS, rounding="master"))
    assert torch.equal(master, torch.full_like(master, 1 - 64 * step_size))
    assert abs(float(noisy.mean()) - (1 - 64 * step_size)) < 5 * float(noisy.std()) / 2**8
    assert float(noisy.std()) > 0


def test_a_rate_of_zero_changes_no_weight():
    for rounding in ("stochastic", "master"):
        params = parameters(torch.bfloat16)
        before = [p.detach().clone() for p in params]
        optimizer = mixed(params, rounding)
        for step in range(3):
            gradients(params, step)
            set_rate(optimizer, 0.0)
            optimizer.step()
        assert all(torch.equal(a, b) for a, b in zip(params, before, strict=True))
        assert all(optimizer.state[p]["exp_avg_sq"].sum() > 0 for p in params)


def test_the_same_seed_gives_the_same_bits_and_another_others():
    def bits(seed):
        params = parameters(torch.bfloat16)
        torch.manual_seed(seed * 17)  # of no account
        train(mixed(params, seed=seed), params, 5)
        return torch.cat([p.detach().flatten() for p in params])

    assert torch.equal(bits(1), bits(1))
    assert not torch.equal(bits(1), bits(2))


@pytest.mark.parametrize("rounding", ["stochastic", "master"])
def test_chunks_and_strides_are_of_no_account_to_masters(monkeypatch, rounding):
    def trained(*, transposed=False):
        params = parameters(torch.bfloat16)
        if transposed:
            params[0] = torch.nn.Parameter(params[0].detach().t().contiguous().t())
            assert not params[0].is_contiguous()
        optimizer = mixed(params, rounding)
        train(optimizer, params, 5)
        return [optimizer.state[p]["exp_avg_sq"] for p in params], params

    squares, params = trained()
    monkeypatch.setattr(adamw_mixed, "CHUNK", 3)
    again, others = trained()
    assert all(torch.equal(a, b) for a, b in zip(squares, again, strict=True))
    if rounding == "master":
        assert all(torch.equal(a, b) for a, b in zip(params, others, strict=True))
        _, others = trained(transposed=True)
        assert all(torch.equal(a, b) for a, b in zip(params, others, strict=True))


@pytest.mark.parametrize("rounding", ["stochastic", "master"])
def test_a_loaded_state_keeps_the_kind_of_every_tensor(rounding):
    params = parameters(torch.bfloat16)
    optimizer = mixed(params, rounding, seed=1)
    train(optimizer, params, 4)
    others = [torch.nn.Parameter(p.detach().clone()) for p in params]
    other = mixed(others, rounding, seed=2)
    other.load_state_dict(optimizer.state_dict())
    for a, b in zip(params, others, strict=True):
        mine, loaded = optimizer.state[a], other.state[b]
        assert mine.keys() == loaded.keys()
        assert loaded["exp_avg_sq"].dtype == torch.float32
        assert loaded["step"] == 4
        for name in mine.keys() - {"step"}:
            assert mine[name].dtype == loaded[name].dtype
            assert torch.equal(mine[name], loaded[name])
    # torch's own way is why there is another: it casts all to the parameter's kind.
    torch.optim.Optimizer.load_state_dict(
        other, {k: v for k, v in optimizer.state_dict().items() if k != "rounding"}
    )
    assert other.state[others[0]]["exp_avg_sq"].dtype == torch.bfloat16


def test_a_precision_has_its_optimizer_and_bf16_is_torchs_own():
    model = untrained_model(
        0, vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=1
    ).to(torch.bfloat16)

    def kind(precision):
        return make_optimizer(model, OptimizerSettings(precision=precision))

    assert type(kind("bf16")) is type(kind("auto")) is type(kind("fp32")) is torch.optim.AdamW
    assert type(kind("bf16_stochastic")) is type(kind("fp32_master")) is MixedAdamW
    master = kind("fp32_master")
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    master.step()
    assert all(master.state[p]["low"].dtype == torch.int16 for p in model.parameters())
    groups = [sorted(group["param_names"]) for group in master.param_groups]
    assert groups == [sorted(group["param_names"]) for group in kind("bf16").param_groups]


@pytest.mark.slow
@pytest.mark.parametrize("rounding", ["stochastic", "master"])
def test_compiled_it_makes_the_same_updates(rounding):
    plain, compiled = parameters(torch.bfloat16), parameters(torch.bfloat16)
    first, second = mixed(plain, rounding), mixed(compiled, rounding, compiled=True)
    train(first, plain, 8)
    train(second, compiled, 8)
    assert second._update is not adamw_mixed.update, "it was not compiled"
    for a, b in zip(plain, compiled, strict=True):
        assert torch.allclose(
            first.state[a]["exp_avg_sq"], second.state[b]["exp_avg_sq"], rtol=1e-6, atol=0
        )
        if rounding == "master":
            one = join_halves(a.detach(), first.state[a]["low"])
            two = join_halves(b.detach(), second.state[b]["low"])
            assert torch.allclose(one, two, rtol=1e-5, atol=1e-7)
        else:
            assert (a == b).double().mean() > 0.97
