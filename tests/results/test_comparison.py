"""Two runs on the questions that both answered, against numbers taken by hand."""

import itertools
import statistics

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_runs import QUESTIONS, make_experiment

from oocr_influence.results.collecting import collect
from oocr_influence.results.comparison import compare, summarise
from oocr_influence.results.intervals import mean_interval, sign_test

TRAINED = "name_mayor_eval_qa_1_no_fs"


@pytest.fixture
def made(tmp_path):
    return make_experiment(tmp_path, n_runs=2)


def change(run, name, **columns):
    """Replace columns of a records file by what a function makes of each row."""
    table = pq.read_table(run.records(name))
    rows = table.to_pylist()
    for column, of in columns.items():
        place = table.column_names.index(column)
        values = pa.array([of(row) for row in rows], table.schema.field(column).type)
        table = table.set_column(place, column, values)
    pq.write_table(table, run.records(name))


def by_hand(run_a, run_b, kind, metric):
    def values(run):
        rows = pq.read_table(run.records("final")).to_pylist()
        return {(r["set"], r["id"]): (r[metric], r["index"]) for r in rows if r["kind"] == kind}

    a, b = values(run_a), values(run_b)
    return [(a[key][0], b[key][0], a[key][1]) for key in sorted(a.keys() & b.keys())]


def test_differences_are_those_of_the_same_questions(made, tmp_path):
    first, second = made.runs
    change(second, "final", loss=lambda row: row["loss"] * 1.5 - row["index"])
    change(second, "final", id=lambda row: row["id"] if row["index"] else "another question")
    with collect(tmp_path) as collected:
        found = compare(collected, first.name, str(second.path), metric="loss")
    assert (found.a, found.b) == ((first.name, "final"), (second.name, "final"))
    # Two sets, a question of either that the other lacks.
    assert found.n_unpaired == 4
    assert [group.asked for group in found.groups] == ["trained", "reversed"]
    for group in found.groups:
        pairs = by_hand(first, second, group.asked, "loss")
        differences = [b - a for a, b, _ in pairs]
        assert group.mean_a == pytest.approx(statistics.mean(a for a, _, _ in pairs))
        assert group.mean_b == pytest.approx(statistics.mean(b for _, b, _ in pairs))
        assert group.difference.mean == pytest.approx(statistics.mean(differences))
        assert group.sign_test_p == sign_test(differences)  # one question an entity
        expected = mean_interval(
            differences, runs=[0] * len(pairs), entities=[f"{index}" for _, _, index in pairs]
        )
        assert (group.difference.low, group.difference.high) == pytest.approx(
            (expected.low, expected.high)
        )
        assert group.n_entities_higher == sum(value > 0 for value in differences)
        assert group.n_entities_lower == sum(value < 0 for value in differences)


def test_a_run_against_itself_differs_nowhere(made, tmp_path):
    with collect(tmp_path) as collected:
        found = compare(collected, made.run.name, made.run.name)
    for group in found.groups:
        interval = group.difference
        assert (interval.mean, interval.low, interval.high, group.sign_test_p) == (0, 0, 0, 1)


def test_evaluations_of_one_run_are_compared(made, tmp_path):
    short = made.run.name.split("_")[4]
    with collect(tmp_path) as collected:
        found = compare(collected, f"{short}@start", short)
        backward = compare(collected, short, f"{short}@start")
    trained, reversed_ = found.groups
    assert (trained.mean_a, trained.mean_b) == (3.5, 1.0)
    assert trained.n_entities_lower == QUESTIONS
    assert reversed_.difference.mean == 0
    assert backward.groups[0].difference.mean == -trained.difference.mean


def test_signs_are_counted_by_entity_and_not_by_question(made, tmp_path):
    """Three entities in many wordings are three, however many questions there are."""
    for run in made.runs:
        table = pq.read_table(run.records("final"))
        copies = [
            table.set_column(0, "set", pa.array([f"wording {n}"] * table.num_rows))
            for n in range(20)
        ]
        pq.write_table(pa.concat_tables(copies), run.records("final"))
    change(made.runs[1], "final", loss=lambda row: row["loss"] + 1)
    with collect(tmp_path) as collected:
        (trained, _) = compare(collected, *(r.name for r in made.runs), metric="loss").groups
    assert trained.difference.n_questions == 20 * QUESTIONS
    assert trained.sign_test_p == sign_test([1] * QUESTIONS) == 0.25


def test_ranks_among_other_candidates_are_not_compared(made, tmp_path):
    change(made.runs[1], "final", n_candidates=lambda row: 5 if row["kind"] == "trained" else 6)
    names = [run.name for run in made.runs]
    with collect(tmp_path) as collected:
        found = compare(collected, *names)
        assert [group.asked for group in found.groups] == ["trained"]
        assert found.n_unpaired == QUESTIONS
        assert len(compare(collected, *names, metric="loss").groups) == 2


def test_values_that_one_lacks_are_left_out(made, tmp_path):
    change(made.runs[0], "final", loss=lambda row: row["loss"] if row["index"] else None)
    with collect(tmp_path) as collected:
        found = compare(collected, *(run.name for run in made.runs), metric="loss")
    assert [group.difference.n_questions for group in found.groups] == [2, 2]
    assert found.n_unpaired == 2


@pytest.mark.parametrize(
    ("a", "metric", "fault"),
    [
        ("sample", "loss", "2 runs are named 'sample', not one; there are: 2"),
        ("nothing", "loss", "0 runs are named 'nothing'"),
        ("{run}@e9_s9", "loss", "has no evaluation 'e9_s9'; there are: start, e1_s2, e1_s3"),
        ("{run}", "prompt", "no metric 'prompt' among questions: .*loss"),
        ("{run}", 'loss" or 1', "no metric"),
        ("{run}", "prob", "no question in common"),
    ],
)
def test_what_cannot_be_compared_says_why(made, tmp_path, a, metric, fault):
    a = a.format(run=made.run.name)
    with collect(tmp_path) as collected, pytest.raises(ValueError, match=fault):
        compare(collected, a, made.runs[1].name, metric=metric)


def test_the_summary_is_of_all_runs_of_an_experiment(made, tmp_path):
    change(made.runs[1], "final", rank_tie_averaged=lambda row: row["rank_tie_averaged"] + 1)
    with collect(tmp_path) as collected:
        trained, backward = summarise(collected)
    values = {}
    for run, index in itertools.product(made.runs, range(QUESTIONS)):
        rows = pq.read_table(run.records("final")).to_pylist()
        (row,) = (r for r in rows if (r["set"], r["index"]) == (TRAINED, index))
        values[run.name, index] = row["rank_tie_averaged"]
    expected = mean_interval(
        list(values.values()), runs=[k[0] for k in values], entities=[str(k[1]) for k in values]
    )
    assert trained.rank == expected
    assert (trained.rank.n_runs, trained.rank.n_entities, trained.rank.n_questions) == (2, 3, 6)
    assert (trained.asked, backward.asked, trained.chance) == ("trained", "reversed", 3.0)
    assert trained.accuracy.mean == 1.0
