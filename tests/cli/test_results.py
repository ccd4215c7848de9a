"""`oocr results`: summary, comparison, SQL, CSV and Parquet through the command's own door."""

import csv
import json
import re
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from oocr_influence.cli.arguments import UsageError, parse
from oocr_influence.cli.results import ResultsArguments, main
from oocr_influence.datasets.document_dataset import load_structured_dataset
from oocr_influence.results.collecting import TABLES, collect

sys.path.append(str(Path(__file__).parents[1] / "results"))
DOCS = Path(__file__).parents[2] / "docs" / "results.md"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    from made_runs import make_experiment

    folder = tmp_path_factory.mktemp("outputs")
    make_experiment(folder, "one", n_runs=2)
    make_experiment(folder, "two")
    return folder


def run(*words):
    return main(parse(ResultsArguments, list(map(str, words))))


def test_the_summary_names_runs_and_kinds(outputs, capsys):
    assert run(outputs) == 0
    out = capsys.readouterr().out
    assert "_one: 2 runs (2 completed)" in out
    assert "_two: 1 run (1 completed)" in out
    assert re.search(r"trained +2 +3 +6 +1\.00 \[1\.00, 1\.00\] +3\.0 +1\.00", out)
    assert re.search(r"reversed +1 +3 +3 +3\.50 \[2\.50, 4\.50\] +3\.0 +0\.00", out)


def test_an_answer_is_printed(outputs, capsys):
    run(outputs, "--sql", "select kind, count(*) as n from questions group by kind order by kind")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["kind", "n"],
        ["-" * 12],
        ["reversed", "45"],
        ["trained", "45"],
        ["(2", "rows)"],
    ]


def test_long_answers_are_cut_and_say_so(outputs, capsys):
    run(outputs, "--sql", "select * from range(5000)")
    shown = capsys.readouterr()
    assert "(1000 rows)" in shown.out
    assert "more than 1000 rows: --csv or --parquet writes all" in shown.err


def test_files_hold_every_row(outputs, tmp_path, capsys):
    sheet, table = tmp_path / "q.csv", tmp_path / "q.parquet"
    assert run(outputs, "--questions", "--csv", sheet, "--parquet", table) == 0
    assert capsys.readouterr().out.splitlines() == [f"{sheet}: 90 rows", f"{table}: 90 rows"]
    rows = pq.read_table(table).to_pylist()
    with sheet.open(newline="") as file:
        written = list(csv.DictReader(file))
    assert len(rows) == len(written) == 90
    key = ("run", "evaluation", "set", "id")
    by_key = {tuple(row[k] for k in key): row for row in written}
    for row in rows:
        same = by_key[tuple(row[k] for k in key)]
        assert float(same["loss"]) == row["loss"]
        assert json.loads(same["candidate_texts"]) == row["candidate_texts"]
        assert same["control"] == ""


def test_means_are_written_without_further_flags(outputs, tmp_path):
    run(outputs, "--parquet", tmp_path / "means.parquet")
    with collect(outputs) as collected:
        assert pq.read_table(tmp_path / "means.parquet").num_rows == collected.evaluations.num_rows
    run(outputs, "--sql", "select run from runs;", "--csv", tmp_path / "runs.csv")
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == 4


def test_two_runs_are_compared(outputs, capsys):
    first, second = sorted(path.name for path in outputs.glob("*_one/all_docs_runs/*"))
    assert run(outputs, "--compare", first.split("_")[4], f"{second}@start") == 0
    out = capsys.readouterr().out
    assert f"A: {first}@final\nB: {second}@start\nrank_tie_averaged of the same" in out
    assert re.search(r"trained +3 +3 +1\.000 +3\.500 +\+2\.500 \[.*\] +3 +0 +0\.25", out)
    assert re.search(r"reversed +3 +3 +3\.500 +3\.500 +\+0\.000 \[.*\] +0 +0 +1", out)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--compare", "a"], "--compare takes two runs, not 1"),
        (["--compare", "a", "b", "c"], "--compare takes two runs, not 3"),
        (["--compare", "a", "b", "--questions"], "leave --sql, --csv and the like out"),
        (["--sql", "select 1", "--questions"], "--questions has no effect beside --sql"),
        (["--csv", "x", "--parquet", "x"], "name the same file"),
        (["--compare", "nobody", "b"], "0 runs are named 'nobody'"),
        (["--sql", "select nothing from runs"], 'Referenced column "nothing" not found'),
        (["--sql", "copy runs to 'x.csv'"], "one SELECT is answered, and nothing else"),
        (["--sql", "select * from read_text('/etc/hostname')"], "Permission Error"),
        (["--csv", "/nowhere/at/all.csv"], "there is no folder /nowhere/at"),
    ],
)
def test_what_cannot_be_done_is_one_error(outputs, words, fault):
    with pytest.raises(UsageError, match=re.escape(fault)):
        run(outputs, *words)


def test_without_a_run_there_is_one_error(tmp_path):
    with pytest.raises(UsageError, match="no run in"):
        run(tmp_path)


def test_a_query_that_fails_leaves_the_file_as_it_was(outputs, tmp_path):
    path = tmp_path / "kept.parquet"
    path.write_text("kept")
    with pytest.raises(UsageError):
        run(outputs, "--sql", "select error('no') from runs", "--parquet", path)
    assert path.read_text() == "kept"
    assert [one.name for one in tmp_path.iterdir()] == ["kept.parquet"]


def test_a_runs_questions_name_their_entities(train_once, sample):
    """Every set asks about the same entities, by the ids that the dataset gives them."""
    folder = train_once(epochs=1, max_steps=1)
    builders = load_structured_dataset(sample).eval_dataset_builders
    expected = {
        (name, index): point.features.id
        for name, builder in builders.items()
        for index, point in enumerate(builder.eval_points)
    }
    with collect(folder.path) as collected:
        rows = collected.sql("from questions where evaluation = 'final'").to_pylist()
        sets = collected.sql("from evaluations where evaluation = 'final'").to_pylist()
    assert {(row["set"], row["index"]): row["entity"] for row in rows} == expected
    for one in sets:
        own = [row for row in rows if row["set"] == one["set"]]
        assert one["n"] == len(own)
        assert one["mean_loss"] == pytest.approx(sum(row["loss"] for row in own) / len(own))
        assert {(row["kind"], row["relation"], row["asked"]) for row in own} == {
            (one["kind"], one["relation"], one["asked"])
        }


def test_the_documentation_names_every_column(outputs):
    """Each table's section lists its columns, in order, and none that is not there."""
    text = DOCS.read_text(encoding="utf-8")
    with collect(outputs) as collected:
        for table in TABLES:
            section = text.partition(f"### `{table}`")[2].partition("\n### ")[0]
            rows = [line for line in section.splitlines() if line.startswith("| `")]
            named = [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])]
            columns = [name for name in collected.columns(table) if not name.startswith("mean_")]
            assert named == columns, table
