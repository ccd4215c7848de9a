"""`oocr report`: the files that it writes, what the launcher says of jobs, its errors."""

import json
import re
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from launcher.claims import end, take
from launcher.jobs import Job, JobSpec
from launcher.ledger import identity
from oocr_influence.cli.arguments import UsageError, parse
from oocr_influence.cli.page_source import collected_runs, experiments_of, read_page
from oocr_influence.cli.report import ReportArguments, main
from oocr_influence.reports import curves
from oocr_influence.results import collect
from oocr_influence.results.run_folder import ExperimentFolder

sys.path.append(str(Path(__file__).parents[1] / "reports"))

from page_runs import make_outputs


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    return make_outputs(tmp_path_factory.mktemp("outputs"))


def run(*words):
    return main(parse(ReportArguments, [str(word) for word in words]))


def head_of(page):
    found = re.search(r'id="head-data">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    return json.loads(found[1])


def test_a_page_and_every_answer_beside_it(outputs, tmp_path, capsys):
    assert run(outputs, "--out", tmp_path / "page.html") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "page.html",
        "page.questions.parquet",
    ]
    head = head_of(tmp_path / "page.html")
    assert [len(head["groups"]), len(head["runs"])] == [2, 4]
    rows = pq.read_table(tmp_path / "page.questions.parquet").to_pylist()
    with collect(outputs) as collected:
        expected = collected.sql("from questions").to_pylist()
    key = ("run", "evaluation", "set", "index")
    known = {tuple(row[name] for name in key): row for row in expected}
    assert len(rows) == len(known) == len(expected)
    for row in rows:
        same = known[tuple(row[name] for name in key)]
        assert row == {name: same[name] for name in row}
    assert f"{len(rows)} answers" in capsys.readouterr().out


def test_one_run_alone_without_the_answers(outputs, tmp_path):
    (one, *_) = sorted(outputs.glob("*_one/all_docs_runs/*"))
    assert run(one, "--out", tmp_path / "page.html", "--no-questions") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    head = head_of(tmp_path / "page.html")
    assert [run["run"] for run in head["runs"]] == [one.name]


def test_failed_jobs_come_with_their_last_lines(outputs, tmp_path):
    experiment = ExperimentFolder.create(tmp_path, "fails")
    experiment.structured_dataset.write_text("{}")
    job = Job(JobSpec("seed_42", "a:b", label="seed 42"), experiment.job("seed_42"))
    job.write()
    waiting = Job(JobSpec("seed_43", "a:b"), experiment.job("seed_43"))
    waiting.write()
    claim = take(job, **identity())
    with job.log.open("a") as log:
        log.write("step 3\nOutOfMemoryError: no room\n")
    end(job, claim, "failed", 1, error_type="OutOfMemoryError", error_message="no room")
    assert run(tmp_path, "--out", tmp_path / "page.html") == 0
    head = head_of(tmp_path / "page.html")
    assert head["runs"] == head["groups"] == []
    (sweep,) = head["sweeps"]
    assert (sweep["counts"], sweep["live"]) == ({"waiting": 1, "failed": 1}, False)
    (failure,) = head["failures"]
    assert failure["lines"][-2:] == ["step 3", "OutOfMemoryError: no room"]
    assert (failure["state"], failure["message"]) == ("failed", "OutOfMemoryError: no room")
    assert (failure["label"], failure["attempt"]) == ("seed 42", 1)


def test_runs_and_their_experiment_are_one_source(outputs):
    (one, *others) = sorted(outputs.glob("*_one/all_docs_runs/*"))
    assert [found.name for found in experiments_of([one, *others])] == [one.parents[1].name]
    with collected_runs([outputs]) as collected:
        data = read_page([outputs], collected)
    assert len(data.head["sweeps"]) == 2
    assert all(sweep["counts"] is None for sweep in data.head["sweeps"])
    assert [failure["state"] for failure in data.head["failures"]] == ["failed"]


def test_figures_are_the_same_every_time(outputs, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (make smollm2)")
    contents = []
    for name in "ab":
        words = ("--figures", "--figure_metrics", "rank_tie_averaged", "--no-questions")
        run(outputs, "--out", tmp_path / f"{name}.html", *words)
        folder = tmp_path / f"{name}_figures"
        contents.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert contents[0] == contents[1]
    over = [f"one_rank_tie_averaged{end}" for end in ("", "_by_relation", "_by_form", "_sets")]
    stems = ["known", "groups_rank_tie_averaged", "one_training", *over]
    assert {f"{stem}{suffix}" for stem in stems for suffix in (".png", ".svg")} <= {*contents[0]}


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--out", "page.pdf"], "--out page.pdf: a page's name ends in .html"),
        (["--figure_metrics", "loss"], "--figure_metrics belongs to --figures, which is not given"),
        (["--out", "/nowhere/page.html"], "--out /nowhere/page.html: there is no folder /nowhere"),
    ],
)
def test_what_cannot_be_done_is_one_error(outputs, words, fault):
    with pytest.raises(UsageError, match=re.escape(fault)):
        run(outputs, *words)


def test_a_metric_that_was_not_measured_is_one_error(outputs, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (make smollm2)")
    words = ("--out", tmp_path / "page.html", "--figures", "--figure_metrics", "loss", "lost")
    with pytest.raises(UsageError, match=r"--figure_metrics lost: not measured; .*accuracy, loss"):
        run(outputs, *words)
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_report_is_one_error(tmp_path):
    with pytest.raises(UsageError, match="no run in"):
        run(tmp_path, "--out", tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_nothing_is_written(outputs, tmp_path, monkeypatch):
    monkeypatch.setattr(curves, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="--figures: a figure needs matplotlib"):
        run(outputs, "--out", tmp_path / "page.html", "--figures")
    assert list(tmp_path.iterdir()) == []
