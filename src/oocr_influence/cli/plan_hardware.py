"""What a sweep is planned for: the GPUs of this machine, or of one that is elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from launcher.gpus import available_cpus, memory_bytes, name_of, visible_gpus
from oocr_influence.models.load import pick_device

# Memory (GB, 10^9 bytes) and dense bf16 TFLOP/s, as NVIDIA's data sheets state them.
KNOWN_GPUS: dict[str, tuple[int, int]] = {
    "A100-40GB": (40, 312),
    "A100-80GB": (80, 312),
    "H100-PCIe": (80, 756),
    "H100": (80, 989),
    "H200": (141, 989),
    "B200": (180, 2250),
    "L40S": (48, 362),
    "RTX4090": (24, 165),
}


@dataclass(frozen=True)
class Hardware:
    """Where the runs will be, and where that is known from."""

    kind: Literal["cuda", "cpu"]
    name: str
    units: int
    """GPUs, or cores where there is none."""
    memory_bytes: int | None
    """Of one GPU."""
    flops: float | None
    """Of one GPU at its peak, dense, in bf16 (FLOP/s)."""
    how: str

    def describe(self) -> str:
        """One line."""
        unit = "GPU" if self.kind == "cuda" else "core"
        memory = "" if self.memory_bytes is None else f", {self.memory_bytes / 2**30:.1f} GiB each"
        peak = "" if self.flops is None else f", {self.flops / 1e12:g} TFLOP/s each"
        plural = "s" * (self.units != 1)
        return f"{self.units} {unit}{plural} ({self.name}{memory}{peak}; {self.how})"


def hardware_of(
    *,
    device: str | None = None,
    gpus: int | None = None,
    device_memory: float | None = None,
    device_flops: float | None = None,
    on_cpu: bool = False,
) -> Hardware:
    """What was stated (GiB, TFLOP/s), and for the rest what this machine has.

    `on_cpu` is for runs without GPUs. Raises ValueError for a GPU that no data sheet is known of.
    """
    stated = any(value is not None for value in (device, gpus, device_memory, device_flops))
    if not stated and (on_cpu or pick_device().type != "cuda"):
        why = "runs are asked for without GPUs" if on_cpu else "there is no GPU here"
        return Hardware("cpu", "this machine's CPU", available_cpus(), None, None, why)
    if device is not None and device not in KNOWN_GPUS:
        raise ValueError(
            f"--device {device}: no data sheet of it here; choose among {', '.join(KNOWN_GPUS)}, "
            "or give --device_memory and --device_flops"
        )
    here = visible_gpus()
    own = name_of(here[0]) if here else None
    sheet = device or sheet_of(own)
    known = KNOWN_GPUS.get(sheet or "")
    memory: int | None = None
    if device_memory is not None:
        memory = round(device_memory * 2**30)
    elif device is not None and known:
        memory = known[0] * 10**9
    elif here:
        memory = memory_bytes(here[0])
    peak = None if known is None else known[1] * 1e12
    if device_flops is not None:
        peak = device_flops * 1e12
    return Hardware(
        kind="cuda",
        name=device or own or "a GPU",
        units=gpus if gpus is not None else max(1, len(here)),
        memory_bytes=memory,
        flops=peak,
        how="as stated" if stated else "of this machine",
    )


def sheet_of(name: str | None) -> str | None:
    """The data sheet of a GPU by its driver's name: `NVIDIA H100 80GB HBM3` is an H100."""
    words = (name or "").replace("-", " ").replace("_", " ").upper()
    if "A100" in words:
        return "A100-80GB" if "80GB" in words else "A100-40GB"
    if "H100" in words:
        return "H100-PCIe" if "PCIE" in words else "H100"
    if "4090" in words:
        return "RTX4090"
    return next((sheet for sheet in ("H200", "B200", "L40S") if sheet in words), None)
