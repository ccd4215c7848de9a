"""How code, environment and hardware of two runs differ, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from oocr_influence.results.code_differences import code_difference
from oocr_influence.results.differing import (
    Difference,
    Differences,
    Record,
    compare_logged,
    compare_named,
    compare_variables,
)

_OF_THE_JOB = {"SLURM_JOB_ID"}
_OF_THE_GPU = {"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"}


def differences_of_place(a: Record, b: Record) -> Differences:
    """Those of code, environment and hardware."""
    found = Differences()
    for compare in (_code, _environment, _hardware):
        compare(a, b, found)
    return found


def _code(a: Record, b: Record, found: Differences) -> None:
    if not a.git.get("commit") or not b.git.get("commit"):
        found.unknown.append("the code's commit")
        return
    told = code_difference(a.git, b.git, a.diff, b.diff)
    if told is not None:
        left, right = (
            {name: one.git.get(name) for name in ("commit", "diff_digest")} for one in (a, b)
        )
        found.found.append(Difference("code", "code", left, right, told.words, told.detail))


def _environment(a: Record, b: Record, found: Differences) -> None:
    left, right = a.provenance, b.provenance
    compare_named(found, "environment", "python", left, right)
    one, other = left.get("libraries") or {}, right.get("libraries") or {}
    for name in sorted(one.keys() | other.keys()):
        compare_named(found, "environment", name, one, other)
    one, other = left.get("environment"), right.get("environment")
    if one is None or other is None:
        found.unknown.append("environment variables")
    else:
        compare_variables(found, "environment", one, other, leave_out=_OF_THE_JOB | _OF_THE_GPU)
    one, other = (run.log_dict.get("torch_settings") or {} for run in (a, b))
    for name in sorted((one.keys() | other.keys()) - {"gpu"}):
        words = f"torch's {name.replace('_', ' ')}"
        compare_named(found, "environment", name, one, other, words=words)
    if not (one and other):
        found.unknown.append("torch's settings, such as its number of threads")


def _hardware(a: Record, b: Record, found: Differences) -> None:
    left, right = a.provenance, b.provenance
    for name, words in (
        ("host", "the machine"),
        ("cpu", "the processor"),
        ("cpus_allowed", "processors that may be used"),
        ("platform", "the system"),
    ):
        compare_named(found, "hardware", name, left, right, words=words)
    gpus, other_gpus = (
        {"gpus": _gpus(run["gpus"])} if run.get("gpus") is not None else {} for run in (left, right)
    )
    compare_named(found, "hardware", "gpus", gpus, other_gpus, words="the machine's GPUs")
    used, other_used = ((run.get("environment") or {}) for run in (left, right))
    leave_out = {*used, *other_used} - _OF_THE_GPU
    compare_variables(found, "hardware", used, other_used, leave_out=leave_out)
    compare_logged(found, a, b, "hardware", "device", "the device")


def _gpus(gpus: list[Mapping[str, Any]]) -> str:
    counted = Counter(f"{gpu.get('name')} (driver {gpu.get('driver')})" for gpu in gpus)
    return ", ".join(f"{n} × {name}" for name, n in sorted(counted.items())) or "none"
