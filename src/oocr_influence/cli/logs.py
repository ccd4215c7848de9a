"""What a job printed, and prints.

    oocr logs all_docs_seed_42 -f      # a job of the only sweep that has one of this name
    oocr logs mayors/all_docs_seed_42  # of a sweep, named as for `oocr status`

With -f it follows the log, over all attempts, until the job has ended for good, or until nobody
works on its sweep any more. A log that is deleted or replaced meanwhile is followed on.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import BinaryIO

from pydantic import Field

from launcher.status import JobStatus, read_sweep
from oocr_influence.cli.arguments import CommandArguments, run_command
from oocr_influence.cli.sweeps import find_job, folder_of

LOOK = 0.2  # seconds between two looks at the log
ASK = 1.0  # seconds between two looks at whether the job has ended
BLOCK = 65536  # bytes


class LogsArguments(CommandArguments):
    """Which job, and how much of its log."""

    job: str = Field(json_schema_extra={"positional": True})
    """the job: its id, SWEEP/ID, or its folder"""
    follow: bool = Field(default=False, json_schema_extra={"also": ["-f"]})
    """go on until the job has ended"""
    lines: int = Field(default=50, ge=0, json_schema_extra={"also": ["-n"]})
    """how many of the last lines to begin with (lines)"""
    output_dir: Path = Path("outputs")
    """the folder that experiments are written to"""


def main(args: LogsArguments) -> int:
    """Print the end of the log, and follow it; returns 1 where the job has failed for good."""
    folder = find_job(args.job, args.output_dir)
    tail = LogTail(folder / "log")
    sys.stdout.buffer.write(tail.last_lines(args.lines))
    sys.stdout.flush()
    if not args.follow:
        if not tail.path.exists():
            print(f"{folder.name} has not printed anything yet", file=sys.stderr)
        return 0
    return _follow(folder, tail)


def _follow(folder: Path, tail: LogTail) -> int:
    asked_at = 0.0
    while True:
        over = None
        if time.monotonic() - asked_at > ASK:
            asked_at, over = time.monotonic(), _over(folder)
        # Looked at after the question, so that the last lines before the end are not missed.
        sys.stdout.buffer.write(tail.new())
        sys.stdout.flush()
        if over is not None:
            print(over[1], file=sys.stderr)
            return over[0]
        time.sleep(LOOK)


def _over(folder: Path) -> tuple[int, str] | None:
    """The exit status and the last word, once nothing more will come."""
    sweep = read_sweep(folder.parent)
    job = next((job for job in sweep.jobs if job.folder.name == folder.name), None)
    if job is None:
        return 1, f"{folder} is gone"
    if job.state in ("done", "failed"):
        return int(job.state == "failed"), _word(job)
    if sweep.is_live:
        return None
    return 0, f"{_word(job)}; nobody works on it: oocr resume {folder_of(sweep.folder)}"


def _word(job: JobStatus) -> str:
    return f"{job.id}: {job.state}" + (f" ({job.message})" if job.message else "")


class LogTail:
    """A log from where we have read it, whatever becomes of its file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None

    def last_lines(self, count: int) -> bytes:
        """The last lines; `new` goes on behind them."""
        self._open()
        if self._file is None:
            return b""
        end = at = self._file.seek(0, os.SEEK_END)
        data = b""
        # One more line end than lines, to know where the first of them begins.
        while at > 0 and data.count(b"\n") <= count:
            size = min(BLOCK, at)
            at = self._file.seek(at - size)
            data = self._file.read(size) + data
        self._file.seek(end)  # and not to where it ends by now
        lines = data.splitlines(keepends=True)
        return b"".join(lines[len(lines) - min(count, len(lines)) :])

    def new(self) -> bytes:
        """What has come since the last call."""
        if self._file is None:
            self._open()
        if self._file is None:
            return b""
        data = self._file.read()
        try:
            now = os.stat(self.path)  # noqa: PTH116
        except FileNotFoundError:
            return data  # deleted: whoever writes it has it open still, and so have we
        own = os.fstat(self._file.fileno())
        if (now.st_dev, now.st_ino) != (own.st_dev, own.st_ino):
            data += self._file.read()
            self._file.close()
            self._open()
            return data + (self._file.read() if self._file else b"")
        if now.st_size < self._file.tell():  # emptied
            self._file.seek(0)
            data += self._file.read()
        return data

    def _open(self) -> None:
        try:
            self._file = self.path.open("rb")
        except FileNotFoundError:
            self._file = None


if __name__ == "__main__":
    run_command(LogsArguments, main)
