"""Telling those who run a sweep that a failed job shall be tried again.

SWEEP/retries.jsonl      a line for each: {"job": id, "asked_at": …}

The truth is the mark that `claims.ask_again` makes; this list only spares everybody from looking at
every failed job again and again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from launcher.claims import ask_again
from launcher.growing import GrowingFiles
from launcher.jobs import Job
from launcher.ledger import utc_now

RETRIES_FILE = "retries.jsonl"


def ask_for_retry(job: Job, *, why: str) -> bool:
    """Have a failed job tried again by whoever runs its sweep; False where it has not failed."""
    if not ask_again(job, why=why):
        return False
    line = json.dumps({"job": job.folder.name, "asked_at": utc_now()}) + "\n"
    with (job.folder.parent / RETRIES_FILE).open("ab", buffering=0) as file:
        file.write(line.encode())
    return True


class RetryReader:
    """The jobs that were asked for since it was made, or since the last look."""

    def __init__(self, sweeps: Sequence[Path]) -> None:
        self._files = [sweep / RETRIES_FILE for sweep in sweeps]
        self._lines = GrowingFiles()
        for path in self._files:
            if path.exists():
                self._lines.skip(path)

    def new(self) -> list[Path]:
        """Their folders, in order; each as often as it was asked for."""
        found = []
        for path in self._files:
            names = map(_job_name, self._lines.new_lines(path))
            found += [path.parent / name for name in names if name]
        return found


def _job_name(line: bytes) -> str | None:
    try:
        return str(json.loads(line)["job"])
    except (ValueError, KeyError, TypeError):
        return None
