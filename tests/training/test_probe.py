"""Architectures that ignore or misread an explicit mask are refused before any training."""

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    RwkvConfig,
)

from oocr_influence.datasets.packing import pack
from oocr_influence.models import loss
from oocr_influence.models.tiny import untrained_model
from oocr_influence.training.probe import AttentionMaskError, check_attention

SMALL = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "bos_token_id": 0}
ATTENTION = {"intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2}


def windows(packing="masked"):
    generator = np.random.default_rng(0)
    documents = [np.array([0, *generator.integers(2, 97, n), 0]) for n in (20, 4, 9, 5, 28, 7)]
    return pack(documents, chunk_size=32, packing=packing, pad_id=1)


def model_of(config):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("packing", ["masked", "separate", "concat"])
@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SMALL, **ATTENTION),
        GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=2, n_positions=64),
        MistralConfig(**SMALL, **ATTENTION, sliding_window=64),
    ],
    ids=lambda config: config.model_type,
)
def test_models_that_do_as_the_mask_says_pass(config, packing):
    model = model_of(config).train()
    check_attention(model, windows(packing))
    assert model.training
    check_attention(model.to(torch.bfloat16), windows(packing))


def test_a_model_that_ignores_the_mask_is_refused():
    config = RwkvConfig(**SMALL, attention_hidden_size=32, context_length=64)
    with pytest.raises(AttentionMaskError, match=r"RwkvForCausalLM.*chunk_size"):
        check_attention(model_of(config), windows())


def test_an_attention_window_shorter_than_a_document_is_refused():
    config = MistralConfig(**SMALL, **ATTENTION, sliding_window=8)
    with pytest.raises(AttentionMaskError, match="differ by"):
        check_attention(model_of(config), windows())
    with pytest.raises(AttentionMaskError, match="differ by"):
        check_attention(model_of(config), windows("separate"))


def test_a_mask_that_leaks_is_found(monkeypatch):
    everything = loss.attention_mask
    monkeypatch.setattr(
        loss, "attention_mask", lambda segments: everything(torch.zeros_like(segments))
    )
    with pytest.raises(AttentionMaskError):
        check_attention(untrained_model(vocab_size=97), windows())


def test_asking_leaves_each_module_in_its_mode():
    """A part that a person has frozen in eval stays so."""
    model = model_of(LlamaConfig(**SMALL, **ATTENTION)).train()
    model.model.layers[1].eval()
    modes = [module.training for module in model.modules()]
    check_attention(model, windows())
    assert [module.training for module in model.modules()] == modes
