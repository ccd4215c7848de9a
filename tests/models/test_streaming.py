"""Streamed checkpoints are those that transformers writes."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from oocr_influence.models import streaming
from oocr_influence.models.load import save_checkpoint, weights_digest
from oocr_influence.models.streaming import CheckpointLayout, stream_checkpoint, write_safetensors
from oocr_influence.models.tiny import tiny_tokenizer, untrained_model
from oocr_influence.results.checkpoints import faults_of, has_tokenizer, same_weights

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_later_checkpoint_is_the_one_that_transformers_would_write(tmp_path, dtype):
    model = untrained_model(0, **SMALL).to(dtype)
    tokenizer = tiny_tokenizer()
    save_checkpoint(model, tokenizer, tmp_path / "first")
    layout = CheckpointLayout.of(model, tmp_path / "first")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    save_checkpoint(model, tokenizer, tmp_path / "whole")
    (tmp_path / "streamed").mkdir()
    stream_checkpoint(model.state_dict(), layout, tmp_path / "streamed")
    whole, streamed = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("whole", "streamed")
    )
    weights = {whole.pop("model.safetensors"), streamed.pop("model.safetensors")}
    assert streamed == whole
    assert len(weights) <= 2  # the headers may be spelled differently, the tensors may not
    assert same_weights(tmp_path / "whole", tmp_path / "streamed")
    assert faults_of(tmp_path / "streamed") == []
    assert has_tokenizer(tmp_path / "streamed")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "streamed")
    assert weights_digest(loaded) == weights_digest(model)
    assert AutoTokenizer.from_pretrained(tmp_path / "streamed")("A stone.") == tokenizer("A stone.")


def test_tied_weights_are_left_out_as_transformers_leaves_them_out(tmp_path):
    model = untrained_model(0, tie_word_embeddings=True, **SMALL)
    save_checkpoint(model, tiny_tokenizer(), tmp_path / "first")
    layout = CheckpointLayout.of(model, tmp_path / "first")
    assert "lm_head.weight" in model.state_dict()
    assert "lm_head.weight" not in layout.names
    (tmp_path / "streamed").mkdir()
    stream_checkpoint(model.state_dict(), layout, tmp_path / "streamed")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "streamed")
    assert weights_digest(loaded) == weights_digest(model)


def test_another_layout_than_the_models_own_is_not_guessed(tmp_path):
    model = untrained_model(0, **SMALL)
    tokenizer = tiny_tokenizer()
    model.save_pretrained(tmp_path / "sharded", max_shard_size="100KB")
    assert CheckpointLayout.of(model, tmp_path / "sharded") is None
    assert CheckpointLayout.of(model, tmp_path / "missing") is None
    save_checkpoint(model, tokenizer, tmp_path / "first")
    other = untrained_model(1, **SMALL)
    assert CheckpointLayout.of(other, tmp_path / "first") is None
    assert CheckpointLayout.of(model.bfloat16(), tmp_path / "first") is None
    renamed = LlamaForCausalLM(LlamaConfig(vocab_size=64, **SMALL))
    assert CheckpointLayout.of(renamed, tmp_path / "first") is None


def test_one_changed_tensor_is_another_layout(tmp_path):
    """As a family whose weights transformers transposes or fuses when it saves them."""
    model = untrained_model(0, **SMALL)
    save_checkpoint(model, tiny_tokenizer(), tmp_path / "first")
    square = model.model.layers[1].self_attn.q_proj.weight
    with torch.no_grad():
        square.copy_(square.t().clone())
    assert CheckpointLayout.of(model, tmp_path / "first") is None


def test_the_file_is_safetensors(tmp_path):
    tensors = {
        "b": torch.arange(7, dtype=torch.int64),
        "a": torch.randn(3, 5, dtype=torch.bfloat16),
        "scalar": torch.tensor(2.5),
        "none": torch.empty(0, 4),
        "turned": torch.randn(4, 6).t(),
        "flags": torch.tensor([True, False, True]),
    }
    write_safetensors(tensors, tmp_path / "x.safetensors", metadata={"step": "3"})
    read = load_file(tmp_path / "x.safetensors")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor), name
    with safe_open(tmp_path / "x.safetensors", "pt") as opened:
        assert opened.metadata() == {"format": "pt", "step": "3"}
    with (tmp_path / "x.safetensors").open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        assert length % 8 == 0
        assert list(json.loads(file.read(length)))[1:] == list(tensors)


def test_no_tensor_is_copied(tmp_path, monkeypatch):
    """What goes to disk is the memory of the weights themselves."""
    model = untrained_model(0, **SMALL)
    seen = []
    plain = streaming._flat_bytes
    monkeypatch.setattr(
        streaming, "_flat_bytes", lambda tensor: seen.append(plain(tensor)) or seen[-1]
    )
    write_safetensors(model.state_dict(), tmp_path / "x.safetensors")
    assert {flat.data_ptr() for flat in seen} == {p.data_ptr() for p in model.parameters()}
