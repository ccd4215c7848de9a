"""AdamW whose moments are kept in 8 or 4 bits, by torchao (extra `lowbit`).

Block-wise quantisation of Dettmers et al. (arXiv 2110.02861) and Li et al. (arXiv 2309.01507); the
update itself is computed in float32. With bf16 weights they may be stochastically rounded, by noise
of torch's global generator, which is seeded by the run and part of its state.
"""

from __future__ import annotations

import importlib
from typing import Any, Literal

import torch

OptimizerKind = Literal["adamw", "adamw8bit", "adamw4bit"]
# Bytes of both moments of a parameter: codes, and a float32 scale of every 256 or 128 of them.
MOMENT_BYTES = {"adamw8bit": 2 * (1 + 4 / 256), "adamw4bit": 2 * (0.5 + 4 / 128)}
_CLASSES = {"adamw8bit": "AdamW8bit", "adamw4bit": "AdamW4bit"}


def torchao_optimizers() -> Any:
    """The module of torchao; importing it also lets torch read a state that it wrote.

    Raises ImportError where torchao is not installed.
    """
    return importlib.import_module("torchao.optim")


def make_low_bit(
    kind: OptimizerKind,
    groups: Any,
    *,
    betas: tuple[float, float],
    eps: float,
    stochastic_rounding: bool,
) -> torch.optim.Optimizer:
    """The optimizer at rate 0. Tensors below 4,096 elements keep their moments unquantised."""
    made: torch.optim.Optimizer = getattr(torchao_optimizers(), _CLASSES[kind])(
        groups, lr=0.0, betas=betas, eps=eps, bf16_stochastic_round=stochastic_rounding
    )
    return made
