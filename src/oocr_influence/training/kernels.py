"""Which attention and which compilation a run trains with: settled once, before the first step.

    kernels = settle_kernels(model, windows, attention="auto", compiled="auto", micro_batch_size=1)
    train(model, …, attention=kernels.attention)

Both change speed, memory and the last bits of a sum, never the maths: what does not prove equal on
this model falls back to the plain way, with a notice that says why.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from oocr_influence.datasets.packing import PackedWindows
from oocr_influence.models.attention_probe import refuse_packed
from oocr_influence.models.compiled import compile_layers, undo_compile
from oocr_influence.training.loop import Attention, accumulate_gradients
from oocr_influence.training.probe import AttentionMaskError, check_attention, hardest_windows

logger = logging.getLogger("oocr_influence")

AttentionChoice = Literal["auto", "segments", "dense"]
CompileChoice = Literal["auto", "off", "on"]
# Largest relative difference of loss and gradient norm that is still rounding.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
TOLERANCE_OF_HALF_PRECISION = 0.02


@dataclass(frozen=True)
class TrainingKernels:
    """What a run trains with, and what it was refused."""

    attention: Attention
    compiled: bool
    kernel_notices: tuple[str, ...] = ()


def settle_kernels(
    model: Any,
    windows: PackedWindows,
    *,
    attention: AttentionChoice | Attention,
    compiled: CompileChoice,
    micro_batch_size: int,
) -> TrainingKernels:
    """Switch `model` to what it can be trained with, and prove that it attends as it must.

    `auto` takes the best that this model and device can do; attention `segments` does not fall
    back to a dense mask. Raises AttentionMaskError if documents see each other, or if what was
    asked for cannot be had.
    """
    used, notices = _settle_attention(model, attention)
    check_attention(model, windows, used)
    refused = None
    wanted = compiled == "on" or (compiled == "auto" and model.device.type == "cuda")
    if wanted:
        rows = range(min(micro_batch_size, len(windows)))
        refused = _try_compiled(model, windows, rows, used)
        if refused is not None:
            notices.append(f"not compiled: {refused}")
    kernels = TrainingKernels(used, wanted and refused is None, tuple(notices))
    _tell_of(kernels)
    return kernels


def _tell_of(kernels: TrainingKernels) -> None:
    for notice in kernels.kernel_notices:
        logger.warning("%s", notice)
    layers = "compiled" if kernels.compiled else "not compiled"
    logger.info("attention: %s; layers: %s", kernels.attention, layers)


class KeptKernels:
    """Settled for the first of several runs of one model, and kept for those that follow.

    The model must come with the same weights each time. A run whose documents are longer, or more
    in a window, than any before is checked like the first.
    """

    def __init__(self) -> None:
        self._asked: tuple[object, ...] | None = None
        self._kernels: TrainingKernels | None = None
        self._hardest = (0, 0)

    def settle(
        self,
        model: Any,
        windows: PackedWindows,
        *,
        attention: AttentionChoice | Attention,
        compiled: CompileChoice,
        micro_batch_size: int,
    ) -> TrainingKernels:
        """As `settle_kernels`, whose errors it raises."""
        asked = (attention, compiled, micro_batch_size)
        hardest = hardest_windows(windows)
        if self._kernels is None or self._asked != asked:
            undo_compile(model)
            self._kernels = settle_kernels(
                model,
                windows,
                attention=attention,
                compiled=compiled,
                micro_batch_size=micro_batch_size,
            )
            self._asked, self._hardest = asked, hardest
            return self._kernels
        if any(now > before for now, before in zip(hardest, self._hardest, strict=True)):
            check_attention(model, windows, self._kernels.attention)
            most, longest = zip(hardest, self._hardest, strict=True)
            self._hardest = (max(most), max(longest))
        _tell_of(self._kernels)
        return self._kernels


def _settle_attention(
    model: Any, choice: AttentionChoice | Attention
) -> tuple[Attention, list[str]]:
    candidates: tuple[Attention, ...]
    if choice == "auto":
        candidates = ("varlen", "padded", "dense")
    elif choice == "segments":
        candidates = ("varlen", "padded")
    else:
        candidates = (choice,)
    notices: list[str] = []
    for candidate in candidates:
        if candidate == "dense":
            return candidate, notices
        if candidate == "varlen" and len(candidates) > 1 and not _may_be_flash(model):
            continue  # not meant for this device: nothing to tell of
        refused = refuse_packed(model, candidate)
        if refused is None:
            return candidate, notices
        notices.append(f"attention by segments ({candidate}) is not used: {refused}")
    raise AttentionMaskError(
        f"{type(model).__name__} cannot be trained with --attention {choice}: "
        f"{'; '.join(notices)}. Leave it at auto"
    )


def _may_be_flash(model: Any) -> bool:
    return model.device.type == "cuda" and model.dtype in (torch.bfloat16, torch.float16)


def _try_compiled(
    model: Any, windows: PackedWindows, rows: Sequence[int], attention: Attention
) -> str | None:
    """Compile and compare one micro-batch; says why not, and then the model is as it came."""
    modes = {module: module.training for module in model.modules()}
    reason: str | None = "it was not tried"
    torch._dynamo.config.suppress_errors = False  # here they are what is asked for
    try:
        model.train()
        expected = _one_update(model, windows, rows, attention)
        if compile_layers(model) == 0:
            reason = f"{type(model).__name__} has no layers that could be"
        else:
            found = _one_update(model, windows, rows, attention)
            allowed = TOLERANCE.get(model.dtype, TOLERANCE_OF_HALF_PRECISION)
            apart = max(
                abs(a - b) / max(abs(b), 1e-9) for a, b in zip(found, expected, strict=True)
            )
            reason = None if apart <= allowed else f"loss or gradient differ by {apart:.2g}"
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a compiler, its backends and what they call raise what they like
        inner = getattr(error, "inner_exception", error)  # what a backend raised
        reason = f"{type(inner).__name__}: {str(inner).strip().partition(chr(10))[0]}"
    finally:
        model.zero_grad(set_to_none=True)
        for module, was_training in modes.items():
            module.training = was_training
        if reason is not None:
            undo_compile(model)
    if reason is None:
        # A shape that comes later, a last small micro-batch, must not end a run either.
        torch._dynamo.config.suppress_errors = True
    return reason


def _one_update(
    model: Any, windows: PackedWindows, rows: Sequence[int], attention: Attention
) -> tuple[float, float]:
    """Loss and gradient norm of one micro-batch, with the same random numbers each time."""
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        model.zero_grad(set_to_none=True)
        loss, _ = accumulate_gradients(
            model, windows, rows, micro_batch_size=len(rows), attention=attention
        )
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return loss, float(torch.nn.utils.get_total_norm(gradients))
