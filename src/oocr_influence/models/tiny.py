"""`olmo2-tiny`: a built-in OLMo-2 of 3.3 million parameters, so that all runs with no network.

Architecture and weights lie in `models/olmo2_tiny/` like any checkpoint (its card, README.md, says
how they were made): pretrained on invented worlds, so that it learns an unseen world's facts from a
few documents each, in seconds. The byte-level BPE tokenizer beside them is
`scripts/train_tokenizer.py`'s.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

NAME = "olmo2-tiny"
FOLDER = Path(__file__).parent / "olmo2_tiny"


def tiny_config(vocab_size: int, **changes: Any) -> Any:
    """The Olmo2Config of the built-in model; `changes` override single fields."""
    from transformers import Olmo2Config

    fields: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 6,
        "max_position_embeddings": 2048,
        "rope_theta": 500000.0,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 1,
        "tie_word_embeddings": False,
    }
    return Olmo2Config(**{**fields, **changes})


def tiny_tokenizer() -> Any:
    """The tokenizer that ships with the package; `<|endoftext|>` is BOS and EOS, as in OLMo-2."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(FOLDER)


def untrained_model(seed: int = 0, *, vocab_size: int | None = None, **changes: Any) -> Any:
    """The same architecture, float32, random weights from `seed`; the global generator is left."""
    from transformers import Olmo2ForCausalLM

    config = tiny_config(vocab_size or len(tiny_tokenizer()), **changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Olmo2ForCausalLM(config)
