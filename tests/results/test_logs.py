"""experiment_log.json, the step log, provenance and phases."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from oocr_influence.results import provenance
from oocr_influence.results.experiment_log import (
    ExperimentLog,
    PickledReference,
    read_experiment_log,
)
from oocr_influence.results.provenance import Phases, collect_provenance, working_tree_diff
from oocr_influence.results.step_log import StepLog, StepRow, read_steps

EARLIER = {
    "experiment_name": "2026_01_20_23-26-57_B6yOG_sample",
    "experiment_output_dir": "outputs/x",
    "args": {"epochs": 1},
    "history": [
        {
            "epoch_num": 0.2,
            "step_num": 42,
            "train_loss": 2.2,
            "eval_results": {
                "s": {
                    "mean_loss": 1.0,
                    "ranks": ["pickled://saved_objects/1.pckl"],
                    "mean_rank": "pickled://saved_objects/1.0.pckl",
                }
            },
        }
    ],
    "log_dict": {"sweep_id": "sampleall_docs", "time_taken": 7801.2},
}


def new_log(path: Path, **options) -> ExperimentLog:
    return ExperimentLog(path, experiment_name="x", args={"folder": Path("a/b")}, **options)


def entry(step: int, text: str = "prompt") -> dict:
    record = {"prompt": text, "loss": np.float32(0.5), "candidate_texts": ["a"], "tokens": [1]}
    return {
        "epoch_num": step / 10,
        "step_num": step,
        "train_loss": float("nan"),
        "global_grad_norm": np.float64(1.5),
        "eval_results": {"s": {"mean_loss": 0.5, "records": [record]}},
        "eval_time": 0.1,
    }


def test_a_log_is_plain_json_and_reads_back(tmp_path):
    log = new_log(tmp_path / "experiment_log.json")
    log.append(entry(1))
    log.append(entry(2))
    log.update(status="running", time_taken=float("inf"), numbers=np.arange(2))
    log.write()
    text = log.path.read_text()
    found = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert list(found) == [
        "experiment_name",
        "experiment_output_dir",
        "args",
        "history",
        "log_dict",
    ]
    assert found["args"] == {"folder": "a/b"}
    assert found["experiment_output_dir"] == str(tmp_path)
    assert [one["step_num"] for one in found["history"]] == [1, 2]
    assert found["history"][0]["train_loss"] is None
    assert found["history"][0]["eval_results"]["s"]["records"] == [
        {"prompt": "prompt", "loss": 0.5}
    ]
    assert found["log_dict"] == {"status": "running", "time_taken": None, "numbers": [0, 1]}
    read = read_experiment_log(log.path)
    assert read.status == "running"
    assert read.history[1].global_grad_norm == 1.5


def test_an_empty_log_is_json_too(tmp_path):
    log = new_log(tmp_path / "experiment_log.json")
    log.write()
    assert read_experiment_log(log.path).history == []


def test_records_are_left_out_past_the_limit(tmp_path):
    log = new_log(tmp_path / "experiment_log.json", records_limit=3000)
    for step in (1, 2):
        log.append(entry(step, "p" * 1000))
        log.write()
    assert all("records" in one.eval_results["s"] for one in read_experiment_log(log.path).history)
    for step in (3, 4):
        log.append(entry(step, "p" * 1000))
        log.write()
    read = read_experiment_log(log.path)
    assert len(read.history) == 4
    assert all(one.eval_results["s"] == {"mean_loss": 0.5} for one in read.history)
    assert "records_*.parquet" in read.log_dict["inline_records"]
    assert log.path.stat().st_size < 3000


def test_a_log_is_resumed(tmp_path):
    log = new_log(tmp_path / "experiment_log.json")
    log.append(entry(1))
    log.update(status="running")
    log.write()
    before = log.path.read_text()
    again = ExperimentLog.resume(log.path)
    again.write()
    assert log.path.read_text() == before
    again.append(entry(2))
    again.write()
    assert len(read_experiment_log(log.path).history) == 2


def test_what_has_no_json_form_is_refused(tmp_path):
    log = new_log(tmp_path / "experiment_log.json")
    with pytest.raises(TypeError, match="object has no plain JSON form"):
        log.update(model=object())


def test_a_log_of_the_earlier_system_is_read_and_its_pickles_are_not_opened(tmp_path):
    path = tmp_path / "experiment_log.json"
    path.write_text(json.dumps(EARLIER))
    read = read_experiment_log(path)
    means = read.history[0].eval_results["s"]
    assert means["mean_loss"] == 1.0
    assert means["mean_rank"] == PickledReference("saved_objects/1.0.pckl")
    assert means["ranks"] == [PickledReference("saved_objects/1.pckl")]
    assert read.status is None
    assert read.log_dict["time_taken"] == 7801.2


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "is not JSON"),
        ('{"experiment_name": "x", "history": [{"epoch_num": 1}]}', r"history\.0\.step_num"),
        ("[]", "experiment_log.json"),
    ],
)
def test_broken_logs_say_where(tmp_path, text, complaint):
    path = tmp_path / "experiment_log.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=complaint):
        read_experiment_log(path)


def row(step: int) -> StepRow:
    return StepRow(
        step=step,
        epoch=1,
        learning_rate=1e-4,
        loss=float("nan") if step == 2 else 1.0,
        grad_norm=1.0,
        clip_factor=1.0,
        labelled_tokens=10,
        window_ids=["a", "b"],
        seconds=0.1,
    )


def test_steps_are_readable_while_they_are_written_and_after_a_torn_line(tmp_path):
    path = tmp_path / "saved_objects" / "steps.jsonl"
    with StepLog(path) as log:
        log.append(row(1), windows=[3, 4])
        assert [one.step for one in read_steps(path)] == [1]
        log.append(row(2), burn_in=True)
    assert [(one.loss, one.burn_in) for one in read_steps(path)] == [(1.0, False), (None, True)]
    with path.open("a") as file:
        file.write('{"step": 3, "epo')
    assert [one.step for one in read_steps(path)] == [1, 2]
    with StepLog(path) as log:
        log.append(row(3))
    assert [one.step for one in read_steps(path)] == [1, 2, 3]
    assert json.loads(path.read_text().splitlines()[0])["windows"] == [3, 4]


def test_a_broken_line_in_the_middle_is_an_error(tmp_path):
    path = tmp_path / "steps.jsonl"
    path.write_text('{"step": 1\n{"step": 2}\n')
    with pytest.raises(ValueError, match="line 1: not a step"):
        list(read_steps(path))


def test_provenance_is_json_and_names_code_and_machine(tmp_path):
    found = json.loads(json.dumps(collect_provenance(tmp_path), allow_nan=False))
    assert found["libraries"]["pyarrow"]
    assert found["cpu_count"] >= 1
    assert found["disk_free_bytes"] > 0
    assert found["gpus"] == [] or found["gpus"][0]["name"]


def git(folder: Path, *words: str) -> None:
    config = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", *config, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A checkout of a package of ours in which provenance.py believes itself to lie."""
    package = tmp_path / "src" / "package"
    (package / "results").mkdir(parents=True)
    (package / "__init__.py").write_text("x = 1\n")
    git(tmp_path, "init", "-q")
    monkeypatch.setattr(provenance, "__file__", str(package / "results" / "provenance.py"))
    # A process looks once where it lies; here that changes within one.
    monkeypatch.setattr(provenance, "_checkout", provenance._checkout.__wrapped__)
    return tmp_path


