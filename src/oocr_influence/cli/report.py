"""What runs learned, as one page for any browser: it opens without a network, and can be mailed.

    oocr report outputs/…_mayors                     # report.html, report.questions.parquet
    oocr report outputs --out mayors.html --figures  # also figures as PNG and SVG

For one run, one sweep or a comparison of many, finished or not, of the earlier system too. The page
averages questions over runs that differ by their seed alone; the Parquet file beside it has a row a
run and question. docs/reports.md says how it is read.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
from pydantic import Field

from oocr_influence.cli.arguments import CommandArguments, UsageError, run_command
from oocr_influence.cli.page_source import collected_runs, read_page, tell_reading
from oocr_influence.reports.curves import check_drawing
from oocr_influence.reports.page.figures import SUFFIXES, draw_figures
from oocr_influence.reports.page.render import render_page
from oocr_influence.results.atomic import write_text, writing_file
from oocr_influence.results.collecting import Collected

# A question's numbers; its candidates' scores stay in the runs' own files.
_ANSWERS = """
    select experiment, run, data_order_seed, evaluation, suite, step, epoch, set, "index", id,
           entity, asked, relation, prompt, completion, n_candidates, rank, rank_tie_averaged,
           accuracy, loss, logprob, prob, softmargin
    from questions
"""


class ReportArguments(CommandArguments):
    """Which runs, and where the page goes."""

    paths: list[Path] = Field(json_schema_extra={"positional": True})
    """runs, experiments, or folders of experiments"""
    out: Path = Path("report.html")
    """the page; what belongs to it is named after it and lies beside it"""
    questions: bool = True
    """write every run's answer to every question beside the page, as Parquet"""
    datamodels: bool = True
    """fit datamodels of sweeps over subsets, and score tables of `oocr attribute` (minutes, where
    there are many subsets, questions and methods)"""
    figures: bool = False
    """draw the figures as PNG and SVG too, in a folder beside the page (needs matplotlib)"""
    figure_metrics: list[str] | None = None
    """with --figures: the metrics of curves and heat maps, as in `rank_tie_averaged accuracy loss`
    (None: all that were measured, which takes a minute a group)"""


def main(args: ReportArguments) -> int:
    """Write the page and what belongs to it; returns 0."""
    if args.out.suffix not in (".html", ".htm"):
        raise UsageError(f"--out {args.out}: a page's name ends in .html")
    if not args.out.absolute().parent.is_dir():
        raise UsageError(f"--out {args.out}: there is no folder {args.out.absolute().parent}")
    if args.figure_metrics is not None and not args.figures:
        raise UsageError("--figure_metrics belongs to --figures, which is not given")
    if args.figures:
        try:
            check_drawing()
        except ModuleNotFoundError as error:
            raise UsageError(f"--figures: {error}") from error
    tell_reading()
    with collected_runs(args.paths) as collected:
        data = read_page(args.paths, collected, with_datamodels=args.datamodels)
        _check_metrics(args.figure_metrics, [one["key"] for one in data.head["metrics"]])
        page = render_page(data)
        write_text(args.out, page)
        print(f"{args.out}: {len(data.head['runs'])} runs, {len(page.encode()) / 1e6:.1f} MB")
        if args.questions and data.head["sets"]:
            beside = args.out.with_suffix(".questions.parquet")
            print(f"{beside}: {_write_questions(collected, beside)} answers")
    for notice in data.head["notices"]:
        print(f"notice: {notice}")
    if args.figures:
        folder = args.out.with_name(f"{args.out.stem}_figures")
        drawn = draw_figures(data, folder, metrics=args.figure_metrics)
        print(f"{folder}: {len(drawn) // len(SUFFIXES)} figures, as PNG and SVG")
    return 0


def _check_metrics(wanted: list[str] | None, measured: list[str]) -> None:
    unknown = sorted({*(wanted or ())} - {*measured})
    if unknown:
        raise UsageError(
            f"--figure_metrics {' '.join(unknown)}: not measured; there are {', '.join(measured)}"
        )


def _write_questions(collected: Collected, path: Path) -> int:
    n_rows = 0
    with (
        collected.reader(_ANSWERS) as reader,
        writing_file(path) as temporary,
        pq.ParquetWriter(temporary, reader.schema, compression="zstd") as writer,
    ):
        for batch in reader:
            writer.write_batch(batch)
            n_rows += batch.num_rows
    return n_rows


if __name__ == "__main__":
    run_command(ReportArguments, main)
