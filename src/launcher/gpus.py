"""Which GPUs are ours, and how they are shared out: one slot a worker.

python -c "from launcher.gpus import visible_gpus; print(visible_gpus())"
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pynvml

logger = logging.getLogger("launcher")

# Two threads on a busy core are slower than one, so a CPU slot is one core and one thread.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True)
class Slot:
    """Where one job at a time can run: some GPUs, or one core where `gpus` is empty."""

    number: int
    gpus: tuple[str, ...]

    def environment(self) -> dict[str, str]:
        """The variables that pin a worker, and all that it starts, to this slot."""
        if self.gpus:
            return {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)}
        # Empty hides every GPU; unset would show them all.
        return {"CUDA_VISIBLE_DEVICES": "", **_ONE_THREAD}

    def __str__(self) -> str:
        return f"GPU {','.join(self.gpus)}" if self.gpus else f"CPU slot {self.number}"


def visible_gpus(environment: Mapping[str, str] | None = None) -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES would name them.

    That variable is believed where it is set, as Slurm and others set it; else the driver is asked,
    and answers with UUIDs, which mean the same GPU whatever order CUDA counts in.
    """
    named = (os.environ if environment is None else environment).get("CUDA_VISIBLE_DEVICES")
    return _gpus_of_driver() if named is None else _gpus_named(named)


def _gpus_named(named: str) -> list[str]:
    gpus: list[str] = []
    for name in (part.strip() for part in named.split(",")):
        # CUDA too stops at the first name that is none; "NoDevFiles" is how Slurm says none.
        if name in ("", "-1", "NoDevFiles"):
            break
        if name in gpus:
            raise ValueError(f"CUDA_VISIBLE_DEVICES={named!r} names GPU {name} twice")
        gpus.append(name)
    return gpus


def _gpus_of_driver() -> list[str]:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver, or no library: no GPU
        return []
    try:
        count = pynvml.nvmlDeviceGetCount()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        uuids = [pynvml.nvmlDeviceGetUUID(handle) for handle in handles]
    except pynvml.NVMLError as error:
        raise RuntimeError(
            f"the NVIDIA driver does not answer ({error}); name the GPUs in CUDA_VISIBLE_DEVICES, "
            "or set it empty to run on the CPU"
        ) from error
    finally:
        pynvml.nvmlShutdown()
    return [uuid.decode() if isinstance(uuid, bytes) else str(uuid) for uuid in uuids]


def memory_bytes(gpu: str) -> int | None:
    """Memory of a GPU by its name in CUDA_VISIBLE_DEVICES; None if the driver does not say."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        if gpu.isdecimal():
            handle = pynvml.nvmlDeviceGetHandleByIndex(int(gpu))
        else:
            handle = pynvml.nvmlDeviceGetHandleByUUID(gpu)
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def slots(gpus: Sequence[str], gpus_per_job: int = 1) -> list[Slot]:
    """Share `gpus` out, `gpus_per_job` a slot; without any, one slot a core.

    `gpus_per_job=0` asks for CPU slots where there are GPUs too.
    """
    if gpus_per_job < 0:
        raise ValueError(f"gpus_per_job must be 0 or more, not {gpus_per_job}")
    if gpus_per_job == 0 or (gpus_per_job == 1 and not gpus):
        return [Slot(number, ()) for number in range(available_cpus())]
    if gpus_per_job > len(gpus):
        raise ValueError(f"gpus_per_job is {gpus_per_job}, but only {len(gpus)} GPUs are visible")
    starts = range(0, len(gpus) - gpus_per_job + 1, gpus_per_job)
    shared = [Slot(n, tuple(gpus[at : at + gpus_per_job])) for n, at in enumerate(starts)]
    if left := list(gpus[len(shared) * gpus_per_job :]):
        logger.warning(
            "%d of %d GPUs stay idle (%s): gpus_per_job is %d",
            *(len(left), len(gpus), ", ".join(left), gpus_per_job),
        )
    return shared


def available_cpus(cgroups: Path = Path("/sys/fs/cgroup"), own: Path | None = None) -> int:
    """Cores that this process may really use: its affinity, cut by its container's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _cgroup_quota(cgroups, own or Path("/proc/self/cgroup"))
    return max(1, min(cores or 1, int(quota) if quota is not None else cores or 1))


def _cgroup_quota(cgroups: Path, own: Path) -> float | None:
    """The smallest CPU quota on the way from our control group up to the root, in cores."""
    try:
        groups = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return None
    quotas = []
    for _, controllers, path in groups:
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = cgroups / "cpu" if controllers else cgroups
        group = root / path.strip("/")
        # Inside a container the named path may be the host's; the root is then our own group.
        for folder in [group, *(p for p in group.parents if p.is_relative_to(root))]:
            quotas.append(_quota_of(folder))
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota_of(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return None if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError):
        return None
