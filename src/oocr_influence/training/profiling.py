"""Where an update's time and memory go: a trace, and a table that a person can read.

    profiler = StepProfiler(folder)
    profiler.after_update(optimizer_state)      # after every update; it measures the third to fifth

The trace (`trace.json.gz`) opens in https://ui.perfetto.dev or chrome://tracing. Parts of an update
are the loop's own labels (training/loop.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

PARTS = ("forward", "backward", "clip", "wait", "step")
SKIPPED, MEASURED = 2, 3
_ROWS = 25


class StepProfiler:
    """Measures a few updates of this process, after the first ones, which are slower than any."""

    def __init__(self, folder: Path, model: torch.nn.Module) -> None:
        self.folder, self._model = folder, model
        self._device = next(model.parameters()).device
        self._updates = 0
        self._profile: Any = None

    def after_update(self, optimizer_state: Any) -> None:
        """Begin or end to measure; `optimizer_state` is the optimizer's `state_dict()`."""
        self._updates += 1
        if self._updates == SKIPPED:
            self._begin()
        elif self._updates == SKIPPED + MEASURED:
            self._end(optimizer_state)

    def close(self) -> None:
        """Stop where a run ends before all was measured; nothing is written then."""
        if self._profile is not None:
            self._profile.stop()
            self._profile = None

    def _begin(self) -> None:
        activities = [ProfilerActivity.CPU]
        if self._device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
            torch.cuda.synchronize(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
        self._profile = profile(activities=activities, profile_memory=True)
        self._profile.start()

    def _end(self, optimizer_state: Any) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        measured, self._profile = self._profile, None
        measured.stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        measured.export_chrome_trace(str(self.folder / "trace.json.gz"))
        text = "\n\n".join(
            (
                _parts_table(measured.key_averages(), on_gpu=self._device.type == "cuda"),
                self._memory_table(optimizer_state),
                _operators_table(measured.key_averages(), on_gpu=self._device.type == "cuda"),
            )
        )
        (self.folder / "table.txt").write_text(text + "\n", encoding="utf-8")

    def _memory_table(self, optimizer_state: Any) -> str:
        weights = list(self._model.parameters())
        trained = [weight for weight in weights if weight.requires_grad]
        moments = [
            value
            for state in optimizer_state["state"].values()
            for value in state.values()
            if isinstance(value, torch.Tensor)
        ]
        rows = [
            ("weights", _bytes(weights)),
            ("gradients", _bytes(trained)),  # of the weights' kind and size
            ("optimizer", _bytes(moments)),
        ]
        if self._device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self._device)
            rows.append(("activations and the rest, at the peak", peak - sum(n for _, n in rows)))
            rows.append(("peak", peak))
            rows.append(("held by torch", torch.cuda.max_memory_reserved(self._device)))
        lines = [f"{name:40} {n / 2**30:9.3f} GiB" for name, n in rows]
        return "\n".join(["memory", *lines])


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _parts_table(averages: Any, *, on_gpu: bool) -> str:
    by_name = {event.key: event for event in averages if event.key in PARTS}
    lines = [f"seconds an update, mean of {MEASURED}"]
    for name in PARTS:
        if (event := by_name.get(name)) is None:
            continue
        line = f"{name:10} {event.cpu_time_total / 1e6 / MEASURED:9.4f} CPU"
        if on_gpu:
            line += f" {event.device_time_total / 1e6 / MEASURED:9.4f} GPU"
        lines.append(line)
    return "\n".join(lines)


def _operators_table(averages: Any, *, on_gpu: bool) -> str:
    order = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
    table: str = averages.table(sort_by=order, row_limit=_ROWS, max_name_column_width=60)
    return f"operators, {MEASURED} updates\n{table}"
