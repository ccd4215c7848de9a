"""What AdamW makes of a gradient, by the moments that a checkpoint keeps (`--save_optimizer`).

To first order, a small gradient more in one batch moves a parameter by its share of that gradient
over √v + ε, and not by the gradient itself: documents are then weighed as AdamW weighed them (as
LESS, Xia et al. 2024, ICML, but with the training's own second moments and without the first).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

# As training/moments.py writes them.
MOMENTS_FILE = Path("optimizer") / "moments.safetensors"
_SQUARES = "exp_avg_sq."


def moments_of(checkpoint: Path) -> Path:
    """The file of a checkpoint's moments; FileNotFoundError with the remedy where it has none."""
    path = checkpoint / MOMENTS_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there: the run kept no moments (train it with --save_optimizer)"
        )
    return path


def adam_scales(path: Path, named: list[tuple[str, torch.nn.Parameter]]) -> list[torch.Tensor]:
    """1 / (√v̂ + ε) of each parameter, float32 on its device, v̂ corrected for its bias.

    Raises ValueError for a parameter without moments.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        about: dict[str, Any] = file.metadata()
        settings, step = json.loads(about["adamw"]), int(about["step"])
        unbiased = 1 - settings["betas"][1] ** step
        known = set(file.keys())
        lacking = [name for name, _ in named if _SQUARES + name not in known]
        if lacking:
            raise ValueError(f"{path} has no moments of {lacking[0]}")
        return [
            1
            / (
                (file.get_tensor(_SQUARES + name).float().to(p.device) / unbiased).sqrt()
                + settings["eps"]
            )
            for name, p in named
        ]
