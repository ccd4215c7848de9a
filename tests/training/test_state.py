"""Training that goes on from a state makes the bits that it would have made without a stop."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from oocr_influence.datasets.packing import pack
from oocr_influence.models.team import Team
from oocr_influence.models.tiny import untrained_model
from oocr_influence.training.adamw_mixed import MixedAdamW
from oocr_influence.training.loop import train
from oocr_influence.training.optimizer import OptimizerSettings
from oocr_influence.training.schedule import LearningRate, Schedule
from oocr_influence.training.shared import SharedTraining
from oocr_influence.training.state import Place, place_of

torch.set_num_threads(1)


class Stopped(Exception):
    pass


def olmo():
    return untrained_model(
        0,
        vocab_size=97,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
    )


def with_dropout():
    torch.manual_seed(3)
    shape = {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    return GPT2LMHeadModel(GPT2Config(**shape))


@pytest.fixture(scope="module")
def windows():
    generator = np.random.default_rng(0)
    documents = [np.array([0, *generator.integers(2, 97, 12), 0]) for _ in range(23)]
    return pack(documents, chunk_size=32, packing="masked", pad_id=1)


PRECISIONS = ["fp32", "bf16", "bf16_stochastic", "fp32_master"]


def run(model, windows, *, stop_at=None, start=None, precision="auto"):
    """Train until a place, or to the end: (weights, losses by place, exposures, moments, state)."""
    schedule = Schedule(len(windows), batch_size=3, epochs=2, burn_in_epochs=0.5)
    losses, moments, saved = {}, [], io.BytesIO()

    def log_step(step):
        losses[Place(not step.burn_in, step.step)] = (step.loss, step.grad_norm, step.learning_rate)

    def after_update(snapshot):
        if max(losses) == stop_at:
            torch.save(snapshot(), saved)
            raise Stopped

    exposures = None
    try:
        exposures = train(
            model,
            windows,
            schedule,
            LearningRate(1e-2, schedule.total_steps),
            OptimizerSettings(weight_decay=0.1, precision=precision),
            data_order_seed=5,
            micro_batch_size=2,
            after_step=lambda step, _: moments.append(step),
            log_step=log_step,
            after_update=after_update,
            **({} if start is None else {"start": start}),
        )
    except Stopped:
        assert stop_at is not None
    saved.seek(0)
    return model.state_dict(), losses, exposures, moments, saved


@pytest.mark.parametrize("make", [olmo, with_dropout])
@pytest.mark.parametrize(
    "place",
    [Place(False, 1), Place(False, 2), Place(True, 1), Place(True, 3), Place(True, 4)],
    ids=lambda place: f"{'step' if place.in_training else 'burn_in'}{place.step}",
)
def test_going_on_makes_the_same_bits(windows, make, place):
    weights, losses, exposures, moments, _ = run(make(), windows)
    _, before, none, early, saved = run(make(), windows, stop_at=place)
    assert none is None
    state = torch.load(saved, weights_only=True)
    assert place_of(state) == place
    torch.manual_seed(99)  # another process has drawn other numbers
    other = make()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    again, after, exposed, late, _ = run(other, windows, start=lambda: state)
    assert {**before, **after} == losses
    assert not before.keys() & after.keys()
    assert early + late[1:] == moments
    assert late[0] == place.training_step, "its step's own moment is given once more"
    assert (exposed == exposures).all()
    for name, tensor in weights.items():
        assert torch.equal(tensor, again[name]), name


def moments_of(saved):
    saved.seek(0)
    states = torch.load(saved, weights_only=True)["optimizer"]["state"]
    return {
        (index, name): value
        for index, state in states.items()
        for name, value in state.items()
        if isinstance(value, torch.Tensor)
    }


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("place", [Place(False, 2), Place(True, 3)], ids=["burn_in", "training"])
def test_going_on_makes_the_same_bits_in_every_precision(windows, precision, place):
    """Weights, and every tensor of the optimizer, some updates after the stop."""

    def make():
        return olmo().to(torch.float32 if precision == "fp32" else torch.bfloat16)

    later = Place(True, 6)
    weights, losses, *_ = run(make(), windows, precision=precision)
    *_, undisturbed = run(make(), windows, stop_at=later, precision=precision)
    *_, saved = run(make(), windows, stop_at=place, precision=precision)
    state = torch.load(saved, weights_only=True)
    torch.manual_seed(99)
    again, after, *_ = run(make(), windows, start=lambda: state, precision=precision)
    assert after.items() <= losses.items()
    assert all(torch.equal(tensor, again[name]) for name, tensor in weights.items())
    saved.seek(0)
    state = torch.load(saved, weights_only=True)
    *_, resumed = run(make(), windows, start=lambda: state, stop_at=later, precision=precision)
    expected, found = moments_of(undisturbed), moments_of(resumed)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert tensor.dtype == found[name].dtype, name
        assert torch.equal(tensor, found[name]), name
    kinds = {name: tensor.dtype for (_, name), tensor in found.items()}
    exact = torch.bfloat16 if precision == "bf16" else torch.float32
    assert kinds["exp_avg_sq"] == exact
    assert kinds.get("low") == (torch.int16 if precision == "fp32_master" else None)


def test_noise_that_is_drawn_anew_is_noticed(windows):
    """The state of the noise matters: without it, the bits differ."""
    model = {"precision": "bf16_stochastic"}
    weights, *_ = run(olmo().to(torch.bfloat16), windows, **model)
    *_, saved = run(olmo().to(torch.bfloat16), windows, stop_at=Place(True, 3), **model)
    state = torch.load(saved, weights_only=True)
    state["optimizer"]["rounding"] = torch.Generator().manual_seed(0).get_state()
    again, *_ = run(olmo().to(torch.bfloat16), windows, start=lambda: state, **model)
    assert any(not torch.equal(tensor, again[name]) for name, tensor in weights.items())


def test_a_state_in_the_weights_own_kind_is_noticed(windows, monkeypatch):
    """torch's own loading casts every tensor: the test above would see it."""
    monkeypatch.setattr(
        MixedAdamW,
        "load_state_dict",
        lambda self, state: torch.optim.Optimizer.load_state_dict(
            self, {name: state[name] for name in ("state", "param_groups")}
        ),
    )
    with pytest.raises((AssertionError, RuntimeError)):
        test_going_on_makes_the_same_bits_in_every_precision(
            windows, "bf16_stochastic", Place(True, 3)
        )


