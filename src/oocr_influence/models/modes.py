"""A model's modes, put back module by module: parts of it may be set apart from the rest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def modes_kept(model: torch.nn.Module) -> Iterator[None]:
    """Within, the model may be set to train or to eval; afterwards each module is as it was."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, was_training in modes.items():
            module.training = was_training
