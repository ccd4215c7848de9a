"""Trials of micro-batches stop before the memory does."""

import pytest
import torch

from oocr_influence.datasets.packing import pack, tokenize_documents
from oocr_influence.models.load import weights_digest
from oocr_influence.models.tiny import tiny_tokenizer, untrained_model
from oocr_influence.training.micro_batches import (
    Trial,
    largest_that_fits,
    predicted_bytes,
    sizes_up_to,
    try_sizes,
)
from oocr_influence.training.optimizer import OptimizerSettings

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def test_sizes():
    assert sizes_up_to(8) == [1, 2, 4, 8]
    assert sizes_up_to(6) == [1, 2, 4, 6]
    assert sizes_up_to(1) == [1]
    assert sizes_up_to(3) == [1, 2, 3]


def test_prediction_is_a_line():
    trials = [Trial(1, 110, 0.0), Trial(2, 120, 0.0)]
    assert predicted_bytes(trials, 4) == 140
    assert predicted_bytes(trials[:1], 2) == 220
    # A peak that fell, as an allocator's may, says nothing of a slope below zero.
    assert predicted_bytes([Trial(1, 120, 0.0), Trial(2, 110, 0.0)], 4) == 110


def test_the_largest_that_fits():
    trials = [Trial(1, 110, 0.0), Trial(2, 120, 0.0), Trial(4, 145, 0.0)]
    assert largest_that_fits(trials, 150) == 4
    assert largest_that_fits(trials, 140) == 2
    assert largest_that_fits(trials, 100) is None
    assert largest_that_fits([], 100) is None


class Memory:
    """Stands for a device: so much for the weights, so much more for each window."""

    def __init__(self, *, room=None):
        self.windows, self.room, self.tried = 0, room, []

    def hook(self, model, args, named):
        self.windows = max(self.windows, len(named["input_ids"]))

    def measure(self, update):
        self.windows = 0
        update()
        self.tried.append(self.windows)
        if self.room is not None and self.windows > self.room:
            raise torch.OutOfMemoryError("no room")
        return 100 + 10 * self.windows


@pytest.mark.parametrize(
    ("limit", "tried", "chosen"),
    [(1e9, [1, 2, 4, 6], 6), (145, [1], 1), (239, [1, 2, 4, 6], 6), (220, [1, 2, 4, 6], 6)],
)
def test_sizes_are_tried_while_they_are_predicted_to_fit(limit, tried, chosen):
    memory, trials, before, after = tried_with(limit)
    assert memory.tried == tried
    assert largest_that_fits(trials, limit) == chosen
    assert after == before, "a trial leaves the weights as they were"


def test_a_gpu_without_room_ends_the_trials():
    memory, trials, _, _ = tried_with(1e9, room=3)
    assert memory.tried == [1, 2, 4]
    assert [trial.size for trial in trials] == [1, 2]


def tried_with(limit, **device):
    tokenizer = tiny_tokenizer()
    texts = [f"A stone of number {n} is a stone. " * 4 for n in range(5)]
    tokens = tokenize_documents(texts, tokenizer, "masked")
    windows = pack(tokens, chunk_size=32, packing="masked", pad_id=1)
    model = untrained_model(0, **SMALL)
    memory = Memory(**device)
    model.get_decoder().register_forward_pre_hook(memory.hook, with_kwargs=True)
    before = weights_digest(model)
    settings = OptimizerSettings(weight_decay=0.1)
    trials = try_sizes(
        model, windows, settings, batch_size=6, limit_bytes=limit, measure=memory.measure
    )
    assert all(parameter.grad is None for parameter in model.parameters())
    return memory, trials, before, weights_digest(model)
