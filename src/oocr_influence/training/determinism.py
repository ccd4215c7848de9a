"""The same bits from every run of the same arguments, on a GPU too, at some cost in speed.

torch picks deterministic kernels and raises where it has none. For attention that is the backward
pass of the flash and memory-efficient kernels with one order of summation; cuDNN's attention torch
leaves out. cuBLAS needs a fixed workspace, which it reads from the environment when the process
first uses the GPU.
https://docs.pytorch.org/docs/stable/notes/randomness.html
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

VARIABLE, WORKSPACE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
_DETERMINISTIC = (":4096:8", ":16:8")


@contextmanager
def deterministic_algorithms(asked: bool) -> Iterator[None]:
    """Deterministic kernels while the body runs, if `asked`; then as before.

    To be entered before the process uses a GPU. Raises RuntimeError where `workspace_fault` says
    why that cannot be.
    """
    if not asked:
        yield
        return
    if (fault := workspace_fault()) is not None:
        raise RuntimeError(fault)
    os.environ.setdefault(VARIABLE, WORKSPACE)
    cudnn = torch.backends.cudnn
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        cudnn.deterministic,
        cudnn.benchmark,
    )
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.deterministic, cudnn.benchmark = before[2:]


def workspace_fault() -> str | None:
    """Why cuBLAS would not be deterministic in this process; None if it can be made so."""
    value = os.environ.get(VARIABLE)
    if value is None and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return f"this process uses the GPU already: set {VARIABLE}={WORKSPACE} before it starts"
    if value is not None and value not in _DETERMINISTIC:
        choices = " or ".join(_DETERMINISTIC)
        return f"{VARIABLE}={value} is not deterministic: unset it, or set it to {choices}"
    return None
