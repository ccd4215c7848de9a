"""Fused norms: the same numbers, the same checkpoint, and hands off what is another formula."""

import copy

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from oocr_influence.models.norms import fuse_rms_norms

SHAPE = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}
# Norms of two layers and the last one.
FAMILIES = {
    "llama": (LlamaForCausalLM, LlamaConfig, 2 * 2 + 1),
    "olmo2": (Olmo2ForCausalLM, Olmo2Config, 2 * 4 + 1),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, 2 * 4 + 1),
}
IDS = torch.arange(40).view(2, 20)


def made(model_class, config_class):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config_class(**SHAPE))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:  # norms begin as ones, which would hide a lost weight
                    parameter.uniform_(0.5, 1.5)
    return model.eval()


def logits_and_gradients(model):
    logits = model(input_ids=IDS, use_cache=False).logits
    logits.logsumexp(-1).sum().backward()
    return logits.detach(), {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("family", FAMILIES)
def test_fusing_changes_neither_logits_nor_gradients(family):
    model_class, config_class, n_norms = FAMILIES[family]
    model = made(model_class, config_class)
    fused = copy.deepcopy(model)
    assert fuse_rms_norms(fused) == n_norms
    logits, gradients = logits_and_gradients(model)
    fused_logits, fused_gradients = logits_and_gradients(fused)
    assert torch.allclose(logits, fused_logits, atol=1e-4, rtol=1e-4)
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, fused_gradients[name], atol=1e-3, rtol=1e-3), name


def test_every_norm_runs_fused(monkeypatch):
    model = made(*FAMILIES["olmo2"][:2])
    fuse_rms_norms(model)
    seen = []
    rms_norm = torch.nn.functional.rms_norm
    monkeypatch.setattr(
        torch.nn.functional, "rms_norm", lambda *args: seen.append(0) or rms_norm(*args)
    )
    model(input_ids=IDS)
    assert len(seen) == FAMILIES["olmo2"][2]


def test_a_copy_uses_its_own_weights():
    """A copied model must not go on reading the norms of the model that it was copied from."""
    model = made(*FAMILIES["olmo2"][:2])
    fuse_rms_norms(model)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.zero_()
    assert model(input_ids=IDS).logits.abs().max() == 0
    assert other(input_ids=IDS).logits.abs().max() > 0


def test_a_checkpoint_is_the_same_before_and_after(tmp_path):
    model = made(*FAMILIES["olmo2"][:2])
    model.save_pretrained(tmp_path / "before")
    fuse_rms_norms(model)
    model.save_pretrained(tmp_path / "after")
    for name in ("model.safetensors", "config.json"):
        before, after = ((tmp_path / when / name).read_bytes() for when in ("before", "after"))
        assert before == after, name


def test_other_formulas_are_left_alone():
    """Gemma multiplies by 1 + weight; and a name proves nothing."""
    assert fuse_rms_norms(made(Gemma2ForCausalLM, Gemma2Config)) == 0

    class DoubledRMSNorm(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(8))
            self.variance_epsilon = 1e-6

        def forward(self, hidden):
            return 2 * torch.nn.functional.rms_norm(hidden, (8,), self.weight, 1e-6)

    assert fuse_rms_norms(DoubledRMSNorm()) == 0


def test_mixed_precision_takes_the_modules_own_way():
    model = made(*FAMILIES["llama"][:2])
    norm = model.model.norm.bfloat16()
    expected = norm(torch.ones(1, 32))
    fuse_rms_norms(norm)
    assert torch.equal(norm(torch.ones(1, 32)), expected)
