"""What workers have done, heard from the lines that they write: cheap, and never the truth."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.growing import GrowingFiles
from launcher.worker_settings import WORKERS


@dataclass(frozen=True)
class Event:
    """A line of a worker's events."""

    kind: str
    """taken or ended, of a job; started or ended, of the worker itself, where `job` is its sweep"""
    job: Path
    where: str
    """The GPU, for people."""


class EventReader:
    """Reads on where it stopped, in the files of all workers of some sweeps."""

    def __init__(self, sweeps: Sequence[Path], *, from_start: bool = False) -> None:
        self._sweeps = list(sweeps)
        self._lines = GrowingFiles()
        self._host = socket.gethostname()
        self._hosts: dict[Path, str] = {}
        if not from_start:
            for path in self._files():
                self._lines.skip(path)

    def _files(self) -> list[Path]:
        return [path for sweep in self._sweeps for path in (sweep / WORKERS).glob("*.events")]

    def new(self) -> list[Event]:
        """The whole lines that have come since the last call."""
        found = []
        for path in self._files():
            found += [self._event(path, line) for line in self._lines.new_lines(path)]
        return [event for event in found if event is not None]

    def _event(self, path: Path, line: bytes) -> Event | None:
        try:
            record = json.loads(line)
            kind, job = record["event"], Path(record["job"])
        except (ValueError, KeyError, TypeError):
            return None
        if kind == "started":
            self._hosts[path] = record.get("host", "")
        gpus, host = record.get("gpus"), self._hosts.get(path, self._host)
        where = f"GPU {gpus}" if gpus else "a core"
        return Event(kind, job, where if host == self._host else f"{where} of {host}")
