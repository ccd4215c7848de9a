"""The closing table against numbers computed by hand."""

import statistics
import sys
from pathlib import Path

import pytest

from oocr_influence.reports.table import (
    ASKED,
    before_after_table,
    render_markdown,
    render_overview,
    render_text,
    runs_without,
)
from oocr_influence.results.run_folder import ExperimentFolder, RunFolder


def question(style: str, kind: str, rank: float | None, right: bool, n: int | None = 5) -> dict:
    return {
        "set": f"{style}_{kind}",
        "relation": "spouse",
        "answer_format": "full",
        "style": style,
        "kind": kind,
        "rank_tie_averaged": rank,
        "accuracy": right,
        "n_candidates": n,
    }


def write(run: RunFolder, name: str, records: list[dict]) -> None:
    run.write_evaluation(
        name, step_num=0, epoch_num=0, eval_seconds=0, eval_sets={"s": {"n": 1}}, records=records
    )


@pytest.fixture
def experiment(tmp_path) -> ExperimentFolder:
    return ExperimentFolder.create(tmp_path, "one")


def make_run(experiment: ExperimentFolder, after: float) -> RunFolder:
    run = RunFolder.create(experiment.all_docs_runs, "one", 1, 1e-4)
    reversed_one = question("reversed", "reversed", 3.0, False)
    before = [question("qa", "trained", rank, False) for rank in (2.0, 4.0)]
    learned = [question("qa", "trained", rank, rank == 1.0) for rank in (1.0, after)]
    write(run, "start", [reversed_one, *before])
    write(run, "final", [reversed_one, *learned])
    return run


def test_before_and_after_of_one_run(experiment):
    trained, backward = before_after_table([make_run(experiment, after=2.0)])
    assert dict(trained.group) == {
        "kind": "trained",
        "relation": "spouse",
        "style": "qa",
        "answer_format": "full",
    }
    assert (trained.n_questions, trained.n_runs, trained.chance_rank) == (2, 1, 3.0)
    assert (trained.rank_before.mean, trained.rank_after.mean) == (3.0, 1.5)
    assert (trained.accuracy_before.mean, trained.accuracy_after.mean) == (0.0, 0.5)
    assert trained.rank_after.spread is None
    assert backward.group["kind"] == "reversed"
    assert backward.rank_before == backward.rank_after


def test_several_runs_have_a_spread(experiment):
    runs = [make_run(experiment, after) for after in (1.0, 2.0, 4.0)]
    trained = before_after_table(runs)[0]
    assert trained.n_runs == 3
    assert trained.rank_after.mean == pytest.approx((1.0 + 1.5 + 2.5) / 3)
    assert trained.rank_after.spread == pytest.approx(statistics.stdev([1.0, 1.5, 2.5]))
    assert trained.rank_before.spread == 0
    text = render_text(before_after_table(runs))
    assert "(3 runs; mean ± standard deviation between runs)" in text
    assert "3.00 ± 0.00 → 1.67 ± 0.76" in text


def test_runs_without_both_evaluations_are_left_out(experiment):
    run = make_run(experiment, 1.0)
    unfinished = RunFolder.create(experiment.all_docs_runs, "one", 1, 1e-4)
    write(unfinished, "start", [question("qa", "trained", 5.0, False)])
    assert runs_without([run, unfinished]) == [unfinished]
    assert before_after_table([run, unfinished]) == before_after_table([run])
    assert before_after_table([unfinished]) == []
    assert render_text([]) == "no run has both evaluations"


def test_questions_without_ranks_have_none(experiment):
    run = RunFolder.create(experiment.all_docs_runs, "one", 1, 1e-4)
    for name in ("start", "final"):
        write(run, name, [question("qa", "trained", None, True, n=None)])
    (row,) = before_after_table([run])
    assert (row.rank_before, row.rank_after, row.chance_rank) == (None, None, None)
    assert "– → –" in render_text([row])


