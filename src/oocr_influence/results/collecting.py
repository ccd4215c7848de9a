"""Everything that runs answered, as three tables to ask in SQL: `runs`, `evaluations`, `questions`.

    with collect("outputs") as collected:
        collected.evaluations                                # a pyarrow Table; .to_pandas()
        collected.sql("select kind, avg(rank_tie_averaged) from questions group by kind")

`docs/results.md` lists the columns. Questions stay in their Parquet files until a query asks for
them. DuckDB (`pip install "oocr-influence[results]"`) answers: it reads no file and no address,
only what is handed to it, and what is handed to it cannot be changed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from oocr_influence.datasets.set_names import asked, kind_named
from oocr_influence.results.collected_runs import (
    CONFIGURATION,
    IDENTITY,
    RUN_COLUMNS,
    read_log,
    rows_table,
    run_row,
)
from oocr_influence.results.collected_sets import (
    OF_EVALUATION,
    QuestionFile,
    SetTable,
    add_run,
    described_by_name,
)
from oocr_influence.results.earlier_evaluations import EarlierEvaluation, earlier_evaluations
from oocr_influence.results.evaluation_files import records_table
from oocr_influence.results.experiment_log import LoggedExperiment
from oocr_influence.results.finding import find_runs
from oocr_influence.results.question_files import question_dataset
from oocr_influence.results.run_folder import RunFolder

REMEDY = 'collecting results needs DuckDB: pip install "oocr-influence[results]"'
TABLES = ("runs", "evaluations", "questions")
_SETTINGS = (
    "temp_directory = ''",
    "enable_external_access = false",
    "python_enable_replacements = false",  # no Python variable is a table
    "lock_configuration = true",
)
_BATCH = 100_000
# What an entity is called where the file does not say: its place in the sets of its group.
_ENTITY = """coalesce(entity, concat_ws(':', world, control,
    case when control = 'untold' then relation end, 'place ' || index))"""


class Collected:
    """What `collect` found; close it, or use it in a `with`."""

    def __init__(self, runs: Sequence[RunFolder]) -> None:
        import duckdb

        self.notices: list[str] = []
        """What could not be read, and was left out."""
        self._files: list[QuestionFile] = []
        self._earlier: list[tuple[dict[str, Any], EarlierEvaluation]] = []
        rows, sets = [], SetTable()
        for run in runs:
            log, fault = read_log(run)
            self.notices += [fault] if fault else []
            rows.append(run_row(run, log))
            self._add(run, log, rows[-1], sets)
        self._connection = duckdb.connect(":memory:")
        for setting in _SETTINGS:
            self._connection.execute(f"set {setting}")
        self._connection.register("runs", rows_table(rows, RUN_COLUMNS))
        self._sets = sets.to_arrow()
        self._connection.register("_sets", self._sets)
        told = ", ".join(f"runs.{name}" for name in (*IDENTITY, *CONFIGURATION))
        self._connection.execute(
            f"create view evaluations as select {told}, _sets.* exclude (run) "
            "from _sets join runs using (run)"
        )
        self._has_questions = False
        for notice in self.notices:
            warnings.warn(notice, stacklevel=3)

    @property
    def runs(self) -> Any:
        """One row a run, whole or unfinished, as a pyarrow Table."""
        return self.sql("from runs order by path")

    @property
    def evaluations(self) -> Any:
        """One row a run, evaluation and set, as a pyarrow Table."""
        return self.sql("from evaluations order by experiment, run, step, suite nulls first, set")

    def sql(self, query: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None) -> Any:
        """The answer to one SELECT over the three tables, as a pyarrow Table.

        Raises ValueError, with what DuckDB says, for a query that it does not understand or that
        is no SELECT.
        """
        return self.reader(query, parameters).read_all()

    def reader(
        self, query: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None
    ) -> Any:
        """The answer as a pyarrow RecordBatchReader, for answers larger than memory."""
        import duckdb

        try:
            kinds = [s.type.name for s in duckdb.extract_statements(query)]
            if kinds not in (["SELECT"], ["EXPLAIN"], ["MULTI"]):
                raise ValueError(f"one SELECT is answered, and nothing else: {query!r}")
            if "questions" in query.lower():
                self._show_questions()
            return self._connection.sql(query, params=parameters).to_arrow_reader(_BATCH)
        except duckdb.Error as error:
            raise ValueError(f"{error} (the tables: {', '.join(TABLES)})") from error

    def columns(self, table: str) -> dict[str, str]:
        """Name and type of a table's columns, in order."""
        described = self.sql(f"describe {table}").to_pylist()
        return {row["column_name"]: row["column_type"] for row in described}

    def close(self) -> None:
        """Let go of the files."""
        self._connection.close()

    def __enter__(self) -> Collected:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _add(
        self, run: RunFolder, log: LoggedExperiment | None, row: dict[str, Any], sets: SetTable
    ) -> None:
        before = sets.n_rows
        self._files += add_run(sets, run, log, row, self.notices)
        # What was exported in the earlier form has our files too.
        if log is None or run.evaluations() or not row["earlier"]:
            return
        later = sets.asked_since(before)
        for one in earlier_evaluations(run, log, self.notices, asked_later=later):
            told: dict[str, Any] = {"run": run.name, "evaluation": one.name, "suite": None}
            told |= {"step": one.entry.step_num, "epoch": one.entry.epoch_num}
            measured = {"train_loss": one.train_loss, "eval_seconds": one.eval_seconds}
            means = one.means()
            sets.add(told | measured, means, {name: described_by_name(name) for name in means})
            told |= {key: row[key] for key in ("experiment", "data_order_seed")}
            self._earlier.append((told, one))

    def _show_questions(self) -> None:
        """Make the table of questions, when one is first asked for: the files' schemas are read."""
        if self._has_questions:
            return
        known = len(self.notices)
        plain = [file for file in self._files if file.called is None]
        renamed = [file for file in self._files if file.called is not None]
        self._register_files("_files", plain)
        sources = ["from _files"]
        if renamed:
            self._register_files("_renamed", renamed)
            self._connection.register("_names", _names(renamed))
            sources.append(
                "select q.* replace (n.called as set) from _renamed q join _names n "
                "on q.file = n.file and q.set = n.name"
            )
        if self._earlier:
            tables = [_earlier_questions(told, one) for told, one in self._earlier]
            self._earlier_rows = pa.concat_tables(tables, promote_options="permissive")
            self._connection.register("_earlier", self._earlier_rows)
            sources.append("from _earlier")
        told = ", ".join(OF_EVALUATION)
        self._connection.execute(
            f"create view questions as select {told}, set, {self._asked()} as asked, "
            f"{_ENTITY} as entity, q.* exclude ({told}, set, entity, file) "
            f"from ({' union all by name '.join(f'({source})' for source in sources)}) q"
        )
        self._has_questions = True
        for notice in self.notices[known:]:
            warnings.warn(notice, stacklevel=4)

    def _register_files(self, name: str, files: Sequence[QuestionFile]) -> None:
        dataset, left_out = question_dataset(files)
        self._connection.register(name, dataset)
        self.notices += [f"column {column} left out: texts and numbers" for column in left_out]

    def _asked(self) -> str:
        """SQL for what `set_names.asked` says of a question."""
        kinds, formats, controls = (
            sorted({*self._sets.column(name).to_pylist()} - {None})
            for name in ("kind", "answer_format", "control")
        )
        cases = [
            f"when control = {_literal(control)} then {_literal(kind_named('control', control))}"
            for control in controls
        ]
        cases += [
            f"when kind = {_literal(kind)} and answer_format = {_literal(form)} "
            f"then {_literal(asked(kind, form))}"
            for kind in kinds
            for form in formats
            if asked(kind, form) != kind
        ]
        return f"case {' '.join(cases)} else kind end" if cases else "kind"


