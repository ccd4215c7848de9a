"""What runs took: time and memory a phase, and what lies on the disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from oocr_influence.reports.page.groups import Group, Run
from oocr_influence.reports.page.numbers import mean, short
from oocr_influence.results.run_folder import CHECKPOINT

# Folders of a run by what they hold; what is in none of them is `other`.
_PARTS = {
    "eval_results": "answers",
    "eval_datasets": "questions asked",
    "train_set": "training windows",
    "train_set_documents": "training windows",
    "saved_objects": "step logs",
}
_INSIDE_TRAINING = ("evaluate", "save", "document_losses", "save_stall")


def phases(group: Group) -> list[dict[str, Any]]:
    """Each phase of a group's runs: seconds and peak memory, mean and range over runs.

    `inside` is a phase that another holds. Memory is the most that the process held (bytes).
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for run in group.runs:
        told = run.log_dict.get("phases")
        for name, entry in (told if isinstance(told, dict) else {}).items():
            if isinstance(entry, dict):
                found.setdefault(name, []).append(entry)
    in_time = sorted(found, key=lambda name: min(str(e.get("start")) for e in found[name]))
    return [
        {
            "name": name,
            "inside": "train" if name in _INSIDE_TRAINING and "train" in found else None,
            "n_runs": len(entries),
            "count": max(int(entry.get("count") or 0) for entry in entries),
            "seconds": _range([entry.get("seconds") for entry in entries]),
            "memory": _most([entry.get("peak_rss_bytes") for entry in entries]),
            "gpu_memory": _most([entry.get("gpu_peak_bytes") for entry in entries]),
        }
        for name, entries in ((name, found[name]) for name in in_time)
    ]


def disk(runs: Sequence[Run]) -> dict[str, int]:
    """Bytes on disk of some runs by what they are for; a file of several names counts once."""
    found: dict[str, int] = {}
    seen: set[tuple[int, int]] = set()
    for run in runs:
        for part, n_bytes in _parts(run.folder.path, seen):
            found[part] = found.get(part, 0) + n_bytes
    return dict(sorted(found.items(), key=lambda one: -one[1]))


def _parts(folder: Path, seen: set[tuple[int, int]]) -> list[tuple[str, int]]:
    found = []
    with suppress(OSError):
        for entry in sorted(os.scandir(folder), key=lambda one: one.name):
            part = "checkpoints" if entry.name.startswith(CHECKPOINT) else None
            part = part or _PARTS.get(entry.name, "other")
            if entry.is_dir(follow_symlinks=False):
                found.append((part, sum(_bytes_of(path, seen) for path in _files(entry.path))))
            else:
                found.append((part, _bytes_of(entry.path, seen)))
    return found


def _files(folder: str) -> list[str]:
    return [os.path.join(top, name) for top, _, names in os.walk(folder) for name in names]  # noqa: PTH118


def _bytes_of(path: str, seen: set[tuple[int, int]]) -> int:
    try:
        stat = Path(path).lstat()
    except OSError:  # deleted meanwhile
        return 0
    key = (stat.st_dev, stat.st_ino)
    if stat.st_nlink > 1 and key in seen:
        return 0
    seen.add(key)
    return stat.st_blocks * 512


def _range(values: Sequence[Any]) -> dict[str, Any] | None:
    known = [float(value) for value in values if isinstance(value, int | float)]
    if not known:
        return None
    return {"mean": short(mean(known)), "low": short(min(known)), "high": short(max(known))}


def _most(values: Sequence[Any]) -> int | None:
    known = [int(value) for value in values if isinstance(value, int | float) and value > 0]
    return max(known, default=None)


__all__ = ["disk", "phases"]
