"""Which GPUs are found and how they are shared out, with drivers and control groups made up."""

import logging
import os
from types import SimpleNamespace

import pynvml
import pytest

from launcher.gpus import available_cpus, places, used_by_strangers, visible_gpus


@pytest.mark.parametrize(
    ("named", "gpus"),
    [
        ("0,1", ["0", "1"]),
        (" 3 , GPU-8932f937-d72c ", ["3", "GPU-8932f937-d72c"]),
        ("", []),
        ("-1", []),
        ("0,-1,1", ["0"]),
        ("NoDevFiles", []),
    ],
)
def test_the_variable_is_believed(named, gpus, monkeypatch):
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: pytest.fail("the driver was asked"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus() == gpus


def test_a_gpu_named_twice_is_refused():
    with pytest.raises(ValueError, match="GPU 1 twice"):
        visible_gpus({"CUDA_VISIBLE_DEVICES": "1,0,1"})


def test_without_the_variable_the_driver_is_asked(monkeypatch):
    ended = []
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: ended.append(True))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 2)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUUID", lambda index: f"GPU-{index}")
    assert visible_gpus({}) == ["GPU-0", "GPU-1"]
    assert ended == [True]


@pytest.mark.parametrize(
    "kind", ["NVML_ERROR_LIBRARY_NOT_FOUND", "NVML_ERROR_DRIVER_NOT_LOADED", "NVML_ERROR_UNKNOWN"]
)
def test_no_driver_is_no_gpu(monkeypatch, kind):
    def no_driver():
        raise pynvml.NVMLError(getattr(pynvml, kind))

    monkeypatch.setattr(pynvml, "nvmlInit", no_driver)
    assert visible_gpus({}) == []


def test_a_driver_that_breaks_down_is_not_taken_for_none(monkeypatch):
    def lost():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lost)
    with pytest.raises(RuntimeError, match="CUDA_VISIBLE_DEVICES"):
        visible_gpus({})


def test_gpus_are_shared_out_whole_and_what_is_left_is_said_once(caplog):
    with caplog.at_level(logging.WARNING, logger="launcher"):
        shared = places(["0", "1", "2", "3", "4"], 2)
    assert shared == {f"gpu-{n}": f"{n}" for n in range(5)}
    assert [record.getMessage() for record in caplog.records] == [
        "1 of 5 GPUs stay idle: gpus_per_job is 2"
    ]
    caplog.clear()
    assert len(places(["0", "1"], 1)) == 2
    assert not caplog.records


def test_too_few_gpus_name_both_numbers():
    with pytest.raises(ValueError, match="gpus_per_job is 8, but only 2 GPUs"):
        places(["0", "1"], 8)
    with pytest.raises(ValueError, match="gpus_per_job is 2, but only 0 GPUs"):
        places([], 2)
    with pytest.raises(ValueError, match="0 or more, not -1"):
        places(["0"], -1)


def test_without_gpus_there_is_a_place_a_core(monkeypatch):
    monkeypatch.setattr("launcher.gpus.available_cpus", lambda: 3)
    cores = {"cpu-0": "", "cpu-1": "", "cpu-2": ""}
    assert places([]) == cores
    # Who wants no GPU is not shown any.
    assert places(["0"], 0) == cores


@pytest.fixture
def driver(monkeypatch):
    """A made-up driver of two GPUs: what runs on each, and the memory used (bytes)."""
    running = {0: ([], 0), 1: ([], 0)}
    uuids = ["GPU-aa", "GPU-bb"]
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", uuids.index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUUID", lambda handle: uuids[handle])
    monkeypatch.setattr(
        pynvml,
        "nvmlDeviceGetComputeRunningProcesses",
        lambda handle: [SimpleNamespace(pid=pid) for pid in running[handle][0]],
    )
    monkeypatch.setattr(
        pynvml, "nvmlDeviceGetMemoryInfo", lambda handle: SimpleNamespace(used=running[handle][1])
    )
    return running


def test_a_gpu_has_one_lock_whatever_it_is_called(driver):
    assert places(["1"]) == {"gpu-GPU-bb": "1"}
    assert places(["GPU-bb"]) == {"gpu-GPU-bb": "GPU-bb"}


def test_strangers_on_a_gpu_are_seen_and_our_own_are_not(driver):
    shared = places(["0", "1"])
    assert used_by_strangers(shared, []) == []
    driver[0] = ([1, os.getpid()], 10 << 30)
    assert used_by_strangers(shared, [os.getpid()]) == ["gpu-GPU-aa"]
    driver[0] = ([os.getpid()], 10 << 30)
    assert used_by_strangers(shared, [os.getpid()]) == []
    # Another container's processes are not listed; the memory that they use is.
    driver[1] = ([], 10 << 30)
    assert used_by_strangers(shared, []) == ["gpu-GPU-aa", "gpu-GPU-bb"]


@pytest.mark.parametrize(
    ("files", "membership", "cores"),
    [
        ({}, "0::/\n", 16),
        ({"cpu.max": "max 100000\n"}, "0::/\n", 16),
        ({"cpu.max": "350000 100000\n"}, "0::/\n", 3),
        ({"cpu.max": "50000 100000\n"}, "0::/\n", 1),
        ({"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"}, "0::/a/b\n", 2),
        ({"a/cpu.max": "200000 100000"}, "0::/other\n", 16),
        ({"cpu.max": "400000 100000"}, "0::/docker/of/the/host\n", 4),
        (
            {"cpu/x/cpu.cfs_quota_us": "500000\n", "cpu/x/cpu.cfs_period_us": "100000\n"},
            "4:cpu,cpuacct:/x\n3:memory:/y\n",
            5,
        ),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu:/\n", 16),
    ],
)
def test_a_containers_quota_limits_the_cores(tmp_path, monkeypatch, files, membership, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    for name, text in files.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(text)
    (tmp_path / "own").write_text(membership)
    assert available_cpus(tmp_path / "fs", tmp_path / "own") == cores
