"""What every update did: one line of JSON a step, readable while the run goes on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from oocr_influence.results.atomic import plain, writing_file


@dataclass(frozen=True, kw_only=True)
class StepRow:
    """One update; burn-in updates (rate 0, before the first step) are counted apart."""

    step: int
    """Counted from 1."""
    epoch: int
    """Counted from 1."""
    burn_in: bool = False
    learning_rate: float
    loss: float | None
    """Token mean over the step's labelled tokens; None where it was not finite."""
    grad_norm: float | None
    """Before clipping."""
    clip_factor: float | None
    """What the gradients were multiplied by: 1 where nothing was clipped."""
    labelled_tokens: int
    window_ids: list[str]
    """The windows of the batch, in the order in which they were trained."""
    seconds: float
    weight_updates_vanished: float | None = None
    """Of a sample of the weights that should have changed, the share that did not; None where it
    was not measured, as in logs of old."""
    update_realised: float | None = None
    """The sampled change, projected onto that of exact arithmetic: 1 where nothing is lost on
    average."""
    second_moments_stuck: float | None = None
    """Of a sample of the second moments that should have fallen, the share that did not."""


class StepLog:
    """Appends rows to a file, each flushed before the next step begins."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _end_torn_line(path)
        self._file = path.open("a", encoding="utf-8")

    def append(self, row: StepRow, **extra: Any) -> None:
        """Write one line; `extra` values stand beside those of the row."""
        values = plain(asdict(row) | extra)
        self._file.write(json.dumps(values, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> StepLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_steps(path: Path) -> Iterator[StepRow]:
    """The rows of a step log; a last line that a killed process tore is left out.

    Raises ValueError, with the line's number, if any other line is broken.
    """
    fields = StepRow.__dataclass_fields__
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            yield StepRow(**{name: values[name] for name in fields if name in values})
        except (ValueError, TypeError) as error:
            if number == len(lines):  # no newline after it: its writer did not live to the end
                return
            raise ValueError(f"{path.name}, line {number}: not a step ({error!r})") from error


def mean_update_losses(rows: Iterable[StepRow]) -> dict[str, Any]:
    """Means over the updates that were measured, by field, and how many there were."""
    measured = [row for row in rows if row.weight_updates_vanished is not None]
    means: dict[str, Any] = {"n_updates": len(measured)}
    for name in ("weight_updates_vanished", "update_realised", "second_moments_stuck"):
        values = [value for row in measured if (value := getattr(row, name)) is not None]
        means[name] = sum(values) / len(values) if values else None
    return means


def cut_after(path: Path, step: int, *, in_burn_in: int | None = None) -> None:
    """Leave the lines up to training step `step`, or, where it is 0, up to a burn-in step."""
    last = (False, in_burn_in) if step == 0 and in_burn_in is not None else (True, step)
    kept = []
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        values = json.loads(line)
        if (not values.get("burn_in", False), values["step"]) <= last:
            kept.append(line)
    with writing_file(path) as temporary:
        temporary.write_bytes(b"".join(kept))


def _end_torn_line(path: Path) -> None:
    """Cut a last line without a newline: a resumed run repeats that step."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
