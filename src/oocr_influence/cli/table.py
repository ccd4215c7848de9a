"""What models answer, before and after, by kind of question.

    oocr table outputs/

One block an experiment, a row a relation, style and answer format: tie-averaged mean rank of the
right answer among its set's, and accuracy, of the untouched and of the final model.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from oocr_influence.cli.arguments import CommandArguments, UsageError, run_command
from oocr_influence.reports.table import (
    before_after_table,
    render_markdown,
    render_text,
    runs_without,
)
from oocr_influence.results.finding import find_runs


class TableArguments(CommandArguments):
    """Which runs, in what form."""

    paths: list[Path] = Field(json_schema_extra={"positional": True})
    """runs, experiments, or folders of experiments"""
    markdown: bool = False
    """print Markdown"""


def main(args: TableArguments) -> int:
    """Print the table; returns 1 if no run could enter it."""
    runs = [run for path in args.paths for run in find_runs(path)]
    if not runs:
        raise UsageError(f"no run in {', '.join(map(str, args.paths))}")
    left_out = runs_without(runs)
    rows = before_after_table(runs)
    print(render_markdown(rows) if args.markdown else render_text(rows))
    for run in left_out:
        print(f"left out, without evaluations at start and end: {run.path}")
    return 0 if rows else 1


if __name__ == "__main__":
    run_command(TableArguments, main)
