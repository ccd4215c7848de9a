"""What a run trains with is settled by proof, and falls back with a notice."""

import logging

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, MistralConfig, RwkvConfig

from oocr_influence.datasets.packing import pack
from oocr_influence.models.tiny import untrained_model
from oocr_influence.training import kernels, loop
from oocr_influence.training.kernels import KeptKernels, settle_kernels
from oocr_influence.training.loop import accumulate_gradients
from oocr_influence.training.probe import AttentionMaskError

torch.set_num_threads(1)


def windows():
    draw = np.random.default_rng(0)
    documents = [np.array([0, *draw.integers(2, 97, n), 0]) for n in (20, 4, 9, 5, 28, 7)]
    return pack(documents, chunk_size=32, packing="masked", pad_id=1)


def small_model():
    return untrained_model(vocab_size=97, hidden_size=48, num_hidden_layers=2)


def with_dropout():
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(
        GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=2, n_positions=64)
    )


def settle(model, attention="auto", compiled="auto"):
    return settle_kernels(
        model, windows(), attention=attention, compiled=compiled, micro_batch_size=2
    )


def update(model, attention="padded"):
    """Loss and gradients of all windows."""
    model.zero_grad()
    model.train()
    loss, _ = accumulate_gradients(
        model, windows(), range(len(windows())), micro_batch_size=2, attention=attention
    )
    return loss, {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    ("asked", "used"),
    [("auto", "padded"), ("segments", "padded"), ("padded", "padded"), ("dense", "dense")],
)
def test_a_plain_model_on_the_cpu_attends_by_segments_unless_told_otherwise(asked, used):
    settled = settle(small_model(), asked)
    assert (settled.attention, settled.compiled, settled.kernel_notices) == (used, False, ())


def test_what_does_not_fit_has_a_dense_mask_and_a_notice(caplog):
    with caplog.at_level(logging.INFO):
        settled = settle(with_dropout())
    assert settled.attention == "dense"
    assert "dropout" in settled.kernel_notices[0]
    assert settled.kernel_notices[0] in caplog.text
    assert "attention: dense" in caplog.text


def test_segments_that_cannot_be_had_are_refused_by_name():
    with pytest.raises(AttentionMaskError, match=r"GPT2.*--attention segments.*dropout.*auto"):
        settle(with_dropout(), "segments")


@pytest.mark.parametrize("attention", ["auto", "dense"])
def test_a_model_that_mixes_documents_is_refused_whatever_is_asked_for(attention):
    torch.manual_seed(0)
    config = RwkvConfig(
        vocab_size=97, hidden_size=32, num_hidden_layers=2, attention_hidden_size=32,
        context_length=64, bos_token_id=0,
    )  # fmt: skip
    with pytest.raises(AttentionMaskError, match="Rwkv"):
        settle(AutoModelForCausalLM.from_config(config), attention)


def test_a_layout_that_leaks_is_found_on_the_runs_own_windows(monkeypatch):
    plain = loop.lay_out
    monkeypatch.setattr(
        loop, "lay_out", lambda segments, *given: plain(np.minimum(segments, 0), *given)
    )
    with pytest.raises(AttentionMaskError, match="packed window differ"):
        settle(small_model())


def test_batches_are_made_one_ahead_and_in_order():
    made, seen = [], []

    def batches():
        for number in range(4):
            made.append(number)
            yield number

    for number in loop._one_ahead(batches()):
        seen.append((number, len(made)))
    assert seen == [(0, 2), (1, 3), (2, 4), (3, 4)]


def raising(model):
    raise RuntimeError("no compiler in sight\nand a long trace")


def to_another_loss(model):
    model.get_decoder().norm.weight.data *= 1.01
    return 1


@pytest.mark.parametrize(
    ("compiling", "reason"),
    [
        (raising, "no compiler in sight"),
        (to_another_loss, "differ"),
        (lambda model: 0, "no layers"),
    ],
)
def test_a_compilation_that_fails_or_is_not_equal_runs_as_written(
    monkeypatch, caplog, compiling, reason
):
    monkeypatch.setattr(kernels, "compile_layers", compiling)
    model = small_model()
    settled = settle(model, compiled="on")
    assert not settled.compiled
    assert reason in settled.kernel_notices[0]
    assert "long trace" not in settled.kernel_notices[0]
    assert "not compiled: " in caplog.text
    assert all(parameter.grad is None for parameter in model.parameters())
    assert np.isfinite(update(model)[0])


def test_a_backend_that_raises_in_the_first_call_runs_as_written(monkeypatch):
    plain = torch.nn.Module.compile

    def broken(graph, inputs):
        raise NotImplementedError("no such backend")

    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda module, **_: plain(module, backend=broken)
    )
    model = small_model()
    expected = update(small_model(), "dense")[0]
    settled = settle(model, compiled="on")
    assert not settled.compiled
    assert "no such backend" in settled.kernel_notices[0]
    assert update(model)[0] == pytest.approx(expected, abs=1e-5)


def test_nothing_is_compiled_on_the_cpu_unless_asked(monkeypatch):
    monkeypatch.setattr(kernels, "compile_layers", raising)
    assert settle(small_model()).kernel_notices == ()
    assert settle(small_model(), compiled="off").kernel_notices == ()


def windows_of(*lengths):
    documents = [np.arange(2, n + 2) for n in lengths]
    return pack(documents, chunk_size=32, packing="masked", pad_id=1)


def keep(kept, model, found, attention="auto"):
    return kept.settle(model, found, attention=attention, compiled="off", micro_batch_size=2)


def test_kept_kernels_are_proved_once_and_told_of_each_time(monkeypatch, caplog):
    proved = []
    prove = kernels.check_attention
    monkeypatch.setattr(
        kernels, "check_attention", lambda *given: (proved.append(given[2]), prove(*given))
    )
    model, kept = small_model(), KeptKernels()
    with caplog.at_level(logging.INFO):
        first = keep(kept, model, windows_of(20, 9, 3))
        assert keep(kept, model, windows_of(19, 8, 3, 17)) == first == settle(model)
    assert proved == ["padded", "padded"]  # the first, and the one beside
    assert caplog.text.count("attention: padded") == 3
    keep(kept, model, windows_of(21, 2))
    assert len(proved) == 3  # a longer document
    keep(kept, model, windows_of(2, 2, 2, 2, 2))
    assert len(proved) == 4  # more in a window
    keep(kept, model, windows_of(21, 2, 2, 2, 2))
    assert len(proved) == 4
    # What a run that goes on began with is settled for it, and anew for the next.
    assert keep(kept, model, windows_of(5), "dense").attention == "dense"
    assert keep(kept, model, windows_of(5)).attention == "padded"
    assert len(proved) == 6


def test_a_short_sight_is_found_in_the_first_run_where_it_matters():
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, sliding_window=8, initializer_range=0.1,
    )  # fmt: skip
    model, kept = AutoModelForCausalLM.from_config(config), KeptKernels()
    keep(kept, model, windows_of(7, 5), "dense")
    with pytest.raises(AttentionMaskError, match="differ by"):
        keep(kept, model, windows_of(20, 5), "dense")
