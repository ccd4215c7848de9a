"""AdamW's moments with the names of their parameters, for methods that need them.

A checkpoint's `optimizer/moments.safetensors` holds `exp_avg.<name>` and `exp_avg_sq.<name>` of
every trained parameter, as the optimizer keeps them; its metadata give the step and AdamW's
settings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from oocr_influence.models.streaming import write_safetensors
from oocr_influence.training.state import State, place_of

MOMENTS_FILE = Path("optimizer") / "moments.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq")
_SETTINGS = ("lr", "betas", "eps")


def named_moments(state: State) -> dict[str, torch.Tensor]:
    """`exp_avg.<name>` and `exp_avg_sq.<name>`, in the optimizer's own tensors."""
    optimizer = state["optimizer"]
    return {
        f"{moment}.{name}": optimizer["state"][index][moment]
        for group in optimizer["param_groups"]
        for index, name in zip(group["params"], group["param_names"], strict=True)
        if index in optimizer["state"]
        for moment in MOMENTS
    }


def write_moments(state: State, checkpoint: Path) -> None:
    """Write them into a checkpoint's folder. Raises OSError."""
    path = checkpoint / MOMENTS_FILE
    path.parent.mkdir()
    write_safetensors(named_moments(state), path, metadata=_metadata(state))


def _metadata(state: State) -> Mapping[str, str]:
    groups = state["optimizer"]["param_groups"]
    settings = {name: groups[0][name] for name in _SETTINGS}
    decay = {name: group["weight_decay"] for group in groups for name in group["param_names"]}
    return {
        "step": str(place_of(state).step),
        "adamw": json.dumps(settings),
        "weight_decay": json.dumps(decay),
    }
