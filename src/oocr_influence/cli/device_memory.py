"""What a run trains and what that takes of the GPU, asked before anything expensive starts.

The driver is asked, not torch: whoever plans a sweep stays off the GPU.
"""

from __future__ import annotations

from typing import Any

import torch

from launcher.gpus import memory_bytes, visible_gpus
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.models.load import parameter_count, pick_device, pick_dtype
from oocr_influence.models.lora import adapter_size
from oocr_influence.training.memory import StateLayout, layout_of


def trained_layout(args: TrainingArgs) -> StateLayout:
    """How each trained parameter is kept; an adapter's are float32, whatever the model is."""
    adapted = args.lora_rank is not None
    dtype = torch.float32 if adapted else pick_dtype(args.precision, pick_device())
    return layout_of(args.optimizer_settings(), dtype)


def trained_count(args: TrainingArgs, config: Any) -> int:
    """Parameters that are trained: all, or those of the adapter. ValueError: `lora_targets`."""
    lora = args.lora()
    return parameter_count(config) if lora is None else adapter_size(config, lora)


def needed_bytes(args: TrainingArgs, config: Any) -> int:
    """Weights, gradients and optimizer on the device of each process.

    Raises ValueError as `trained_count` does.
    """
    layout, count = trained_layout(args), trained_count(args, config)
    needed = layout.trained * count
    if args.processes > 1:  # shares, and beside them all weights while the model is asked
        asked = layout.weight + (layout.weight + layout.optimizer) / args.processes
        needed = max(needed / args.processes, asked * count)
    if args.lora_rank is not None:
        dtype = pick_dtype(args.precision, pick_device())
        needed += parameter_count(config) * torch.empty((), dtype=dtype).itemsize
    return round(needed)


def gpu_memory() -> int | None:
    """Bytes of the GPU that a run would use; None without one, or where the driver does not say."""
    if pick_device().type != "cuda":
        return None
    try:
        gpus = visible_gpus()
    except (RuntimeError, ValueError):
        return None
    return memory_bytes(gpus[0]) if gpus else None


def describe_memory(args: TrainingArgs, config: Any) -> str | None:
    """One line: what is needed of what is there; None where there is no GPU."""
    available = gpu_memory()
    if available is None:
        return None
    return (
        f"GPU memory: {gibibytes(needed_bytes(args, config))} of {gibibytes(available)}"
        f"{_shared_by(args)} for "
        f"weights, gradients and optimizer ({trained_count(args, config):,} trained parameters of "
        f"{trained_layout(args).trained:.4g} bytes), activations beside them"
    )


def memory_fault(args: TrainingArgs, config: Any) -> str | None:
    """Why this cannot fit on the GPU, with what would; None if it may."""
    available = gpu_memory()
    if available is None:
        return None
    try:
        needed = needed_bytes(args, config)
    except ValueError:
        return None  # layers that are not there: said elsewhere
    if needed <= available:
        return None
    ways = {
        "--precision bf16_stochastic": "adamw",
        "--precision bf16_stochastic --optimizer adamw8bit": "adamw8bit",
    }
    remedies = []
    for flags, kind in ways.items() if args.processes == 1 else ():
        changes = {"precision": "bf16_stochastic", "optimizer": kind, "lora_rank": None}
        size = needed_bytes(args.model_copy(update=changes), config)
        if size < available:
            remedies.append(f"{flags} ({gibibytes(size)})")
    if args.processes > 1:
        remedies.append("more GPUs a run")
    elif args.lora_rank is None:
        remedies.append("--lora_rank for an adapter")
    else:
        remedies.append("a smaller model")
    return (
        f"--precision {args.precision}: weights, gradients and optimizer of "
        f"{parameter_count(config):,} parameters take {gibibytes(needed)}{_shared_by(args)} before "
        f"activations, and the GPU has {gibibytes(available)}: use {', or '.join(remedies)}"
    )


def _shared_by(args: TrainingArgs) -> str:
    return "" if args.processes == 1 else f" on each of {args.processes} GPUs"


def gibibytes(n_bytes: float) -> str:
    """54.4 GiB: binary units, as memory is sold."""
    return f"{n_bytes / 2**30:,.1f} GiB"
