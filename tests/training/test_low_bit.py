"""torchao's optimizers in our loop; each compiles its kernel, which takes a minute."""

import io

import numpy as np
import pytest
import torch

from oocr_influence.datasets.packing import pack
from oocr_influence.models.tiny import untrained_model
from oocr_influence.training.loop import train
from oocr_influence.training.low_bit import MOMENT_BYTES
from oocr_influence.training.optimizer import OptimizerSettings
from oocr_influence.training.schedule import LearningRate, Schedule

torch.set_num_threads(1)
pytest.importorskip("torchao.optim", reason="pip install torchao")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


class Stopped(Exception):
    pass


def run(kind, *, precision="fp32", stop_at=None, start=None):
    """(weights, losses, state at the stop) of a tiny model's six updates."""
    generator = np.random.default_rng(0)
    documents = [np.array([0, *generator.integers(2, 97, 12), 0]) for _ in range(24)]
    windows = pack(documents, chunk_size=32, packing="masked", pad_id=1)
    model = untrained_model(
        0,
        vocab_size=256,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
    ).to(torch.float32 if precision == "fp32" else torch.bfloat16)
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
            OptimizerSettings(kind=kind, precision=precision, weight_decay=0.1),
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
    return model.state_dict(), steps, saved


@pytest.mark.parametrize("kind", ["adamw8bit", "adamw4bit"])
def test_it_trains_like_adamw_goes_on_and_keeps_few_bytes(kind):
    weights, steps, _ = run(kind)
    plain, plain_steps, _ = run("adamw")
    for one, other in zip(steps, plain_steps, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=2e-2)
    assert any(not torch.equal(weights[name], plain[name]) for name in plain)
    assert steps[3].losses_of_update.weight_updates_vanished < 0.05
    *_, saved = run(kind, stop_at=3)
    state = torch.load(saved, weights_only=True)
    again, late, _ = run(kind, start=lambda: state)
    assert [step.loss for step in late] == [step.loss for step in steps[3:]]
    assert all(torch.equal(tensor, again[name]) for name, tensor in weights.items())
    moments = [
        (tensor, sum(getattr(tensor, part).nbytes for part in ("codes", "scale")))
        for one in state["optimizer"]["state"].values()
        for tensor in one.values()
        if hasattr(tensor, "codes")
    ]
    taken = sum(n for _, n in moments) / sum(tensor.numel() for tensor, _ in moments)
    assert taken == pytest.approx(MOMENT_BYTES[kind] / 2, rel=1e-3)


def test_stochastic_rounding_is_seeded_by_the_run():
    first, second = (run("adamw8bit", precision="bf16_stochastic") for _ in range(2))
    assert all(torch.equal(tensor, second[0][name]) for name, tensor in first[0].items())
    nearest, _, _ = run("adamw8bit", precision="bf16")
    assert any(not torch.equal(tensor, nearest[name]) for name, tensor in first[0].items())
