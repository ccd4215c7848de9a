"""A checkpoint that is a LoRA adapter alone: which files it has, and which weights it belongs to.

adapter_config.json  adapter_model.safetensors     peft's own format
base_model.json                                    the weights that it was trained beside
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from oocr_influence.results.atomic import write_json

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
BASE = "base_model.json"


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """The untouched model of an adapter: adapter and base together are the trained model."""

    model: str
    """A hub's name, a folder, or a built-in or packaged model."""
    revision: str | None
    """As it was asked for."""
    commit: str | None
    """Of the hub, or the package as `name==version`; None where a folder is all there is."""
    dtype: str
    """Of the weights beside which the adapter was trained: `torch.bfloat16`."""
    weights_digest: str
    """sha256 of those weights in that precision."""


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds an adapter rather than whole weights."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").exists()


def write_base(folder: Path, base: BaseModel) -> None:
    """Say in an adapter's folder which weights it belongs to."""
    write_json(folder / BASE, asdict(base))


def read_base(folder: Path) -> BaseModel:
    """The weights that an adapter belongs to; ValueError where its folder does not say."""
    try:
        found = json.loads((folder / BASE).read_text(encoding="utf-8"))
        return BaseModel(**{name: found[name] for name in BaseModel.__dataclass_fields__})
    except FileNotFoundError:
        raise ValueError(f"{BASE} is missing: it says which weights the adapter is for") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{BASE} does not say which weights it is for: {error!r}") from None


def config_faults(folder: Path) -> list[str]:
    """What is wrong with an adapter's configuration and with the record of its base."""
    faults = []
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if not isinstance(config, dict) or config.get("peft_type") != "LORA":
            faults.append(f"{CONFIG} is not of a LoRA adapter")
    except ValueError:
        faults.append(f"{CONFIG} is not JSON")
    try:
        read_base(folder)
    except ValueError as error:
        faults.append(str(error))
    return faults