def test_the_diff_of_the_packages_own_checkout(checkout):
    assert collect_provenance()["git"] is None  # the package is not yet a part of it
    assert working_tree_diff() is None
    git(checkout, "add", "-A")
    git(checkout, "commit", "-qm", "one")
    clean = collect_provenance()["git"]
    assert len(clean["commit"]) == 40
    assert (clean["dirty"], clean["diff_digest"]) == (False, None)
    (checkout / "src/package/__init__.py").write_text("x = 2\n")
    (checkout / "src/package/new.py").write_text("y = 3\n")
    diff = working_tree_diff()
    assert "-x = 1\n+x = 2" in diff
    assert "+y = 3" in diff
    assert collect_provenance()["git"]["dirty"] is True


def test_the_diff_between_two_commits_is_had_where_both_are(checkout):
    def commit():
        git(checkout, "add", "-A")
        git(checkout, "commit", "-qm", "one more")
        return collect_provenance()["git"]["commit"]

    first = commit()
    (checkout / "src/package/__init__.py").write_text("x = 2\n")
    (checkout / "notes.md").write_text("no code\n")
    second = commit()
    diff = provenance.diff_between(first, second)
    assert "-x = 1\n+x = 2" in diff
    assert "no code" not in diff
    assert provenance.diff_between(first, first) == ""
    assert provenance.diff_between(first, "0" * 40) is None
    # What a log says of a commit is no option of git's.
    assert provenance.diff_between(first, f"--output={checkout}/written") is None
    assert not (checkout / "written").exists()


def test_the_command_is_kept_as_it_was_given(tmp_path):
    code = "from oocr_influence.results import provenance; import json; "
    words = [sys.executable, "-c", code + "print(json.dumps(provenance.command_entry()))"]
    words += ["--name", "two words"]
    said = subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    entry = json.loads(said)
    assert entry["command_line"] == words
    assert entry["command"] == ["-c", "--name", "two words"]
    assert entry["working_directory"] == str(tmp_path)


def test_phases_add_up_and_see_the_memory_of_those_inside():
    phases = Phases()
    with phases("train") as record:
        record["steps"] = 3
        for _ in range(2):
            with phases("evaluate"):
                block = np.ones(20_000_000)  # 160 MB
                time.sleep(0.01)
                del block
    train, evaluate = phases.record["train"], phases.record["evaluate"]
    assert (evaluate["count"], train["count"], train["steps"]) == (2, 1, 3)
    assert train["seconds"] >= evaluate["seconds"] >= 0.02
    assert train["peak_rss_bytes"] >= evaluate["peak_rss_bytes"] > 160_000_000
    assert train["start"] <= evaluate["start"] <= evaluate["end"] <= train["end"]
    json.dumps(phases.record)


def test_a_phase_that_fails_is_recorded():
    phases = Phases()
    with pytest.raises(KeyError), phases("load"):
        raise KeyError("x")
    assert phases.record["load"]["failed"] == "KeyError"
    assert phases.record["load"]["end"]
