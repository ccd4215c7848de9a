"""Float32 numbers as bf16: rounded up or down by chance, or in two halves that lose nothing.

    round_stochastically(values, noise)       # bf16; the mean over all noise is the value itself
    high, low = split_halves(values)          # bf16, the nearest, and int16
    join_halves(high, low)                    # the same float32 values

A bf16 number is the upper half of a float32 number, so that all is integer arithmetic on bits. What
is finite stays finite: values beyond the largest bf16 number become that number.
"""

from __future__ import annotations

import torch

LARGEST = float(torch.finfo(torch.bfloat16).max)
_LOW_BITS = 0xFFFF
_HIGH_BITS = ~_LOW_BITS


def draw_noise(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """int16, each of its 65,536 values equally likely, in the shape of `like`."""
    noise = torch.empty(like.shape, dtype=torch.int16, device=like.device)
    return noise.random_(-(2**15), 2**15, generator=generator)


def round_stochastically(values: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """float32 to one of the two bf16 neighbours, the nearer one the likelier, by int16 noise.

    The chance to go away from zero is the share of the way that was gone (Gupta et al., arXiv
    1502.02551): unbiased, and exact for what bf16 can represent, infinities and NaN included.
    """
    bits = values.clamp(-LARGEST, LARGEST).view(torch.int32)
    # A sum that carries into the upper half moves on to the neighbour, whatever the sign.
    rounded = (bits + (noise.to(torch.int32) & _LOW_BITS)) & _HIGH_BITS
    kept = torch.where(torch.isfinite(values), rounded.view(torch.float32), values)
    return kept.to(torch.bfloat16)


def split_halves(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(bf16, int16): the nearest bf16 number, ties away from zero, and what is missing in it."""
    bits = values.clamp(-LARGEST, LARGEST).view(torch.int32)
    high = ((bits + 0x8000) & _HIGH_BITS).view(torch.float32).to(torch.bfloat16)
    low = ((bits & _LOW_BITS) ^ 0x8000) - 0x8000  # 0x8000 and above were rounded up
    return high, low.to(torch.int16)


def join_halves(high: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    """The float32 values that `split_halves` took apart."""
    return (high.float().view(torch.int32) + low.to(torch.int32)).view(torch.float32)
