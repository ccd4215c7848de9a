"""LoRA: beside each linear layer W of the decoder two thin matrices, W + (alpha / r) B A.

    add_adapter(model, LoraSettings(rank=16), base)     # in place; only A and B are trained
    save_adapter(model, folder); load_adapter(model, folder)
    merge_adapter(model)                                # plain weights again

Hu et al., arXiv 2106.09685. peft puts its layers into the model, which stays of its own class: its
decoder, its head and its loss are found as before. A is drawn as peft draws it (uniform, Kaiming
with a = √5), but from a seed of its own and on the CPU; B is zero, so that the first step finds the
untouched model. Both are float32 whatever the base is, as in peft's own models: updates of 1e-4
vanish in bf16. All linear layers are better than attention's alone (Biderman et al., arXiv
2405.09673; Schulman et al., "LoRA Without Regret", 2025, whose best learning rates are about ten
times those of full training); an alpha of twice the rank is the common rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from oocr_influence.results import adapters
from oocr_influence.results.adapters import BaseModel
from oocr_influence.results.atomic import plain, write_json

ALL_LINEAR = "all-linear"
REMEDY = "install it with `make lora`, or with `pip install 'oocr-influence[lora]'`"
_NAME = "default"
# What peft's own wrapper puts before every name in its files.
_PREFIX = "base_model.model."


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """The shape of an adapter and how it begins."""

    rank: int
    alpha: int
    dropout: float = 0.0
    targets: tuple[str, ...] = (ALL_LINEAR,)
    """Last parts of the names of linear layers in the decoder, or `all-linear`."""
    seed: int = 0
    """Draws the first A; independent of everything else."""


def missing_package() -> str | None:
    """What is not installed that adapters take, with the remedy; None if all is there."""
    missing = [name for name in ("peft", "accelerate") if find_spec(name) is None]
    if not missing:
        return None
    return f"LoRA needs a package that is not installed ({', '.join(missing)}): {REMEDY}"


def add_adapter(model: Any, settings: LoraSettings, base: BaseModel) -> None:
    """Put a new adapter into the model, in place; from now on nothing else of it is trained.

    Raises ValueError where a target is no linear layer of the decoder.
    """
    _check_targets(model, settings)
    _inject(model, _config(settings))
    generator = torch.Generator().manual_seed(settings.seed)
    with torch.no_grad():
        for _, layer in _layers(model):
            weight = layer.lora_A[_NAME].weight
            drawn = torch.empty(weight.shape)
            torch.nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
            weight.copy_(drawn)
    model.lora_base = base


def is_adapted(model: Any) -> bool:
    """Whether there is an adapter in the model."""
    return getattr(model, "lora_base", None) is not None


def adapter_size(config: Any, settings: LoraSettings) -> int:
    """Parameters of an adapter for a model of this configuration, without allocating any.

    Raises ValueError where a target is no linear layer of the decoder.
    """
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    _check_targets(model, settings)
    _inject(model, _config(settings), low_cpu_mem_usage=True)
    return n_trained(model)


def n_trained(model: torch.nn.Module) -> int:
    """Parameters that training changes."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def adapter_parameters(model: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    """The adapter's own parameters with their names, trained or just loaded."""
    return [(name, p) for name, p in model.named_parameters() if ".lora_" in name]


