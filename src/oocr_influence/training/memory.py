"""What weights, gradients and the optimizer take on a device, by arithmetic alone.

    layout = layout_of(settings, torch.bfloat16)
    layout.device_bytes(7_298_617_344) / 2**30        # 54.4 GiB for bf16

Activations, logits and what a library holds for itself come beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from oocr_influence.training.low_bit import MOMENT_BYTES
from oocr_influence.training.optimizer import OptimizerSettings


@dataclass(frozen=True)
class StateLayout:
    """Bytes a parameter (see the table in training/optimizer.py)."""

    weight: float
    gradient: float
    moments: float
    master: float = 0

    @property
    def optimizer(self) -> float:
        """What the optimizer keeps from one update to the next."""
        return self.moments + self.master

    @property
    def trained(self) -> float:
        return self.weight + self.gradient + self.optimizer

    def device_bytes(self, n_parameters: int) -> int:
        """On the device, before activations, for so many trained parameters."""
        return round(n_parameters * self.trained)


def layout_of(settings: OptimizerSettings, dtype: torch.dtype) -> StateLayout:
    """How a model of `dtype` and its optimizer are kept."""
    size = torch.empty((), dtype=dtype).itemsize
    if settings.kind != "adamw":
        return StateLayout(size, size, MOMENT_BYTES[settings.kind])
    if settings.precision == "bf16_stochastic":
        return StateLayout(size, size, size + 4)
    if settings.precision == "fp32_master":
        return StateLayout(size, size, size + 4, master=2)
    return StateLayout(size, size, 2 * size)
