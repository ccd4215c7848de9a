"""`torch.compile` for the parts of each layer, in place: norms, rotary and activations fuse.

    compile_layers(model)
    with run_eager(model): …      # evaluation: nothing is compiled for its shapes
    undo_compile(model)

A part is a child of a decoder layer (attention, feed-forward, norms), so that activations can be
recomputed around it, whichever way the library does that. Attention by segments is called as it
is, between compiled pieces. Names, parameters and checkpoints stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from oocr_influence.models import packed_attention


def compile_layers(model: Any) -> int:
    """Let the layers' parts be compiled at their next call; returns how many.

    Parts that were replaced already (fused norms) are left alone. Lengths may vary.
    """
    parts = list(_parts(model))
    packed_attention.stay_out_of_compilation()
    for part in parts:
        part.compile(dynamic=True)
    return len(parts)


def undo_compile(model: Any) -> None:
    """Let every part run as it was written."""
    for module in model.modules():
        module._compiled_call_impl = None


@contextmanager
def run_eager(model: Any) -> Iterator[None]:
    """Within, compiled parts run as they were written."""
    if not any(module._compiled_call_impl is not None for module in model.modules()):
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def _parts(model: Any) -> Iterator[torch.nn.Module]:
    n_layers = getattr(model.config, "num_hidden_layers", 0)
    for module in model.get_decoder().modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == n_layers:
            for layer in module:
                yield from (part for part in layer.children() if "forward" not in vars(part))