def test_each_control_is_a_kind_and_swapped_answers_are_one(experiment):
    run = RunFolder.create(experiment.all_docs_runs, "one", 1, 1e-4)
    for name, (trained, swapped) in {"start": (3.0, 2.0), "final": (1.0, 4.0)}.items():
        asked = {**question("qa", "trained", trained, True), "rank_swapped": swapped}
        written = {**question("gen", "trained", 1.0, True), "rank_swapped": swapped + 1}
        untold = {**question("qa", "control", trained + 1, False), "control": "untold"}
        unmentioned = {**question("qa", "control", trained, False), "control": "unmentioned"}
        earlier = question("gen", "control", 2.0, False)
        write(run, name, [untold, unmentioned, earlier, asked, written])
    rows = before_after_table([run])
    found = {
        (row.group["kind"], row.group["style"]): (row.rank_before.mean, row.rank_after.mean)
        for row in rows
    }
    assert found == {
        ("trained", "gen"): (1.0, 1.0),
        ("trained", "qa"): (3.0, 1.0),
        ("trained", "all"): (2.0, 1.0),
        ("control", "gen"): (2.0, 2.0),
        ("control: swapped", "all"): (2.5, 4.5),
        ("control: unmentioned", "qa"): (3.0, 1.0),
        ("control: untold", "qa"): (4.0, 2.0),
    }
    assert [row.group["kind"].partition(":")[0] for row in rows] == ["trained"] * 3 + [
        "control"
    ] * 4
    (swapped,) = [row for row in rows if row.group["kind"] == "control: swapped"]
    assert (swapped.n_questions, swapped.chance_rank) == (2, 3.0)
    assert swapped.accuracy_after is None


def test_other_groups(experiment):
    rows = before_after_table([make_run(experiment, 1.0)], by=("answer_format",))
    assert [(dict(row.group), row.n_questions) for row in rows] == [({"answer_format": "full"}, 3)]


def test_the_table_is_aligned(experiment, tmp_path):
    rows = before_after_table([make_run(experiment, after=2.0)])
    title, header, rule, *lines = render_text(rows).split("\n")
    assert title == f"{experiment.name} (1 run)"
    assert header.split("  ")[0] == "kind"
    assert set(rule) == {"-"}
    assert len(rule) >= max(map(len, [header, *lines]))
    place = header.index("mean rank")
    assert lines[0][place:].startswith("3.00 → 1.50")
    assert lines[1][place:].startswith("3.00 → 3.00")


def test_markdown(experiment):
    heading, _, header, rule, first, _ = render_markdown(
        before_after_table([make_run(experiment, after=2.0)])
    ).split("\n")
    assert heading == f"### {experiment.name} (1 run)"
    assert header.startswith("| kind | relation | style | format | questions |")
    assert rule.count("---") == header.count("|") - 1
    assert first == "| trained | spouse | qa | full | 2 | 3.00 → 1.50 | 3.0 | 0.00 → 0.50 |"


def test_a_made_experiment_has_a_table(tmp_path):
    sys.path.append(str(Path(__file__).parents[1] / "results"))
    from made_runs import make_experiment

    made = make_experiment(tmp_path, n_runs=2)
    trained, backward = before_after_table(made.runs)
    assert (trained.rank_before.mean, trained.rank_after.mean) == (3.5, 1.0)
    assert (backward.rank_before.mean, backward.rank_after.mean) == (3.5, 3.5)
    assert trained.accuracy_after.mean == 1.0


def test_the_overview_has_a_column_an_experiment(tmp_path):
    runs = []
    for name, after in (("one", 2.0), ("another", 4.0)):
        experiment = ExperimentFolder.create(tmp_path, name)
        runs.append(make_run(experiment, after))
    lines = render_overview(before_after_table(runs, by=("kind",))).splitlines()
    names = ["one", "another"]
    assert lines[0].split() == ["mean", "rank", *sorted(names, key=lines[0].index)]
    trained = next(line for line in lines if line.startswith("trained"))
    cells = trained.removeprefix("trained").strip().split("  ")
    found = dict(zip(lines[0].split()[2:], filter(None, map(str.strip, cells)), strict=True))
    assert found == {names[0]: "3.00 → 1.50", names[1]: "3.00 → 2.50"}
    assert next(line for line in lines if line.startswith("reversed")).count("3.00 → 3.00") == 2


def test_answers_in_another_format_are_rows_of_their_own(experiment):
    run = RunFolder.create(experiment.all_docs_runs, "one", 1, 1e-4)
    formats = {"full": 1.0, "first_name": 2.0, "last_name": 3.0, "iso": 4.0, "dmy": 5.0}
    for name in ("start", "final"):
        trained = [
            {**question("qa", "trained", rank, True), "answer_format": answer_format}
            for answer_format, rank in formats.items()
        ]
        backward = {**question("qa", "reversed", 5.0, True), "answer_format": "first_name"}
        write(run, name, [*trained, backward])
    rows = before_after_table([run], by=(ASKED,))
    assert [(row.group[ASKED], row.n_questions, row.rank_after.mean) for row in rows] == [
        ("trained", 1, 1.0),
        ("trained: first names", 1, 2.0),
        ("trained: last names", 1, 3.0),
        ("trained: other formats of dates", 2, 4.5),
        ("reversed", 1, 5.0),
    ]
