"""A resolved model becomes weights, tokenizer and proof of which weights they are.

model = load_model(resolved, precision="fp32", device="cpu")
tokenizer = load_tokenizer(resolved)
weights_digest(model)                # sha256 over every tensor
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import torch

from oocr_influence.models import lora, smollm2
from oocr_influence.models.norms import fuse_rms_norms
from oocr_influence.models.resolve import ModelNotFoundError, ResolvedModel
from oocr_influence.results.adapters import BaseModel, read_base

WeightPrecision = Literal["auto", "fp32", "bf16"]
Precision = Literal[WeightPrecision, "bf16_stochastic", "fp32_master"]
"""How a model is trained; the optimizer keeps more than its weights in the last two (see
training/optimizer.py)."""


# A model of billions takes seconds even without its weights, and a plan asks a hundred times.
_PARAMETER_COUNTS: dict[str, int] = {}


def pick_device() -> torch.device:
    """The first visible GPU, or the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def pick_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Of the weights: `auto` is float32 on the CPU and bf16 on a GPU."""
    if precision == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return torch.float32 if precision == "fp32" else torch.bfloat16


def load_model(
    resolved: ResolvedModel, *, precision: Precision = "auto", device: torch.device | None = None
) -> Any:
    """The causal LM with its weights on `device`, attention through SDPA, norms fused on a GPU.

    An adapter lies in its base model, in float32 whatever the base is. Raises ModelNotFoundError if
    the folder's weights leave a parameter without a value, which transformers would fill with
    random numbers, and if the base of an adapter is another one by now.
    """
    device = device or pick_device()
    model = read_model(resolved, pick_dtype(precision, device)).to(device)
    if device.type == "cuda":
        fuse_rms_norms(model)
    return model


def read_model(resolved: ResolvedModel, dtype: torch.dtype) -> Any:
    """The same on the CPU, as transformers has it (see `load_model`)."""
    return (_read_whole if resolved.adapter is None else _read_adapted)(resolved, dtype)


def stored_dtype(resolved: ResolvedModel) -> torch.dtype:
    """What the weights are on disk; of an adapter, what its base was in training."""
    if resolved.adapter is not None:
        return _dtype_of(read_base(resolved.adapter))
    stated = getattr(load_config(resolved), "dtype", None) or torch.float32
    return stated if isinstance(stated, torch.dtype) else getattr(torch, stated)


def _dtype_of(base: BaseModel) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, base.dtype.removeprefix("torch."))
    return dtype


def _read_whole(resolved: ResolvedModel, dtype: torch.dtype) -> Any:
    if resolved.gguf is not None:
        return smollm2.smollm2_model(resolved.gguf, dtype)
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(
        resolved.folder,
        dtype=dtype,
        # SDPA knows no cap on attention scores; some versions of transformers drop it in silence.
        attn_implementation="eager" if _caps_attention(resolved) else "sdpa",
        local_files_only=True,
        output_loading_info=True,
    )
    if info["missing_keys"] or info["mismatched_keys"]:
        faults = [*info["missing_keys"], *map(str, info["mismatched_keys"])]
        raise ModelNotFoundError(
            f"the weights in {resolved.folder} do not fit their config: no value for "
            f"{', '.join(sorted(map(str, faults))[:5])}"
        )
    return model


def _caps_attention(resolved: ResolvedModel) -> bool:
    return getattr(load_config(resolved), "attn_logit_softcapping", None) is not None


def _read_adapted(resolved: ResolvedModel, dtype: torch.dtype) -> Any:
    """The base as it was trained beside, its adapter in it; then the base in `dtype`."""
    assert resolved.adapter is not None
    base = read_base(resolved.adapter)
    model = _read_whole(resolved, _dtype_of(base))
    # A commit is what it was; a folder may hold other weights by now.
    if base.commit is None and weights_digest(model) != base.weights_digest:
        raise ModelNotFoundError(
            f"{resolved.adapter} is an adapter of {base.model}, whose weights are not those that "
            f"it was trained beside (digest {base.weights_digest[:16]}…): put them back"
        )
    # Parameters alone: positions are computed from buffers that stay float32 in any model.
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    lora.load_adapter(model, resolved.adapter)
    return model


def recompute_activations(model: Any) -> None:
    """Hold no activations for the backward pass but compute them again: less memory, more time."""
    # transformers 5.23 renamed it; 5.17 knows the old name alone.
    enable = getattr(model, "activation_checkpointing_enable", None)
    (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})


def load_tokenizer(resolved: ResolvedModel) -> Any:
    """The tokenizer that lies beside the weights."""
    if resolved.gguf is not None and resolved.adapter is None:
        return smollm2.smollm2_tokenizer(resolved.gguf)
    from transformers import AutoTokenizer

    folder = resolved.adapter or resolved.folder
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def load_config(resolved: ResolvedModel) -> Any:
    """The configuration that lies beside the weights."""
    if resolved.gguf is not None:
        return smollm2.smollm2_config(resolved.gguf)
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(resolved.folder, local_files_only=True)


def parameter_count(config: Any) -> int:
    """Parameters of a model of this configuration, without allocating them."""
    from transformers import AutoModelForCausalLM

    key = f"{type(config).__name__}: {config.to_json_string(use_diff=False)}"
    if key not in _PARAMETER_COUNTS:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        _PARAMETER_COUNTS[key] = sum(parameter.numel() for parameter in model.parameters())
    return _PARAMETER_COUNTS[key]


def weights_digest(model: torch.nn.Module) -> str:
    """sha256 hex over name, dtype, shape and bytes of every tensor, by name, on the CPU."""
    hasher = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        hasher.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().to("cpu").contiguous().reshape(-1)
        hasher.update(flat.view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def save_checkpoint(model: Any, tokenizer: Any, folder: Path) -> None:
    """Weights, config and tokenizer: transformers loads the folder from its path alone.

    Of a model with an adapter the adapter and its tokenizer (see `lora.save_adapter`).
    """
    if lora.is_adapted(model):
        lora.save_adapter(model, folder)
    else:
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