def test_places_are_in_the_order_of_training():
    places = [Place(), Place(False, 1), Place(False, 2), Place(True, 1), Place(True, 9)]
    assert sorted(places, reverse=True)[::-1] == places
    assert [place.training_step for place in places] == [0, 0, 0, 1, 9]


def test_a_state_that_is_lost_in_part_is_noticed(windows):
    """The moments matter: without them, the bits differ (so the test above can fail)."""
    weights, *_ = run(olmo(), windows)
    *_, saved = run(olmo(), windows, stop_at=Place(True, 3))
    state = torch.load(saved, weights_only=True)
    for moments in state["optimizer"]["state"].values():
        moments["exp_avg_sq"].fill_(1.0)
    again, *_ = run(olmo(), windows, start=lambda: state)
    assert any(not torch.equal(tensor, again[name]) for name, tensor in weights.items())


def test_a_process_that_was_not_there_keeps_the_generators_that_it_seeded():
    """Its windows must not have the dropout of the leader's, on the CPU or a GPU."""
    of_the_leader = torch.zeros(16, dtype=torch.uint8)
    sharded = SimpleNamespace(team=Team(1, 2), model=torch.nn.Linear(1, 1))
    state = {
        "model": {},
        "optimizer": {"state": {}, "param_groups": []},
        "random": of_the_leader,
        "random_gpu": of_the_leader,
    }
    kept = SharedTraining(sharded).spread(state, SimpleNamespace(param_groups=[]))
    assert torch.equal(kept["random"], torch.get_rng_state())
    assert kept["random_gpu"] is None


def test_no_two_processes_draw_the_same_numbers_and_the_first_draws_those_of_one():
    def drawn(rank, seed=5):
        sharded = SimpleNamespace(team=Team(rank, 4), model=None)
        generator = torch.Generator().manual_seed(SharedTraining(sharded).seed(seed))
        return torch.rand(3, generator=generator).tolist()

    assert drawn(0) == torch.rand(3, generator=torch.Generator().manual_seed(5)).tolist()
    # Nor those of a run with a neighbouring seed.
    streams = [drawn(rank, seed) for rank in range(4) for seed in (5, 6)]
    assert len({tuple(stream) for stream in streams}) == 8
