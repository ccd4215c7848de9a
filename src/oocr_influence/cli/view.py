"""The page of `oocr report`, live: it is drawn anew as evaluations land.

    oocr view outputs/…_mayors        # prints an address of this machine; Ctrl-C ends it

Only this machine's loopback is served, and nothing can be written through it. From another machine,
with the same port on both sides, since the page answers to its own address alone:

    ssh -L 8080:127.0.0.1:8080 machine oocr view outputs --port 8080
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from oocr_influence.cli.arguments import CommandArguments, UsageError, run_command
from oocr_influence.cli.page_server import ADDRESS, LivePage, PageServer
from oocr_influence.cli.page_source import (
    collected_runs,
    experiments_of,
    read_page,
    sweep_of,
    tell_reading,
)
from oocr_influence.reports.page.data import PageData
from oocr_influence.results.finding import find_runs
from oocr_influence.results.run_folder import RunFolder


class ViewArguments(CommandArguments):
    """Which runs, and where to look at them."""

    paths: list[Path] = Field(json_schema_extra={"positional": True})
    """runs, experiments, or folders of experiments"""
    port: int = Field(default=0, ge=0, le=65535)
    """the port on 127.0.0.1; 0 takes any that is free"""
    every: float = Field(default=2.0, gt=0)
    """how often the folders are looked at (seconds)"""


def main(args: ViewArguments) -> int:
    """Serve the page until Ctrl-C; returns 0."""
    tell_reading()
    live = LivePage(lambda: _read(args.paths), lambda: fingerprint(args.paths), args.every)
    try:
        server = PageServer(live, args.port)
    except OSError as error:
        live.stop()
        raise UsageError(f"--port {args.port}: {ADDRESS} cannot be served: {error}") from error
    try:
        print(f"{server.url}  (Ctrl-C ends it)", flush=True)
        server.serve_forever(poll_interval=0.1)
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
        live.stop()
    return 0


def fingerprint(paths: Sequence[Path]) -> list[Any]:
    """What changes when the page would: the files that it is read from, and the jobs' states."""
    seen: list[Any] = []
    for path in paths:
        for run in find_runs(path):
            seen += [run.path, *(_stamp(file) for file in _files(run))]
    for experiment in experiments_of(paths):
        told = sweep_of(experiment)
        told.pop("seconds_left", None)  # it falls with every second
        seen += [experiment.path, _stamp(experiment.experiment_log), told]
    return seen


def _read(paths: Sequence[Path]) -> PageData:
    with collected_runs(paths) as collected:
        return read_page(paths, collected)


def _files(run: RunFolder) -> list[Path]:
    answers = sorted(run.eval_results.glob("*")) if run.eval_results.is_dir() else []
    return [run.experiment_log, run.owner_file, run.steps, *answers]


def _stamp(path: Path) -> tuple[str, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return path.name, stat.st_mtime_ns, stat.st_size


if __name__ == "__main__":
    run_command(ViewArguments, main)
