"""Whether a model and its optimizer fit on the GPU, asked before anything expensive starts.

The driver is asked, not torch: whoever plans a sweep stays off the GPU.
"""

from __future__ import annotations

import torch

from launcher.gpus import memory_bytes, visible_gpus
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.models.load import pick_device, pick_dtype
from oocr_influence.training.memory import layout_of


def state_bytes(args: TrainingArgs, n_parameters: int) -> int:
    """Weights, gradients and what the optimizer keeps, on the device that a run would use."""
    dtype = pick_dtype(args.precision, pick_device())
    return layout_of(args.optimizer_settings(), dtype).device_bytes(n_parameters)


def gpu_memory() -> int | None:
    """Bytes of the GPU that a run would use; None without one, or where the driver does not say."""
    if pick_device().type != "cuda":
        return None
    try:
        gpus = visible_gpus()
    except (RuntimeError, ValueError):
        return None
    return memory_bytes(gpus[0]) if gpus else None


def describe_memory(args: TrainingArgs, n_parameters: int, available: int) -> str:
    """One line: what is needed of what is there."""
    layout = layout_of(args.optimizer_settings(), pick_dtype(args.precision, pick_device()))
    return (
        f"GPU memory: {gibibytes(layout.device_bytes(n_parameters))} of {gibibytes(available)} for "
        f"weights, gradients and optimizer ({n_parameters:,} parameters of {layout.trained:.4g} "
        "bytes), activations beside them"
    )


def memory_fault(args: TrainingArgs, n_parameters: int, available: int) -> str | None:
    """Why this cannot fit, with what would; None if it may."""
    needed = state_bytes(args, n_parameters)
    if needed <= available:
        return None
    fitting = [
        f"{flags} ({gibibytes(size)})"
        for flags, size in _smaller(args, n_parameters)
        if size < min(needed, available)
    ]
    return (
        f"--precision {args.precision}: weights, gradients and optimizer of {n_parameters:,} "
        f"parameters take {gibibytes(needed)} before activations, and the GPU has "
        f"{gibibytes(available)}: "
        + (f"use {', or '.join(fitting)}" if fitting else "use a smaller model or a larger GPU")
    )


def gibibytes(n_bytes: float) -> str:
    """54.4 GiB: binary units, as memory is sold."""
    return f"{n_bytes / 2**30:,.1f} GiB"


def _smaller(args: TrainingArgs, n_parameters: int) -> list[tuple[str, int]]:
    """Other ways to train the same model, and what they take."""
    ways = [
        ("--precision bf16_stochastic", "bf16_stochastic", "adamw"),
        ("--precision bf16", "bf16", "adamw"),
        ("--precision bf16_stochastic --optimizer adamw8bit", "bf16_stochastic", "adamw8bit"),
    ]
    return [
        (
            flags,
            layout_of(
                args.model_copy(
                    update={"precision": precision, "optimizer": kind}
                ).optimizer_settings(),
                torch.bfloat16,
            ).device_bytes(n_parameters),
        )
        for flags, precision, kind in ways
    ]
