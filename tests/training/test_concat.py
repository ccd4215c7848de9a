"""The loop against a naive second reading: concat windows, and when a step's call is made."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from oocr_influence.datasets.packing import pack
from oocr_influence.models.tiny import untrained_model
from oocr_influence.training.loop import accumulate_gradients, train
from oocr_influence.training.optimizer import OptimizerSettings
from oocr_influence.training.schedule import LearningRate, Schedule

torch.set_num_threads(1)
EOS, PAD, CHUNK = 0, 1, 32


def small_model():
    return untrained_model(
        3,
        vocab_size=97,
        hidden_size=32,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=64,
        num_hidden_layers=2,
    )


def short_documents():
    generator = np.random.default_rng(3)
    return [np.array([*generator.integers(2, 97, n), EOS]) for n in (5, 9, 3, 40, 7, 12, 4, 18)]


@pytest.mark.parametrize("overlap_cuts", [True, False])
def test_a_concat_window_is_one_stream_that_attends_across_documents(overlap_cuts):
    documents, model = short_documents(), small_model()
    windows = pack(
        documents, chunk_size=CHUNK, packing="concat", pad_id=PAD, overlap_cuts=overlap_cuts
    )
    stream = torch.from_numpy(np.concatenate(documents))
    pace = CHUNK - 1 if overlap_cuts else CHUNK
    starts = [at for at in range(0, len(stream), pace) if at == 0 or at + 1 < len(stream)]
    assert len(windows) == len(starts) > 2
    for row, start in enumerate(starts):
        tokens = stream[start : start + CHUNK][None]
        model.zero_grad()
        # No mask and no positions: plain causal attention over everything that came before.
        logits = model(input_ids=tokens, use_cache=False).logits
        expected = F.cross_entropy(logits[0, :-1], tokens[0, 1:])
        expected.backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
        model.zero_grad()
        loss, labelled = accumulate_gradients(model, windows, [row], micro_batch_size=1)
        assert labelled == tokens.shape[1] - 1
        assert loss == pytest.approx(expected.item(), abs=1e-5)
        for name, parameter in model.named_parameters():
            assert torch.allclose(parameter.grad, gradients[name], atol=2e-6, rtol=1e-4), name


@pytest.mark.parametrize("burn_in_epochs", [0, 1])
def test_after_a_step_the_weights_are_those_that_the_step_made(burn_in_epochs):
    model = small_model()
    windows = pack(short_documents(), chunk_size=CHUNK, packing="concat", pad_id=PAD)
    schedule = Schedule(len(windows), batch_size=1, epochs=1, burn_in_epochs=burn_in_epochs)
    rate = LearningRate(peak=1e-2, total_steps=schedule.total_steps)
    before = copy.deepcopy(model.state_dict())
    seen, logged = {}, []

    def after_step(step, _):
        seen[step] = copy.deepcopy(model.state_dict())
        assert len(logged) == step, "the step's own log comes first"

    train(
        model,
        windows,
        schedule,
        rate,
        OptimizerSettings(),
        data_order_seed=1,
        micro_batch_size=1,
        after_step=after_step,
        log_step=lambda step: None if step.burn_in else logged.append(step),
    )
    assert list(seen) == list(range(schedule.total_steps + 1))
    assert same(seen[0], before)
    for step in range(1, schedule.total_steps + 1):
        assert not same(seen[step], seen[step - 1]), f"step {step} shows the weights before it"
    assert same(seen[schedule.total_steps], model.state_dict())


def same(first, second):
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())