def collect(paths: str | Path | Iterable[str | Path]) -> Collected:
    """Everything about the runs at `paths`: runs, experiments, or folders of experiments.

    A run that several paths lead to is there once. What cannot be read is left out with a warning.
    Raises FileNotFoundError for a path that is not there, ValueError where no run is found or two
    copies of one are, ModuleNotFoundError with the remedy where DuckDB is not installed.
    """
    if find_spec("duckdb") is None:
        raise ModuleNotFoundError(REMEDY)
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    runs: dict[Path, RunFolder] = {}
    for path in given:
        for run in find_runs(Path(path)):
            runs.setdefault(run.path.resolve(), run)
    if not runs:
        raise ValueError(f"no run in {', '.join(map(str, given)) or 'no paths'}")
    by_name: dict[str, RunFolder] = {}
    for run in runs.values():
        if run.name in by_name:
            raise ValueError(
                f"{run.path} and {by_name[run.name].path} are copies of one run: name one of them"
            )
        by_name[run.name] = run
    return Collected(list(runs.values()))


def _names(files: Sequence[QuestionFile]) -> Any:
    rows = [
        (place, *pair) for place, file in enumerate(files) for pair in (file.called or {}).items()
    ]
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    types = (pa.int32(), pa.string(), pa.string())
    arrays = [pa.array(column, type_) for column, type_ in zip(columns, types, strict=True)]
    return pa.table(arrays, names=["file", "name", "called"])


def _earlier_questions(told: Mapping[str, Any], one: EarlierEvaluation) -> Any:
    table = records_table(one.records())
    for name, type_ in OF_EVALUATION.items():
        table = table.append_column(name, pa.array([told[name]] * table.num_rows, type_))
    return table.append_column("file", pa.nulls(table.num_rows, pa.int32()))


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


__all__ = ["REMEDY", "TABLES", "Collected", "collect"]
