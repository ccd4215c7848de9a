"""Precision and determinism on a GPU: `make gpu` on a machine that has one."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from oocr_influence.cli import device_memory
from oocr_influence.datasets.packing import pack
from oocr_influence.models.load import weights_digest
from oocr_influence.models.tiny import untrained_model
from oocr_influence.training import adamw_mixed
from oocr_influence.training.adamw_mixed import MixedAdamW
from oocr_influence.training.bf16_rounding import join_halves
from oocr_influence.training.clipping import scale_down, total_norm
from oocr_influence.training.loop import train
from oocr_influence.training.optimizer import OptimizerSettings
from oocr_influence.training.schedule import LearningRate, Schedule

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
PRECISIONS = ["bf16", "bf16_stochastic", "fp32_master"]


class Stopped(Exception):
    pass


def run(precision, *, stop_at=None, start=None):
    """(digest of the weights, losses, state at the stop) after a few updates."""
    generator = np.random.default_rng(0)
    documents = [np.array([0, *generator.integers(2, 97, 12), 0]) for _ in range(24)]
    windows = pack(documents, chunk_size=32, packing="masked", pad_id=1)
    model = untrained_model(0, vocab_size=97).to("cuda", torch.bfloat16)
    schedule = Schedule(len(windows), batch_size=2, epochs=1)
    steps, saved = [], io.BytesIO()

    def after_update(snapshot):
        if steps[-1].step == stop_at:
            torch.save(snapshot(), saved)
            raise Stopped

    try:
        train(
            model,
            windows,
            schedule,
            LearningRate(1e-3, schedule.total_steps),
            OptimizerSettings(precision=precision, weight_decay=0.1),
            data_order_seed=5,
            micro_batch_size=2,
            after_step=lambda step, _: None,
            log_step=steps.append,
            after_update=after_update,
            measured_steps={4},
            start=start or (lambda: None),
        )
    except Stopped:
        saved.seek(0)
    return weights_digest(model), steps, saved


def in_a_process(call):
    """What `call` gives in a fresh process with deterministic kernels."""
    code = (
        "import importlib.util, json, pathlib\n"
        "from oocr_influence.training.determinism import deterministic_algorithms\n"
        f"spec = importlib.util.spec_from_file_location('tests', {__file__!r})\n"
        "tests = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(tests)\n"
        "with deterministic_algorithms(True):\n"
        f"    print(json.dumps(tests.{call}))\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "CUBLAS_WORKSPACE_CONFIG"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def going_on(precision):
    """Digests of a run and of one that was stopped, and whether their losses are the same."""
    whole, steps, _ = run(precision)
    *_, saved = run(precision, stop_at=3)
    again, late, _ = run(precision, start=lambda: torch.load(saved, weights_only=True))
    assert [step.loss for step in late] == [step.loss for step in steps[3:]]
    return whole, again


@pytest.mark.parametrize("precision", PRECISIONS)
def test_two_processes_and_a_stop_give_the_same_bits_with_deterministic_kernels(precision):
    (whole, again), second = (in_a_process(f"going_on({precision!r})") for _ in range(2))
    assert whole == again
    assert second == [whole, again]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_rounding_takes_is_measured(precision):
    _, steps, _ = run(precision)
    losses = steps[3].losses_of_update
    assert (losses.second_moments_stuck > 0.9) == (precision == "bf16")
    if precision != "bf16":
        assert losses.update_realised == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("rounding", ["stochastic", "master"])
def test_the_compiled_kernel_makes_the_updates_of_the_cpu(rounding):
    """With the same gradients; masters and moments to float32's last bits, weights on average."""
    generator = torch.Generator().manual_seed(0)
    start = (0.02 * torch.randn(300, 1000, generator=generator)).to(torch.bfloat16)
    found = {}
    for device in ("cpu", "cuda"):
        parameter = torch.nn.Parameter(start.clone().to(device))
        optimizer = MixedAdamW(
            [parameter], betas=(0.9, 0.999), eps=1e-8, rounding=rounding, lr=1e-4, weight_decay=0.1
        )
        for step in range(5):
            draw = torch.Generator().manual_seed(step)
            gradient = 1e-3 * torch.randn(start.shape, generator=draw)
            parameter.grad = gradient.to(torch.bfloat16).to(device)
            optimizer.step()
        state = {
            name: value.cpu() if isinstance(value, torch.Tensor) else value
            for name, value in optimizer.state[parameter].items()
        }
        found[device] = parameter.detach().cpu(), state
        if device == "cuda":
            assert optimizer._update is not adamw_mixed.update, "it was not compiled"
    (weight, state), (other, others) = found["cpu"], found["cuda"]
    assert torch.allclose(state["exp_avg_sq"], others["exp_avg_sq"], rtol=1e-5, atol=0)
    if rounding == "master":
        one, two = join_halves(weight, state["low"]), join_halves(other, others["low"])
        assert (one - two).abs().max() < 2e-6  # first moments may differ by a bf16 bit
        assert (one - two).abs().mean() < 1e-8
    else:
        moved = [(w.double() - start.double()).mean() for w in (weight, other)]
        assert abs(moved[0] - moved[1]) < 5 * float((weight - other).double().std()) / 300_000**0.5


def test_the_drivers_memory_is_that_of_torch():
    total = torch.cuda.get_device_properties(0).total_memory
    assert device_memory.gpu_memory() == pytest.approx(total, rel=0.03)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_gradients_are_multiplied_by_the_very_factor_that_is_logged(dtype):
    generator = torch.Generator("cuda").manual_seed(0)
    draw = {"device": "cuda", "generator": generator}
    gradients = [torch.randn(s, **draw).to(dtype) for s in ((400, 300), (7,), (64, 33))]
    before = [g.clone() for g in gradients]
    norm = total_norm(gradients)
    exact = torch.cat([g.double().flatten() for g in before]).norm()
    assert norm.dtype == torch.float32
    assert float(norm) == pytest.approx(float(exact), rel=1e-5)
    factor = scale_down(gradients, norm, 0.37)
    assert factor == pytest.approx(0.37 / float(norm), rel=1e-5)
    for gradient, old in zip(gradients, before, strict=True):
        assert torch.equal(gradient, (old.float() * factor).to(dtype))
