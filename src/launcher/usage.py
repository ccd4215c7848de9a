"""What is being used: a GPU's load and memory, a folder's bytes. Blank where nobody can say."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pynvml


@dataclass(frozen=True)
class GpuUsage:
    """What the NVIDIA driver says of one GPU at this moment."""

    load: int
    """Share of the last sample in which something ran on it (percent)."""
    memory_used: int
    """Bytes."""
    memory_total: int
    """Bytes."""
    pids: tuple[int, ...]
    """Processes that compute on it; in a container, those of the container alone."""


def gpu_usage(names: Iterable[str]) -> dict[str, GpuUsage]:
    """The usage of GPUs by their names in CUDA_VISIBLE_DEVICES; those that cannot be asked lack."""
    wanted = sorted({name for name in names if name})
    if not wanted:
        return {}
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver, or no library
        return {}
    found = {}
    try:
        for name in wanted:
            with contextlib.suppress(pynvml.NVMLError):
                found[name] = _usage_of(name)
    finally:
        pynvml.nvmlShutdown()
    return found


def _usage_of(name: str) -> GpuUsage:
    by_index = name.isdecimal()
    handle = (
        pynvml.nvmlDeviceGetHandleByIndex(int(name))
        if by_index
        else pynvml.nvmlDeviceGetHandleByUUID(name)
    )
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return GpuUsage(
        load=int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu),
        memory_used=int(memory.used),
        memory_total=int(memory.total),
        pids=tuple(p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)),
    )


def folder_bytes(folder: Path, *, within: float) -> tuple[int, bool]:
    """Bytes on disk below `folder`, and whether all of it was seen within so many seconds.

    A file with several names counts once, as `du` counts it.
    """
    deadline = time.monotonic() + within
    total, links = 0, set()
    folders = [str(folder)]
    while folders:
        if time.monotonic() > deadline:
            return total, False
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                    continue
                stat = entry.stat(follow_symlinks=False)
                if stat.st_nlink > 1:
                    if (stat.st_dev, stat.st_ino) in links:
                        continue
                    links.add((stat.st_dev, stat.st_ino))
                total += stat.st_blocks * 512
    return total, True
