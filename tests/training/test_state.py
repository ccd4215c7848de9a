"""Training that goes on from a state makes the bits that it would have made without a stop."""

import io

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from oocr_influence.datasets.packing import pack
from oocr_influence.models.tiny import untrained_model
from oocr_influence.training.loop import train
from oocr_influence.training.optimizer import OptimizerSettings
from oocr_influence.training.schedule import LearningRate, Schedule
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


def run(model, windows, *, stop_at=None, start=None):
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
            OptimizerSettings(weight_decay=0.1),
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
