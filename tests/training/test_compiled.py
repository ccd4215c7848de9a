"""Compiled layers change no number that matters: losses, gradients, evaluations, checkpoints."""

import shutil

import pytest
import torch
from torch._dynamo.utils import counters

from oocr_influence.datasets.packing import pack
from oocr_influence.evaluation.scores import evaluation_mode
from oocr_influence.models.load import recompute_activations
from oocr_influence.models.loss import window_loss
from oocr_influence.models.tiny import untrained_model
from oocr_influence.training.kernels import KeptKernels, settle_kernels
from oocr_influence.training.loop import accumulate_gradients, to_device

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler"),
]
torch.set_num_threads(1)


def windows():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, 40, (40,), generator=generator).tolist()
    documents = [torch.randint(2, 97, (n,), generator=generator).numpy() for n in lengths]
    return pack(documents, chunk_size=64, packing="masked", pad_id=1)


def small_model():
    return untrained_model(
        vocab_size=97, hidden_size=48, num_hidden_layers=3, initializer_range=0.1
    )


def update(model, attention, micro_batch_size=2):
    model.zero_grad()
    model.train()
    loss, _ = accumulate_gradients(
        model,
        windows(),
        range(len(windows())),
        micro_batch_size=micro_batch_size,
        attention=attention,
    )
    return loss, {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("attention", ["segments", "dense"])
@pytest.mark.parametrize("recomputed", [False, True])
def test_losses_and_gradients_are_those_of_the_layers_as_written(attention, recomputed):
    loss, expected = update(small_model(), "dense")
    model = small_model()
    if recomputed:
        recompute_activations(model)
    counters.clear()
    settled = settle_kernels(
        model, windows(), attention=attention, compiled="on", micro_batch_size=2
    )
    assert settled.compiled, settled.kernel_notices
    found_loss, found = update(model, settled.attention)
    assert found_loss == pytest.approx(loss, abs=1e-5)
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-5, rtol=1e-4), name
    assert model.state_dict().keys() == small_model().state_dict().keys()


def test_an_evaluation_runs_and_compiles_nothing():
    batch = to_device(windows(), [0, 1], torch.device("cpu"))
    plain = small_model()
    with evaluation_mode(plain):
        expected = window_loss(plain, batch)[1]
    model = small_model()
    settled = settle_kernels(model, windows(), attention="auto", compiled="on", micro_batch_size=2)
    assert settled.compiled, settled.kernel_notices
    counters.clear()
    with evaluation_mode(model):
        # Another width and no gradient: each would be a shape of its own.
        odd = to_device(windows(), [len(windows()) - 1], torch.device("cpu"))
        window_loss(model, odd)
        found = window_loss(model, batch)[1]
    assert torch.equal(found, expected)
    assert not counters["stats"]
    update(model, settled.attention)
    assert counters["stats"]["unique_graphs"] == 0


def test_lengths_and_layouts_do_not_make_new_graphs_without_end():
    model = small_model()
    settled = settle_kernels(model, windows(), attention="auto", compiled="on", micro_batch_size=2)
    update(model, settled.attention)
    update(model, settled.attention, micro_batch_size=1)
    counters.clear()
    for micro_batch_size in (3, 4, 5):
        update(model, settled.attention, micro_batch_size)
    assert counters["stats"]["unique_graphs"] == 0


def test_kept_compiled_layers_give_the_bits_of_fresh_ones():
    """A second run of a process: the weights are put back, the layers stay compiled."""
    torch._dynamo.reset()  # of what other tests compiled
    kept, model = KeptKernels(), small_model()
    untouched = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found, graphs = [], []
    for _ in range(2):
        counters.clear()
        asked = {"attention": "auto", "compiled": "on", "micro_batch_size": 2}
        settled = kept.settle(model, windows(), **asked)
        assert settled.compiled, settled.kernel_notices
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        losses = []
        for _ in range(3):
            losses.append(update(model, settled.attention)[0])
            optimizer.step()
        found.append((losses, {name: t.clone() for name, t in model.state_dict().items()}))
        graphs.append(counters["stats"]["unique_graphs"])
        model.load_state_dict(untouched)
    assert graphs[0] > 0 == graphs[1]
    (first, one), (second, other) = found
    assert first == second
    assert first[0] != first[2]
    assert all(torch.equal(one[name], other[name]) for name in one)
