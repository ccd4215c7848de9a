"""What runs answered, as tables: a summary, a comparison of two runs, SQL, CSV, Parquet.

    oocr results outputs
    oocr results outputs --compare Ab3xY Zk9Qw
    oocr results outputs --sql "select kind, avg(mean_rank) from evaluations group by kind"
    oocr results outputs --questions --parquet questions.parquet

`runs` has one row a run, `evaluations` one a run, evaluation and set, `questions` one a question;
docs/results.md lists their columns. A query reads these three and nothing else, and writes nothing.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from oocr_influence.cli.arguments import CommandArguments, UsageError, run_command
from oocr_influence.reports.results_text import (
    render_comparison,
    render_rows,
    render_summary,
)
from oocr_influence.results.atomic import writing_file
from oocr_influence.results.collecting import Collected, collect
from oocr_influence.results.comparison import METRIC, compare, summarise

_ALL_EVALUATIONS = "select * from evaluations"
_ALL_QUESTIONS = "select * from questions"
_MOST_ROWS = 1000


class ResultsArguments(CommandArguments):
    """Which runs, and what about them."""

    paths: list[Path] = Field(json_schema_extra={"positional": True})
    """runs, experiments, or folders of experiments"""
    sql: str | None = None
    """one SELECT over the tables runs, evaluations and questions"""
    questions: bool = False
    """the table of questions, where no --sql says otherwise, and not that of evaluations"""
    csv: Path | None = None
    """write the rows to this file; lists become JSON"""
    parquet: Path | None = None
    """write the rows to this file"""
    compare: list[str] | None = None
    """two runs, by their folders or any part of their names that no other run has; behind an @
    which evaluation, final without one"""
    metric: str = METRIC
    """the column of questions that --compare compares"""

    @model_validator(mode="after")
    def _check(self) -> ResultsArguments:
        if self.compare is not None and len(self.compare) != 2:
            raise ValueError(f"--compare takes two runs, not {len(self.compare)}")
        if self.compare is not None and (self.sql or self.questions or self.csv or self.parquet):
            raise ValueError("--compare prints a comparison: leave --sql, --csv and the like out")
        if self.sql is not None and self.questions:
            raise ValueError("--questions has no effect beside --sql: write `from questions` there")
        if self.csv is not None and self.csv == self.parquet:
            raise ValueError("--csv and --parquet name the same file")
        return self


def main(args: ResultsArguments) -> int:
    """Print or write what was asked for."""
    try:
        with _plain_warnings(), collect(args.paths) as collected:
            _answer(collected, args)
    except (ModuleNotFoundError, ValueError) as error:
        raise UsageError(str(error)) from error
    return 0


def _answer(collected: Collected, args: ResultsArguments) -> None:
    query = args.sql or (_ALL_QUESTIONS if args.questions else _ALL_EVALUATIONS)
    if args.compare is not None:
        print(render_comparison(compare(collected, *args.compare, metric=args.metric)))
    elif args.csv is not None or args.parquet is not None:
        if args.csv is not None:
            _write_csv(collected, query, args.csv)
        if args.parquet is not None:
            _write_parquet(collected, query, args.parquet)
    elif args.sql is not None or args.questions:
        _print_rows(collected, query)
    else:
        print(render_summary(collected.runs.to_pylist(), summarise(collected)))


def _print_rows(collected: Collected, query: str) -> None:
    """Print the first rows; the rest is left to files."""
    rows: list[dict[str, Any]] = []
    with collected.reader(query) as reader:
        columns = reader.schema.names
        for batch in reader:
            rows += batch.slice(0, _MOST_ROWS + 1 - len(rows)).to_pylist()
            if len(rows) > _MOST_ROWS:
                break
    print(render_rows(columns, rows[:_MOST_ROWS]))
    if len(rows) > _MOST_ROWS:
        print(f"more than {_MOST_ROWS} rows: --csv or --parquet writes all", file=sys.stderr)


def _write_parquet(collected: Collected, query: str, path: Path) -> None:
    with (
        collected.reader(query) as reader,
        _writing(path) as temporary,
        pq.ParquetWriter(temporary, reader.schema, compression="zstd") as writer,
    ):
        n_rows = sum(_written(writer, batch) for batch in reader)
    print(f"{path}: {n_rows} rows")


def _write_csv(collected: Collected, query: str, path: Path) -> None:
    with (
        collected.reader(_flat(collected, query)) as reader,
        _writing(path) as temporary,
        pyarrow.csv.CSVWriter(temporary, reader.schema) as writer,
    ):
        n_rows = sum(_written(writer, batch) for batch in reader)
    print(f"{path}: {n_rows} rows")


def _written(writer: Any, batch: Any) -> int:
    writer.write_batch(batch)
    return int(batch.num_rows)


def _flat(collected: Collected, query: str) -> str:
    """The query with its lists as JSON: a cell of a CSV file is one value."""
    query = query.strip().rstrip(";")
    with collected.reader(query) as reader:
        nested = [f.name for f in reader.schema if pa.types.is_nested(f.type)]
    quoted = [name.replace('"', '""') for name in nested]
    replaced = ", ".join(f'to_json("{name}")::varchar as "{name}"' for name in quoted)
    return f"select * replace ({replaced}) from (\n{query}\n)" if nested else query


@contextmanager
def _writing(path: Path) -> Iterator[Path]:
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}")
    with writing_file(path) as temporary:
        yield temporary


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Every notice once, even where lines are alike."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        yield


if __name__ == "__main__":
    run_command(ResultsArguments, main)
