"""What training and asking a decoder takes, by arithmetic alone: operations and memory.

    shape = shape_of(config)
    training_flops(shape, tokens=3_420_000, context=1024)      # 1.47e17 for OLMo-2-7B

Letters: N weights in matrix products, L layers, D hidden size, H width of all heads, K of all key
heads, F of the feed-forward layer, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from oocr_influence.datasets.packing import IntArray
from oocr_influence.models.chunked_loss import CHUNK_BYTES
from oocr_influence.models.load import parameter_count


@dataclass(frozen=True)
class Shape:
    """A decoder's size."""

    n_parameters: int
    n_in_products: int
    """Without the input embedding, which is looked up; a tied one is the head's matrix as well."""
    layers: int
    hidden: int
    heads: int
    key_heads: int
    feed_forward: int
    vocabulary: int


def shape_of(config: Any) -> Shape | None:
    """None for a configuration that does not name its sizes as Llama, OLMo-2 and the like do."""
    try:
        hidden, heads = config.hidden_size, config.num_attention_heads
        head = getattr(config, "head_dim", None) or hidden // heads
        key_heads = getattr(config, "num_key_value_heads", None) or heads
        n = parameter_count(config)
        looked_up = 0 if config.tie_word_embeddings else config.vocab_size * hidden
        return Shape(
            n_parameters=n,
            n_in_products=n - looked_up,
            layers=config.num_hidden_layers,
            hidden=hidden,
            heads=heads * head,
            key_heads=key_heads * head,
            feed_forward=config.intermediate_size,
            vocabulary=config.vocab_size,
        )
    except (AttributeError, TypeError):
        return None


def forward_flops(shape: Shape, tokens: float, context: float) -> float:
    """2 N a token, and 4 L H for each token that it attends to, `context` on average.

    Kaplan et al., arXiv 2001.08361, section 2.1, with attention as it is used.
    """
    return tokens * (2 * shape.n_in_products + 4 * shape.layers * shape.heads * context)


def training_flops(
    shape: Shape, tokens: float, context: float, *, recomputed: bool = False, adapter: bool = False
) -> float:
    """Three forward passes a token, four where activations are recomputed.

    With an adapter the base's weights need no gradients: one less.
    """
    passes = 3 + int(recomputed) - int(adapter)
    return passes * forward_flops(shape, tokens, context)


def mean_context(segments: IntArray) -> float:
    """Tokens that a token attends to on average, itself included; `segments` (N, T), padding -1."""
    total = attended = 0
    for row in segments:
        real = row[row >= 0]
        lengths = np.diff(np.flatnonzero(np.diff(real, prepend=-1, append=-1)))
        total += int(lengths.sum())
        attended += int((lengths * (lengths + 1) // 2).sum())
    return attended / max(total, 1)


def activation_bytes(
    shape: Shape, tokens: int, element_bytes: int, *, recomputed: bool = False
) -> int:
    """What the backward pass keeps of `tokens` tokens of one micro-batch.

    A layer keeps of each token about 9 vectors of the hidden size, 3 of the query heads', 2 of the
    key heads' and 4 of the feed-forward layer: inputs of products, of norms and of the gate, and
    attention without its scores, which are computed again (counted in OLMo-2 under torch; norms
    that are not fused keep theirs in float32). Where activations are recomputed, a layer's input
    alone, and all of one layer.
    """
    of_a_layer = (
        9 * shape.hidden + 3 * shape.heads + 2 * shape.key_heads + 4 * shape.feed_forward
    ) * element_bytes
    if recomputed:
        return tokens * (shape.layers * shape.hidden * element_bytes + of_a_layer)
    return tokens * shape.layers * of_a_layer


def head_bytes(shape: Shape, tokens: int, kind: str, element_bytes: int) -> int:
    """Of the loss: a chunk of float32 logits, their gradients as the weights are, and the head's
    own gradient in float32 (models/chunked_loss.py)."""
    chunk = min(CHUNK_BYTES.get(kind, CHUNK_BYTES["cuda"]), tokens * shape.vocabulary * 4)
    return round(chunk * (1 + element_bytes / 4)) + 4 * shape.vocabulary * shape.hidden
