"""Attention by segments is the dense mask's, in values and gradients, and falls back where not."""

import json
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    RwkvConfig,
)

from oocr_influence.datasets.packing import pack
from oocr_influence.evaluation.scores import evaluation_mode
from oocr_influence.models import attention_probe, packed_attention
from oocr_influence.models.attention_probe import refuse_packed
from oocr_influence.models.load import recompute_activations
from oocr_influence.models.loss import attention_mask
from oocr_influence.models.packed_attention import NAME, lay_out, within_segments
from oocr_influence.models.tiny import untrained_model
from oocr_influence.training.loop import accumulate_gradients

torch.set_num_threads(1)
CPU = torch.device("cpu")
SMALL = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "bos_token_id": 0}
HEADS = {"intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
GPT2 = {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
NO_DROPOUT = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}


def model_of(config, seed=0):
    """Random weights, large enough for attention to matter."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model


def random_segments(seed):
    """(B, T) segments: documents of any length, padding at some ends."""
    draw = np.random.default_rng(seed)
    B, T = int(draw.integers(1, 4)), int(draw.integers(2, 300))
    segments = np.full((B, T), -1)
    for row in segments:
        at, number, end = 0, 0, T - int(draw.integers(0, 2) * draw.integers(0, T - 1))
        longest = int(draw.choice([1, 3, 40, T]))
        while at < end:
            length = min(end - at, int(draw.integers(1, longest + 1)))
            row[at : at + length] = number
            at, number = at + length, number + 1
    return segments


LAYOUTS = {
    "one document": np.zeros((2, 37), dtype=np.int64),
    "documents of one token": np.tile(np.arange(33), (2, 1)),
    "one document, then padding": np.repeat([[0, -1], [0, 0]], 40, axis=1),
    "padding alone in a row's end": np.array([[0, 0, 1, 1, 1, 2], [0, -1, -1, -1, -1, -1]]),
    **{f"drawn {seed}": random_segments(seed) for seed in range(12)},
}


def dense(query, key, value, segments, scaling):
    """The reference: all pairs, masked."""
    shared = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(shared, dim=1) for x in (key, value))
    mask = attention_mask(torch.from_numpy(segments))
    return F.scaled_dot_product_attention(query, key, value, mask, scale=scaling).transpose(1, 2)


def differences(segments, kv_heads=2, layout=None):
    B, T = segments.shape
    generator = torch.Generator().manual_seed(1)
    drawn = [torch.randn(B, T, n, 8, generator=generator) for n in (4, kv_heads, kv_heads)]
    real = torch.from_numpy(segments) >= 0
    upstream = torch.randn(B, T, 4, 8, generator=generator) * real[:, :, None, None]
    found = []
    for way in (
        lambda *given: dense(*given, segments, 0.3),
        lambda *given: within_segments(*given, layout or lay_out(segments, "padded", CPU), 0.3),
    ):
        given = [x.clone().requires_grad_() for x in drawn]
        out = way(*(x.transpose(1, 2) for x in given))
        assert out.isfinite().all()
        found.append([out[real], *torch.autograd.grad(out, given, upstream)])
    return [(a - b).abs().max().item() for a, b in zip(*found, strict=True)]


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("name", LAYOUTS)
def test_values_and_gradients_are_those_of_the_dense_mask(name, kv_heads):
    assert max(differences(LAYOUTS[name], kv_heads)) < 1e-5


def test_the_comparison_can_fail():
    segments = LAYOUTS["drawn 1"].copy()
    assert len(np.unique(segments)) > 3
    leaking = lay_out(np.where(segments >= 1, 1, segments), "padded", CPU)
    assert min(differences(segments, layout=leaking)) > 1e-2


def test_little_is_computed_beside_the_documents():
    draw = np.random.default_rng(0)
    documents = [np.zeros(int(n), dtype=np.int64) for n in draw.integers(60, 160, 200)]
    windows = pack(documents, chunk_size=2048, packing="masked", pad_id=1)
    layout = lay_out(windows.segments[:4], "padded", CPU)
    pairs = sum(group.shape[0] * group.shape[1] ** 2 for group in layout.groups_SL)
    own = sum((p.end - p.start) ** 2 for p in windows.pieces if p.window < 4)
    assert own <= pairs < 1.6 * own
    assert pairs < 0.1 * 4 * 2048**2


def test_a_segment_in_two_pieces_is_a_programmers_fault():
    with pytest.raises(AssertionError, match="pieces"):
        lay_out(np.array([[0, 1, 0]]), "padded", CPU)


def windows_of(packing="masked"):
    draw = np.random.default_rng(0)
    documents = [np.array([0, *draw.integers(2, 97, n), 0]) for n in (20, 4, 9, 5, 28, 7, 1, 50)]
    return pack(documents, chunk_size=64, packing=packing, pad_id=1)


def losses_and_gradients(model, windows, attention, micro_batch_size=2):
    model.zero_grad()
    model.train()
    rows = range(len(windows))
    loss, _ = accumulate_gradients(
        model, windows, rows, micro_batch_size=micro_batch_size, attention=attention
    )
    return loss, {name: p.grad.clone() for name, p in model.named_parameters()}


FIT = {
    "olmo2": lambda: untrained_model(vocab_size=97, initializer_range=0.1),
    "llama, grouped heads": lambda: model_of(LlamaConfig(**SMALL, **HEADS)),
    "qwen2, grouped heads": lambda: model_of(Qwen2Config(**SMALL, **HEADS)),
    "gpt2 without dropout": lambda: model_of(GPT2Config(**GPT2, **NO_DROPOUT)),
}


@pytest.mark.parametrize("packing", ["masked", "concat", "separate"])
@pytest.mark.parametrize("family", FIT)
def test_losses_and_gradients_of_models_are_those_of_the_dense_mask(family, packing):
    model, windows = FIT[family](), windows_of(packing)
    loss, expected = losses_and_gradients(model, windows, "dense")
    assert refuse_packed(model, "padded") is None
    found_loss, found = losses_and_gradients(model, windows, "padded")
    assert found_loss == pytest.approx(loss, abs=1e-5)
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-5, rtol=1e-4), name


def test_recomputed_activations_attend_within_segments_too():
    model, windows = FIT["olmo2"](), windows_of()
    assert refuse_packed(model, "padded") is None
    loss, expected = losses_and_gradients(model, windows, "padded")
    recompute_activations(model)
    again, found = losses_and_gradients(model, windows, "padded")
    assert again == loss
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-6), name


UNFIT = {
    "a sliding window": (MistralConfig(**SMALL, **HEADS, sliding_window=16), "sliding_window"),
    "dropout": (GPT2Config(**GPT2), "dropout"),
    "a cap": (Gemma2Config(**SMALL, **HEADS, head_dim=8), "eager|softcap"),
    "no attention": (RwkvConfig(**SMALL, attention_hidden_size=32, context_length=64), ""),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_does_not_fit_is_refused_with_its_reason_and_left_as_it_was(name):
    config, reason = UNFIT[name]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).train()
    before = model.config._attn_implementation
    random = torch.random.get_rng_state()
    found = refuse_packed(model, "padded")
    assert re.search(reason, found)
    assert model.config._attn_implementation == before
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.random.get_rng_state(), random)


def test_a_cap_that_reaches_the_attention_is_refused():
    model = model_of(LlamaConfig(**SMALL, **HEADS))
    attention = model.model.layers[1].self_attn
    plain = attention.forward
    attention.forward = lambda *given, **more: plain(*given, softcap=50.0, **more)
    assert "softcap" in refuse_packed(model, "padded")


def test_layers_that_are_not_told_of_the_segments_are_found():
    model = FIT["olmo2"]()
    attention = model.model.layers[1].self_attn
    plain = attention.forward

    def forgetful(*given, segment_layout=None, **more):
        return plain(*given, **more)

    attention.forward = forgetful
    assert "differ" in refuse_packed(model, "padded")
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("fault", ["values", "gradients"])
def test_a_kernel_that_computes_something_else_is_found(monkeypatch, fault):
    def wrong(query, key, value, layout, scaling):
        out = within_segments(query, key, value, layout, scaling)
        # The gradient alone is a tenth too large, or the values too.
        return out * 1.1 if fault == "values" else out + (out - out.detach()) * 0.1

    monkeypatch.setattr(attention_probe, "within_segments", wrong)
    assert f"kernel's {fault}" in refuse_packed(FIT["olmo2"](), "padded")


def test_flash_is_not_for_this_device():
    assert "GPU" in refuse_packed(FIT["olmo2"](), "varlen")


@torch.no_grad()
def test_without_a_layout_attention_is_transformers_own_bit_by_bit():
    model = FIT["llama, grouped heads"]().eval()
    ids = torch.arange(60).view(2, 30)
    seen = torch.ones(2, 30, dtype=torch.int64)
    seen[1, 20:] = 0
    four = torch.ones(30, 30, dtype=torch.bool).tril()[None, None]
    asked = [{}, {"attention_mask": seen}, {"attention_mask": four, "use_cache": False}]
    expected = [model(input_ids=ids, **given).logits for given in asked]
    assert refuse_packed(model, "padded") is None
    assert model.config._attn_implementation == NAME
    for given, logits in zip(asked, expected, strict=True):
        assert torch.equal(model(input_ids=ids, **given).logits, logits)


def test_an_evaluation_runs_transformers_own_attention(monkeypatch):
    model = FIT["olmo2"]()
    assert refuse_packed(model, "padded") is None
    monkeypatch.setattr(packed_attention, "within_segments", None)
    with evaluation_mode(model):
        assert model.config._attn_implementation == "sdpa"
    assert model.config._attn_implementation == NAME


def test_a_saved_model_says_nothing_of_it(tmp_path):
    model = FIT["olmo2"]()
    model.save_pretrained(tmp_path / "before")
    assert refuse_packed(model, "padded") is None
    model.save_pretrained(tmp_path / "after")
    before, after = (
        json.loads((tmp_path / name / "config.json").read_text()) for name in ("before", "after")
    )
    assert before == after
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "after")
    assert loaded.config._attn_implementation == "sdpa"