def save_adapter(model: Any, folder: Path) -> None:
    """Write the adapter as peft does, and what it belongs to.

    The base is named by its folder, since transformers would load a hub's name at its main branch
    whatever revision the adapter was trained beside.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    tensors = get_peft_model_state_dict(model, adapter_name=_NAME, save_embedding_layers=False)
    whole = {_PREFIX + name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    save_file(whole, folder / adapters.WEIGHTS, metadata={"format": "pt"})
    config = model.peft_config[_NAME].to_dict()
    config |= {"peft_type": "LORA", "task_type": "CAUSAL_LM", "inference_mode": True}
    config["base_model_name_or_path"] = _path_of(model)
    write_json(folder / adapters.CONFIG, plain(config))
    adapters.write_base(folder, model.lora_base)


def load_adapter(model: Any, folder: Path) -> None:
    """Put the adapter in `folder` into its base model, in place.

    One whose B is zero everywhere, as in `checkpoint_start`, changes nothing and is left out, so
    that the model is its base bit for bit, name for name. Raises ValueError if it does not fit.
    """
    from peft import LoraConfig, set_peft_model_state_dict
    from safetensors.torch import load_file

    tensors = load_file(folder / adapters.WEIGHTS)
    if not any(bool(tensor.any()) for name, tensor in tensors.items() if ".lora_B." in name):
        return
    tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
    _inject(model, LoraConfig.from_pretrained(str(folder)))
    result = set_peft_model_state_dict(model, tensors, adapter_name=_NAME)
    lacking = [name for name in result.missing_keys if ".lora_" in name]
    if lacking or result.unexpected_keys:
        faults = ", ".join([*lacking, *result.unexpected_keys][:5])
        raise ValueError(f"{folder} does not fit its base model: {faults}")
    model.lora_base = adapters.read_base(folder)


@torch.no_grad()
def merge_adapter(model: Any) -> None:
    """Add the adapter to the weights, in place: sums in float32, rounded once to the weights' type.

    Afterwards the model is a plain one, all of whose weights can be trained.
    """
    if not is_adapted(model):
        return
    for name, layer in list(_layers(model)):
        weight = layer.get_base_layer().weight
        delta = layer.get_delta_weight(_NAME)
        if delta.any():  # -0.0 + 0.0 would be another bit
            weight.copy_(weight.float() + delta.float())
        model.set_submodule(name, layer.get_base_layer())
    del model.peft_config, model.lora_base
    model.requires_grad_(True)


def _config(settings: LoraSettings) -> Any:
    from peft import LoraConfig

    targets = list(settings.targets)
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=ALL_LINEAR if targets == [ALL_LINEAR] else targets,
        bias="none",
        task_type="CAUSAL_LM",
    )


def _inject(model: Any, config: Any, *, low_cpu_mem_usage: bool = False) -> None:
    """Add layers to the model, float32 and trained, and freeze all else."""
    from peft import inject_adapter_in_model

    with torch.random.fork_rng(devices=[]):  # peft draws from the global generator
        inject_adapter_in_model(
            config, model, adapter_name=_NAME, low_cpu_mem_usage=low_cpu_mem_usage
        )
    for _, layer in _layers(model):
        layer.lora_A.float()
        layer.lora_B.float()


def _check_targets(model: Any, settings: LoraSettings) -> None:
    """Not the head, which is outside of the decoder: the loss reads its weights directly."""
    from transformers.pytorch_utils import Conv1D

    if settings.targets == (ALL_LINEAR,):
        return
    inside = {id(module) for module in model.get_decoder().modules()}
    linear = [
        (name.rpartition(".")[2], id(module) in inside)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D)
    ]
    possible = {name for name, within in linear if within}
    possible -= {name for name, within in linear if not within}
    unknown = [target for target in settings.targets if target not in possible]
    if unknown:
        raise ValueError(
            f"{', '.join(unknown)}: no linear layer of the decoder is called so; there are "
            f"{', '.join(sorted(possible))}, or {ALL_LINEAR} for all of them"
        )


def _layers(model: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """The adapted layers and their names, in the model's order."""
    from peft.tuners.lora import LoraLayer

    return ((name, m) for name, m in model.named_modules() if isinstance(m, LoraLayer))


def _path_of(model: Any) -> str | None:
    """The folder that the base was read from; None for one that came out of a GGUF file."""
    path = getattr(model.config, "_name_or_path", None)
    return str(Path(path).resolve()) if path and Path(path).is_dir() else None
