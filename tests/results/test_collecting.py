"""Three tables of everything that runs answered, against the files read one by one."""

import json
import pickle
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_runs import EVALUATIONS, QUESTIONS, SETS, evaluate, make_experiment, make_run, question

from oocr_influence import results
from oocr_influence.results.collecting import collect
from oocr_influence.results.run_folder import RunFolder

SAMPLE = Path(__file__).parents[1] / "samples" / "earlier_experiment_log.json"
TRAINED = "name_mayor_eval_qa_1_no_fs"
SUITE, LATER = "a" * 16, "b" * 16


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Two experiments, of two runs and of one; no test may change them."""
    folder = tmp_path_factory.mktemp("outputs")
    make_experiment(folder, "one", n_runs=2)
    make_experiment(folder, "two", learning_rate=2e-4)
    return folder


def runs_in(outputs):
    return [RunFolder(path) for path in sorted(outputs.glob("*/all_docs_runs/*"))]


def add(run, name, suite, sets, *, when="2026-01-01", n=3, loss=9.0):
    records = [
        question(s, i, relation="name_mayor", style="qa", kind="trained", step=0) | {"loss": loss}
        for s in sets
        for i in range(n)
    ]
    means = {s: {"n": n, "mean_loss": loss, "accuracy": 0.0} for s in sets}
    run.write_evaluation(
        name,
        step_num=3,
        epoch_num=1.0,
        eval_seconds=1.0,
        eval_sets=means,
        records=records,
        suite=suite,
        made={"when": when},
    )


def test_one_row_a_run_evaluation_and_set(outputs):
    naive = {}
    for run in runs_in(outputs):
        args = json.loads(run.experiment_log.read_text())["args"]
        for name in EVALUATIONS:
            found = json.loads(run.evaluation(name).read_text())
            for set_name, means in found["eval_sets"].items():
                rate = args["learning_rate"]
                key = (run.path.parents[1].name, run.name, name, set_name)
                naive[key] = (found["step_num"], found["epoch_num"], rate, *means.values())
    with results.collect(outputs) as collected:
        rows = collected.evaluations.to_pylist()
    keys = ("experiment", "run", "evaluation", "set")
    values = ("step", "epoch", "learning_rate", "n", "mean_loss", "accuracy", "mean_rank")
    values += ("mean_rank_step0_corrected",)
    assert len(rows) == len(naive) == 3 * len(EVALUATIONS) * len(SETS)
    assert {tuple(row[k] for k in keys): tuple(row[v] for v in values) for row in rows} == naive


def test_sets_are_described_by_their_questions(outputs):
    with collect(outputs) as collected:
        rows = collected.evaluations.to_pylist()
    for row in rows:
        relation, style, kind = SETS[row["set"]]
        assert (row["relation"], row["style"], row["kind"], row["asked"]) == (
            relation,
            style,
            kind,
            kind,
        )
        assert (row["world"], row["answer_format"], row["shots"]) == ("mayors", "default", 0)


def test_one_row_a_question(outputs):
    naive = {}
    for run in runs_in(outputs):
        for name in EVALUATIONS:
            for row in pq.read_table(run.records(name)).to_pylist():
                naive[run.name, name, row["set"], row["id"]] = row
    with collect(outputs) as collected:
        rows = collected.sql("from questions").to_pylist()
    assert len(rows) == len(naive) == 3 * len(EVALUATIONS) * len(SETS) * QUESTIONS
    for row in rows:
        same = naive[row["run"], row["evaluation"], row["set"], row["id"]]
        assert {name: row[name] for name in same if name != "entity"} == {
            name: value for name, value in same.items() if name != "entity"
        }


def test_questions_are_grouped_as_by_hand(outputs):
    rows = [
        row | {"at": name}
        for run in runs_in(outputs)
        for name in EVALUATIONS
        for row in pq.read_table(run.records(name)).to_pylist()
    ]
    naive = {
        (name, kind): np.mean([r["loss"] for r in rows if (r["at"], r["kind"]) == (name, kind)])
        for name in EVALUATIONS
        for kind in ("trained", "reversed")
    }
    with collect(outputs) as collected:
        query = "select evaluation, kind, avg(loss) as loss from questions group by all"
        found = {(r["evaluation"], r["kind"]): r["loss"] for r in collected.sql(query).to_pylist()}
        one = runs_in(outputs)[0].name
        query = "select count(*) as n from questions where run = ? and evaluation = 'final'"
        assert collected.sql(query, [one]).to_pylist() == [{"n": len(SETS) * QUESTIONS}]
    assert found == pytest.approx(naive)


def test_several_paths_to_one_run_give_it_once(outputs):
    run = runs_in(outputs)[0]
    with collect([outputs, run.experiment.path, run.path, str(run.path)]) as collected:
        assert collected.runs.num_rows == 3
        assert collected.evaluations.num_rows == 3 * len(EVALUATIONS) * len(SETS)
    with collect(run.path) as collected:
        assert collected.runs.column("run").to_pylist() == [run.name]


def test_a_copy_of_a_run_is_refused(tmp_path):
    made = make_experiment(tmp_path / "a")
    shutil.copytree(made.experiment.path, tmp_path / "b" / made.experiment.name)
    with pytest.raises(ValueError, match=r"are copies of one run: name one of them"):
        collect([tmp_path / "a", tmp_path / "b"])


def test_unfinished_runs_are_rows_with_their_status(tmp_path):
    made = make_experiment(tmp_path)
    make_run(made.experiment, seed=43, status="failed")
    stopped = make_run(made.experiment, seed=44, status="running")
    stopped.evaluation("final").unlink()
    empty = RunFolder.create(made.experiment.all_docs_runs, "sample", 2, 1e-4)  # this process's
    gone = RunFolder.create(made.experiment.all_docs_runs, "sample", 2, 1e-4)
    gone.release()
    with pytest.warns(UserWarning, match="has no experiment_log"):
        collected = collect(tmp_path)
    with collected:
        runs = {row["run"]: row for row in collected.runs.to_pylist()}
        counts = collected.sql(
            "select run, count(distinct evaluation) as n from evaluations group by run"
        ).to_pylist()
    assert [row["status"] for row in runs.values()].count("completed") == 1
    assert runs[stopped.name]["status"] == "unfinished"
    assert runs[empty.name]["status"] == "running"
    assert runs[gone.name]["status"] == "unfinished"
    assert {row["status"] for row in runs.values()} == {
        "completed",
        "failed",
        "unfinished",
        "running",
    }
    n = {row["run"]: row["n"] for row in counts}
    assert n[stopped.name] == len(EVALUATIONS) - 1
    assert empty.name not in n


def test_what_was_asked_later_is_counted_in_once(tmp_path):
    run = make_experiment(tmp_path).run
    add(run, "final", SUITE, ["new", TRAINED], loss=7.0)
    add(run, "final", LATER, ["new"], loss=8.0, when="2026-02-01")
    add(run, "e1_s3", SUITE, [TRAINED], n=2, loss=6.0)  # another set of the same name
    with collect(tmp_path) as collected:
        sets = collected.sql(
            "select evaluation, set, suite, mean_loss from evaluations where suite is not null"
        ).to_pylist()
        asked = collected.sql(
            "select evaluation, set, suite, count(*) as n, min(loss) as loss from questions "
            "where suite is not null group by all"
        ).to_pylist()
        own = collected.sql(
            "select count(*) as n, count(distinct id) as d from questions "
            f"where evaluation = 'final' and set = '{TRAINED}'"
        ).to_pylist()
    other = f"{TRAINED}@{SUITE[:8]}"
    wanted = {("final", "new", LATER): 8.0, ("e1_s3", other, SUITE): 6.0}
    assert {(r["evaluation"], r["set"], r["suite"]): r["mean_loss"] for r in sets} == wanted
    assert {(r["evaluation"], r["set"], r["suite"]): r["loss"] for r in asked} == wanted
    assert {r["n"] for r in asked} == {2, 3}
    assert own == [{"n": QUESTIONS, "d": QUESTIONS}]


def test_a_checkpoint_that_only_evaluate_asked(tmp_path):
    run = make_experiment(tmp_path).run
    for path in (run.evaluation("e2_s5"), run.records("e2_s5")):
        path.unlink()
    add(run, "e2_s5", SUITE, ["new"])
    with collect(tmp_path) as collected:
        rows = collected.sql("select set, suite from evaluations where evaluation = 'e2_s5'")
        assert rows.to_pylist() == [{"set": "new", "suite": SUITE}]


def test_what_cannot_be_read_is_left_out_and_told(tmp_path):
    run = make_experiment(tmp_path).run
    run.evaluation("start").write_text("{")
    run.records("e1_s2").unlink()
    with (
        pytest.warns(UserWarning, match="eval_results_start.json is not an evaluation"),
        pytest.warns(UserWarning, match="records_e1_s2.parquet is missing"),
    ):
        collected = collect(tmp_path)
    with collected:
        names = set(collected.evaluations.column("evaluation").to_pylist())
        assert names == set(EVALUATIONS) - {"start", "e1_s2"}
        assert len(collected.notices) == 2


def test_metrics_of_ones_own_are_columns(tmp_path):
    made = make_experiment(tmp_path, n_runs=2)
    for run, value in zip(made.runs, (1, 0.5), strict=True):
        table = pq.read_table(run.records("final"))
        mixed = ["text"] * table.num_rows if value == 1 else [1.0] * table.num_rows
        table = table.append_column("own", pa.array([value] * table.num_rows))
        pq.write_table(table.append_column("mixed", pa.array(mixed)), run.records("final"))
        found = json.loads(run.evaluation("final").read_text())
        for means in found["eval_sets"].values():
            means["mean_own"] = value
        run.evaluation("final").write_text(json.dumps(found))
    with collect(tmp_path) as collected:
        query = "select distinct evaluation, mean_own from evaluations where mean_own is not null"
        means = {row["mean_own"] for row in collected.sql(query).to_pylist()}
        assert means == {1.0, 0.5}
        with pytest.warns(UserWarning, match="column mixed left out"):
            rows = collected.sql("select distinct own from questions order by own").to_pylist()
        assert [row["own"] for row in rows] == [0.5, 1.0, None]


def test_entities_without_a_name_are_places_in_their_group(tmp_path):
    run = make_experiment(tmp_path).run
    table = pq.read_table(run.records("start")).drop_columns(["entity"])  # of an earlier version
    pq.write_table(table, run.records("start"))
    table = pq.read_table(run.records("final"))
    named = pa.array([f"e{i}" for i in table.column("index").to_pylist()])
    table = table.set_column(table.column_names.index("entity"), "entity", named)
    pq.write_table(table, run.records("final"))
    with collect(tmp_path) as collected:
        query = "select distinct entity from questions where evaluation = ? order by entity"
        at = {
            name: collected.sql(query, [name]).column("entity").to_pylist()
            for name in ("start", "final")
        }
    assert at["start"] == [f"mayors:place {i}" for i in range(QUESTIONS)]
    assert at["final"] == [f"e{i}" for i in range(QUESTIONS)]


@pytest.fixture
def earlier(tmp_path):
    """A run of the earlier system: the log alone, and its pickles."""
    run = RunFolder(tmp_path / "exp" / "all_docs_runs" / "2026_01_20_23-26-57_B6yOG_sample")
    run.saved_objects.mkdir(parents=True)
    shutil.copy(SAMPLE, run.experiment_log)
    for name, value in (("3.pckl", 4), ("3.0", 4.0), ("1.pckl", 1), ("1.0", 1.0)):
        kind = np.float64 if isinstance(value, float) else np.int64
        path = run.saved_objects / (name if name.endswith("pckl") else f"{name}.pckl")
        path.write_bytes(pickle.dumps(kind(value)))
    return run


def test_the_earlier_systems_log_is_read(earlier, tmp_path):
    with collect(tmp_path) as collected:
        (run,) = collected.runs.to_pylist()
        rows = collected.evaluations.to_pylist()
        asked = collected.sql("from questions order by step").to_pylist()
    assert (run["status"], run["earlier"], run["model"]) == (
        "completed",
        True,
        "allenai/OLMo-2-1124-7B",
    )
    # The log ends at step 42 of an epoch of 209: no final evaluation is claimed.
    assert [(r["evaluation"], r["n"], r["mean_rank"], r["mean_loss"]) for r in rows] == [
        ("e1_s1", 1, 4.0, 3.1),
        ("e1_s42", 1, 1.0, 1.0),
    ]
    assert rows[0]["eval_seconds"] == pytest.approx(24)
    assert [(q["rank"], q["accuracy"], q["completion"]) for q in asked] == [
        (4, 0.0, " Peter Quill"),
        (1, 1.0, " Peter Quill"),
    ]
    assert {q["asked"] for q in asked} == {"trained"}
    assert {q["rank_tie_averaged"] for q in asked} == {None}


def test_the_last_of_an_earlier_run_is_final_and_repeated_steps_count_once(earlier, tmp_path):
    log = json.loads(earlier.experiment_log.read_text())
    last = log["history"][-1]
    again = json.loads(json.dumps(last))
    again["eval_results"][TRAINED]["mean_loss"] = 0.75
    end = last | {"epoch_num": 1.0, "step_num": 209}
    log["history"] += [again, end]
    earlier.experiment_log.write_text(json.dumps(log))
    with collect(tmp_path) as collected:
        rows = collected.evaluations.to_pylist()
    assert [(r["evaluation"], r["mean_loss"]) for r in rows] == [
        ("e1_s1", 3.1),
        ("e1_s42", 0.75),
        ("final", 1.0),
    ]


def test_what_an_earlier_run_was_asked_later_replaces_its_log(earlier, tmp_path):
    (earlier.path / "checkpoint_e2_s42").mkdir()  # its own name for the step
    records = [question(TRAINED, 0, relation="r", style="qa", kind="trained", step=0)]
    means = {TRAINED: {"n": 1, "mean_loss": 7.0}}
    earlier.write_evaluation(
        "e2_s42",
        step_num=42,
        epoch_num=0.2,
        eval_seconds=1.0,
        eval_sets=means,
        records=records,
        suite=SUITE,
    )
    with collect(tmp_path) as collected:
        rows = collected.evaluations.to_pylist()
        asked = collected.sql("select evaluation, step, suite from questions order by step")
    assert [(r["evaluation"], r["suite"], r["mean_loss"]) for r in rows] == [
        ("e1_s1", None, 3.1),
        ("e2_s42", SUITE, 7.0),
    ]
    assert [(r["evaluation"], r["suite"]) for r in asked.to_pylist()] == [
        ("e1_s1", None),
        ("e2_s42", SUITE),
    ]


def test_pickles_that_would_do_something_are_left_out_by_name(earlier, tmp_path):
    mark = tmp_path / "mark"
    content = f"cos\nsystem\n(S'touch {mark}'\ntR.".encode()
    (earlier.saved_objects / "3.pckl").write_bytes(content)
    log = json.loads(earlier.experiment_log.read_text())
    outside = tmp_path / "outside.pckl"
    outside.write_bytes(pickle.dumps(1.0))
    log["history"][0]["eval_results"][TRAINED]["mean_rank"] = f"pickled://{outside}"
    earlier.experiment_log.write_text(json.dumps(log))
    with pytest.warns(UserWarning, match="lies outside its run"):
        collected = collect(tmp_path)
    with collected:
        assert collected.evaluations.column("mean_rank").to_pylist() == [None, 1.0]
        with pytest.warns(UserWarning, match=r"os\.system, which no result is made of"):
            ranks = collected.sql("select rank from questions order by step")
        assert ranks.column("rank").to_pylist() == [None, 1]
    assert not mark.exists()


def test_runs_of_both_systems_are_one_table(earlier, tmp_path):
    make_experiment(tmp_path)
    with collect(tmp_path) as collected:
        n = collected.sql("select earlier, count(*) as n from runs group by earlier order by all")
        assert n.to_pylist() == [{"earlier": False, "n": 1}, {"earlier": True, "n": 1}]
        n = collected.sql("select count(distinct run) as n from questions")
        assert n.to_pylist() == [{"n": 2}]


WRITES = [
    "copy (select 1) to '{file}'",
    "with x as (copy (select 1) to '{file}') select * from x",
    "copy runs to '{file}' (format parquet)",
    "copy (select 1) to '{records}'",
    "with x as (copy (select 1) to '{records}') select * from x",
    "export database '{file}'",
    "attach '{file}'",
    "attach '{file}' as other; create table other.t as select 1",
    "install httpfs",
    "load httpfs",
    "set enable_external_access = true",
    "reset enable_external_access",
    "set temp_directory = '{file}'",
    "set lock_configuration = false",
    "create table t as select 1",
    "drop view evaluations",
    "select 1; select 2",
    "pragma database_list",
    "",
]
READS = [
    "select * from read_text('{secret}')",
    "select * from read_csv('{secret}')",
    "select * from '{secret}.csv'",
    "select * from read_parquet('{records}')",
    "select * from glob('{folder}/*')",
    "select * from read_text('https://example.com/x')",
    "select * from parquet_metadata('{records}')",
    "select * from sniff_csv('{secret}')",
    "select getenv('HOME')",
    "select * from table_of_python",
]


@pytest.mark.parametrize("query", WRITES + READS)
def test_a_query_neither_writes_nor_reads_anything_else(outputs, tmp_path, query):
    table_of_python = pa.table({"a": [1]})
    secret = tmp_path / "secret"
    secret.write_text("a\nsecret\n")
    records = runs_in(outputs)[0].records("final")
    before = records.read_bytes()
    query = query.format(file=tmp_path / "new", secret=secret, records=records, folder=tmp_path)
    with collect(outputs) as collected:
        collected.sql("select count(*) from questions")
        with pytest.raises(ValueError, match=r"the tables: runs|one SELECT is answered"):
            print(collected.sql(query).to_pylist())
        assert collected.evaluations.num_rows == 3 * len(EVALUATIONS) * len(SETS)
    assert records.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
    assert table_of_python.num_rows == 1


def test_a_guard_on_queries_can_fail(tmp_path):
    import duckdb

    query = f"with x as (copy (select 1) to '{tmp_path / 'new'}') select * from x"
    duckdb.connect().sql(query).fetchall()
    assert (tmp_path / "new").exists()


def test_paths_without_runs_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        collect(tmp_path / "nothing")
    with pytest.raises(ValueError, match="no run in"):
        collect(tmp_path)
    with pytest.raises(ValueError, match="no run in no paths"):
        collect([])


def test_reading_results_loads_no_torch(outputs):
    code = textwrap.dedent(f"""
        import sys
        from oocr_influence import results
        with results.collect({str(outputs)!r}) as collected:
            run = collected.runs.to_pylist()[0]["run"]
            assert collected.evaluations.num_rows
            assert collected.sql("from questions").num_rows
            results.compare(collected, run, run + "@start")
        print([name for name in ("torch", "transformers", "datasets") if name in sys.modules])
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_without_duckdb_the_remedy_is_told(outputs, monkeypatch):
    monkeypatch.setattr("oocr_influence.results.collecting.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install \"oocr-influence\[results\]\""):
        collect(outputs)


def test_an_evaluation_that_is_made_again_is_no_double(tmp_path):
    """A run that goes on writes again what it takes back."""
    run = make_experiment(tmp_path).run
    run.rewind(3, in_burn_in=None)
    with collect(tmp_path) as collected:
        assert set(collected.evaluations.column("evaluation").to_pylist()) == {
            "start",
            "e1_s2",
            "e1_s3",
        }
    for name, step, epoch in (("e2_s5", 5, 1.5), ("final", 6, 2.0)):
        evaluate(run, name, step, epoch)
    with collect(tmp_path) as collected:
        n = collected.sql(
            "select count(*) as n, count(distinct (evaluation, set, id)) as d from questions"
        )
        assert n.to_pylist() == [{"n": 30, "d": 30}]
