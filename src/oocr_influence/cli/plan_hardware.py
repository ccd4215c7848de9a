"""What a sweep is planned for: the GPUs of this machine, or of one that is elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    flops_stated: bool = False
    """Whether the peak is a person's, for whatever precision they train in."""

    def at(self, precision: str) -> Hardware:
        """The same for training in this precision: data sheets' peaks are for bf16."""
        known = self.flops_stated or precision != "fp32"
        return self if known else replace(self, flops=None)


def hardware_of(
    *,
    device: str | None = None,
    gpus: int | None = None,
    device_memory: float | None = None,
    device_flops: float | None = None,
    on_cpu: bool = False,
    here: bool = True,
) -> Hardware:
    """What was stated (GiB, TFLOP/s), and for the rest what this machine has.

    `on_cpu` is for runs without GPUs; not `here`, on a cluster, nothing is known that is not
    stated. Raises ValueError for a GPU that no data sheet is known of.
    """
    stated = any(value is not None for value in (device, gpus, device_memory, device_flops))
    if not stated and (on_cpu or (here and pick_device().type != "cuda")):
        why = "runs are asked for without GPUs" if on_cpu else "there is no GPU here"
        return Hardware("cpu", "this machine's CPU", available_cpus(), None, None, why)
    if not stated and not here:
        why = "not known here: --device and --gpus state them"
        return Hardware("cuda", "the cluster's", 1, None, None, why)
    if device is not None and device not in KNOWN_GPUS:
        raise ValueError(
            f"--device {device}: no data sheet of it here; choose among {', '.join(KNOWN_GPUS)}, "
            "or give --device_memory and --device_flops"
        )
    visible = visible_gpus() if here else []
    own = name_of(visible[0]) if visible else None
    sheet = device or sheet_of(own)
    known = KNOWN_GPUS.get(sheet or "")
    memory: int | None = None
    if device_memory is not None:
        memory = round(device_memory * 2**30)
    elif device is not None and known:
        memory = known[0] * 10**9
    elif visible:
        memory = memory_bytes(visible[0])
    peak = None if known is None else known[1] * 1e12
    if device_flops is not None:
        peak = device_flops * 1e12
    return Hardware(
        kind="cuda",
        name=device or own or "a GPU",
        units=gpus if gpus is not None else max(1, len(visible)),
        memory_bytes=memory,
        flops=peak,
        how="as stated" if stated else "of this machine",
        flops_stated=device_flops is not None,
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
