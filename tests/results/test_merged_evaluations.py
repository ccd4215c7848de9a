"""What was added to a run later is read with its own, each question once."""

import json

import pytest
from made_runs import EVALUATIONS, make_experiment, question

from oocr_influence.cli.verify import dataset_of, expected_of
from oocr_influence.reports.table import before_after_table
from oocr_influence.results.merged_evaluations import is_evaluated, read_merged
from oocr_influence.results.verification import verify_run

OLD, NEW = "a" * 16, "b" * 16
SET = "name_mayor_eval_qa_1_no_fs"


@pytest.fixture
def run(tmp_path):
    return make_experiment(tmp_path).run


def add(run, name, suite, sets, *, when="2026-01-01", n=3, loss=None, about="trained"):
    records = [
        question(s, i, relation="name_mayor", style="qa", kind=about, step=0)
        | ({} if loss is None else {"loss": loss})
        for s in sets
        for i in range(n)
    ]
    means = {
        s: {
            "n": n,
            "mean_loss": sum(r["loss"] for r in records if r["set"] == s) / n,
            "accuracy": 0.0,
            "mean_rank": sum(r["rank"] for r in records if r["set"] == s) / n,
        }
        for s in sets
    }
    run.write_evaluation(
        name,
        step_num=0,
        epoch_num=0.0,
        eval_seconds=1.0,
        eval_sets=means,
        records=records,
        suite=suite,
        made={"when": when},
    )


def test_files_of_their_own_leave_the_runs_own_as_they_are(run):
    before = {path.name: path.read_bytes() for path in run.eval_results.iterdir()}
    add(run, "final", OLD, ["new"])
    assert run.evaluations() == EVALUATIONS
    assert run.added_evaluations() == [("final", OLD)]
    after = {path.name: path.read_bytes() for path in run.eval_results.iterdir()}
    assert {name: after.pop(name) for name in before} == before
    assert sorted(after) == [f"eval_results_final__{OLD}.json", f"records_final__{OLD}.parquet"]


def test_new_sets_are_merged_and_known_questions_count_once(run):
    add(run, "final", OLD, ["new", SET], loss=9.0)
    own = run.read_evaluation("final").eval_sets
    merged = read_merged(run, "final", ["loss"])
    assert list(merged.eval_sets) == [*own, "new"]
    assert merged.eval_sets[SET] == own[SET]
    rows = merged.records.to_pylist()
    assert sum(row["set"] == SET for row in rows) == 3
    assert {row["loss"] for row in rows if row["set"] == "new"} == {9.0}
    assert merged.suites == (OLD,)


def test_the_latest_of_two_added_ones_counts(run):
    add(run, "e1_s3", OLD, ["new"], loss=1.0, when="2026-01-01")
    add(run, "e1_s3", NEW, ["new"], loss=2.0, when="2026-02-01")
    merged = read_merged(run, "e1_s3")
    assert merged.eval_sets["new"]["mean_loss"] == 2.0
    assert merged.suites == (NEW,)


def test_other_questions_under_a_known_name_keep_both(run):
    add(run, "final", OLD, [SET], n=2)
    merged = read_merged(run, "final")
    assert merged.eval_sets[f"{SET}@aaaaaaaa"]["n"] == 2
    assert merged.eval_sets[SET]["n"] == 3


def test_a_checkpoint_that_its_run_never_asked(run):
    assert not is_evaluated(run, "e9_s9")
    with pytest.raises(FileNotFoundError, match="e9_s9"):
        read_merged(run, "e9_s9")
    add(run, "e9_s9", OLD, ["new"])
    assert list(read_merged(run, "e9_s9").eval_sets) == ["new"]


def test_the_table_counts_sets_that_were_asked_before_and_after(run):
    def questions():
        return {row.group["kind"]: row.n_questions for row in before_after_table([run])}

    own = questions()
    add(run, "final", OLD, ["new"], about="control")
    assert questions() == own  # nothing to compare it with
    add(run, "start", OLD, ["new"], about="control")
    assert questions() == own | {"control": 3}


def test_verify_finds_them_well_and_sees_damage(run):
    def faults():
        return [f.what for f in verify_run(run, expected_of, dataset_of(run)).findings]

    add(run, "final", OLD, ["new"])
    assert faults() == []
    path = run.evaluation("final", OLD)
    found = json.loads(path.read_text())
    found["eval_sets"]["new"]["mean_loss"] += 1
    path.write_text(json.dumps(found))
    assert len(faults()) == 1
    assert path.name in faults()[0]
    run.records("final", OLD).unlink()
    assert path.name in faults()[0]
