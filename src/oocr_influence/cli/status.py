"""How sweeps go: jobs, steps, losses, time, disk, GPUs.

    oocr status                        # all unfinished sweeps under outputs/, newest first
    oocr status outputs/…_mayors       # one of them, job by job
    oocr status --json                 # for scripts

In a terminal it is renewed until nobody works on the sweeps any more, or until Ctrl-C, which stops
the looking alone. docs/sweeps.md lists the keys of `--json`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field
from rich.console import Console, Group
from rich.live import Live

from launcher.status import SweepStatus, read_sweep
from launcher.usage import GpuUsage, folder_bytes, gpu_usage
from oocr_influence.cli.arguments import CommandArguments, UsageError, run_command
from oocr_influence.cli.status_view import DiskUse, as_json, sweep_block, sweeps_block
from oocr_influence.cli.sweeps import find_sweeps, folder_of

DISK_EVERY = 20.0  # seconds between two looks at how much a sweep has written
DISK_WITHIN = 0.1  # seconds that one such look may take


class StatusArguments(CommandArguments):
    """Which sweeps, and for whom."""

    sweeps: list[Path] = Field(default=[], json_schema_extra={"positional": True})
    """experiments' folders, or parts of their names (none: all unfinished ones in --output_dir)"""
    output_dir: Path = Path("outputs")
    """the folder that experiments are written to"""
    once: bool = False
    """print once, in a terminal too"""
    as_json: bool = Field(default=False, json_schema_extra={"also": ["--json"]})
    """print JSON, once"""
    every: float = Field(default=1.0, gt=0)
    """how often the table is renewed in a terminal (seconds)"""


class DiskWatch:
    """How much sweeps have written, looked at now and then."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[float, DiskUse]] = {}

    def of(self, sweep: Path) -> DiskUse:
        """Bytes of the sweep's experiment, and whether that is all of them."""
        looked = self._seen.get(sweep)
        if looked is None or time.monotonic() - looked[0] > DISK_EVERY:
            found = DiskUse(*folder_bytes(folder_of(sweep), within=DISK_WITHIN))
            looked = self._seen[sweep] = (time.monotonic(), found)
        return looked[1]


def main(args: StatusArguments) -> int:
    """Print, once or again and again; returns 0."""
    folders = find_sweeps(args.sweeps, args.output_dir)
    console = Console() if sys.stdout.isatty() else Console(width=1000, force_terminal=False)
    disk = DiskWatch()

    def read() -> list[SweepStatus]:
        found = [read_sweep(folder) for folder in folders if folder.is_dir()]
        return found if args.sweeps else [s for s in found if not s.is_done or s.is_live]

    sweeps = read()
    if args.as_json:
        print(json.dumps(as_json(sweeps, disk.of, _gpus(sweeps)), indent=1, ensure_ascii=False))
        return 0
    if not sweeps:
        print(f"no unfinished sweep in {args.output_dir}" if folders else _nothing(args))
        return 0
    detailed = len(sweeps) == 1

    def view(found: Sequence[SweepStatus]) -> Group:
        rows = max(5, console.height - 8) if console.is_terminal else 100
        if detailed:
            return Group(*(sweep_block(s, disk.of(s.folder), _gpus([s]), rows) for s in found))
        return Group(sweeps_block(found, disk.of))

    if args.once or not console.is_terminal:
        for line in _plain(console, view(sweeps)):
            print(line)
        return 0
    try:
        with Live(view(sweeps), console=console, auto_refresh=False) as live:
            while any(sweep.is_live for sweep in sweeps):
                time.sleep(args.every)
                sweeps = read()
                live.update(view(sweeps), refresh=True)
    except KeyboardInterrupt:
        pass
    return 0


def _plain(console: Console, block: Group) -> list[str]:
    """The lines without what fills them up to the console's width."""
    with console.capture() as captured:
        console.print(block)
    return [line.rstrip() for line in captured.get().splitlines()]


def _nothing(args: StatusArguments) -> str:
    if not args.output_dir.is_dir():
        raise UsageError(f"--output_dir {args.output_dir}: no such folder")
    return f"no sweep in {args.output_dir}"


def _gpus(sweeps: Sequence[SweepStatus]) -> dict[str, GpuUsage]:
    names = [
        gpu
        for sweep in sweeps
        for job in sweep.of("running", "stopping")
        if job.alive == "alive"  # of this machine: its driver knows no other's
        for gpu in job.gpus.split(",")
    ]
    return gpu_usage(names)


if __name__ == "__main__":
    run_command(StatusArguments, main)
