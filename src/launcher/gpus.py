"""Which GPUs there are, what else uses them, and the cores that stand in where there are none.

python -c "from launcher.gpus import visible_gpus; print(visible_gpus())"
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pynvml

logger = logging.getLogger("launcher")

# Two threads on a busy core are slower than one: a job without a GPU has one core, one thread.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


NO_GPU = ""  # as CUDA_VISIBLE_DEVICES: hides every GPU; unset, it would show them all

_STRANGERS_BYTES = 2 << 30  # more than a driver keeps for itself on an idle GPU


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
    with _driver() as there:
        if not there:
            return None
        try:
            return int(pynvml.nvmlDeviceGetMemoryInfo(_handle(gpu)).total)
        except pynvml.NVMLError:
            return None


def name_of(gpu: str) -> str | None:
    """What the driver calls a GPU, by its name in CUDA_VISIBLE_DEVICES; None if it does not say."""
    with _driver() as there:
        if not there:
            return None
        try:
            name = pynvml.nvmlDeviceGetName(_handle(gpu))
        except pynvml.NVMLError:
            return None
    return name.decode() if isinstance(name, bytes) else str(name)


def places(gpus: Sequence[str], each: int = 1) -> dict[str, str]:
    """Where jobs of `each` GPUs can run: names of locks to names in CUDA_VISIBLE_DEVICES.

    Cores, whose GPU is none, where there are no GPUs, or where `each` is 0. A GPU's lock is named
    by its UUID if the driver can be asked, so that it is the same one whatever a sweep calls it.
    """
    if each < 0:
        raise ValueError(f"gpus_per_job must be 0 or more, not {each}")
    if each == 0 or (each == 1 and not gpus):
        return {f"cpu-{number}": NO_GPU for number in range(available_cpus())}
    if each > len(gpus):
        raise ValueError(f"gpus_per_job is {each}, but only {len(gpus)} GPUs are visible")
    if left := len(gpus) % each:
        logger.warning("%d of %d GPUs stay idle: gpus_per_job is %d", *(left, len(gpus), each))
    uuids = _uuids(gpus)
    return {f"gpu-{uuids.get(gpu, gpu)}": gpu for gpu in gpus}


def used_by_strangers(places: Mapping[str, str], own: Collection[int]) -> list[str]:
    """The locks of those GPUs that processes other than `own` and their children use.

    Read through the driver; in a container, which does not see others' processes, by their memory.
    """
    found = []
    for lock, gpu in places.items():
        used = _processes_on(gpu) if gpu else None
        if used is None:
            continue
        processes, memory = used
        strangers = [pid for pid in processes if not _descends_from(pid, own)]
        if strangers or (not processes and memory > _STRANGERS_BYTES):
            found.append(lock)
    return found


def _processes_on(gpu: str) -> tuple[list[int], int] | None:
    """The compute processes on a GPU and its used memory (bytes); None if nobody can say."""
    with _driver() as there:
        if not there:
            return None
        try:
            handle = _handle(gpu)
            processes = [p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)]
            return processes, int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
        except pynvml.NVMLError:
            return None


def _descends_from(pid: int, own: Collection[int]) -> bool:
    try:
        process = psutil.Process(pid)
        return pid in own or any(parent.pid in own for parent in process.parents())
    except psutil.Error:
        return False


def _uuids(gpus: Sequence[str]) -> dict[str, str]:
    with _driver() as there:
        if not there:
            return {}
        found = {}
        for gpu in gpus:
            with contextlib.suppress(pynvml.NVMLError):
                uuid = pynvml.nvmlDeviceGetUUID(_handle(gpu))
                found[gpu] = uuid.decode() if isinstance(uuid, bytes) else str(uuid)
        return found


def _handle(gpu: str) -> Any:
    if gpu.isdecimal():
        return pynvml.nvmlDeviceGetHandleByIndex(int(gpu))
    return pynvml.nvmlDeviceGetHandleByUUID(gpu)


@contextlib.contextmanager
def _driver() -> Iterator[bool]:
    """Whether the NVIDIA driver can be asked, for as long as the context lasts."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver, or no library: no GPU
        yield False
        return
    try:
        yield True
    finally:
        pynvml.nvmlShutdown()


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
