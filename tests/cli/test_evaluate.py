"""`oocr evaluate`: the run's own numbers again, new sets beside them, and nothing else touched."""

import json
import shutil
import signal
import subprocess
import sys

import pytest

from oocr_influence.cli import evaluate, evaluation_session
from oocr_influence.cli.arguments import UsageError, parse
from oocr_influence.cli.evaluate import EvaluateArguments
from oocr_influence.cli.verify import dataset_of, expected_of
from oocr_influence.evaluation.evaluate import Evaluator
from oocr_influence.results.merged_evaluations import read_merged
from oocr_influence.results.run_folder import RunFolder
from oocr_influence.results.verification import verify_run

pytestmark = pytest.mark.filterwarnings("ignore:.*more than once")
OWNER = """
import sys
from pathlib import Path
from oocr_influence.results.run_folder import RunFolder
RunFolder(Path(sys.argv[1])).claim()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("OOCR_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def trained(train_for_all):
    return train_for_all(
        max_steps=2, epochs_per_eval=None, epochs_per_save=None, beam_search="every"
    )


@pytest.fixture
def run(trained, tmp_path):
    return trained(tmp_path)


@pytest.fixture
def asked(monkeypatch):
    """Every evaluation that is made, with its arguments."""
    calls = []
    plain = Evaluator.evaluate

    def counted(self, model, **named):
        calls.append(named)
        return plain(self, model, **named)

    monkeypatch.setattr(Evaluator, "evaluate", counted)
    return calls


@pytest.fixture
def new_questions(sample, tmp_path):
    """The sample's sets under other names and in other words."""
    found = json.loads(sample.read_text())
    builders = {}
    for name, builder in found["eval_dataset_builders"].items():
        for point in builder["eval_points"]:
            point["fact_template"]["prompt"] = "Say: " + point["fact_template"]["prompt"]
        builders[f"new_{name}"] = builder
    found["eval_dataset_builders"] = builders
    path = tmp_path / "new.json"
    path.write_text(json.dumps(found))
    return path


def command(*words):
    return evaluate.main(parse(EvaluateArguments, [str(word) for word in words]))


def without_seconds(evaluation):
    return {
        k: v
        for k, v in evaluation.to_json().items()
        if k not in ("eval_seconds", "document_losses")
    }


def test_a_runs_own_questions_give_its_own_numbers(run):
    assert command(run.path, "--checkpoints", "all") == 0
    assert {name for name, _ in run.added_evaluations()} == {"start", "final"}
    for name, suite in run.added_evaluations():
        own, added = run.read_evaluation(name), run.read_evaluation(name, suite)
        assert without_seconds(added) == without_seconds(own)
        assert run.read_records(name, suite=suite).equals(run.read_records(name))
        merged = read_merged(run, name)
        assert merged.eval_sets == own.eval_sets
        assert merged.suites == ()
    suite = json.loads(run.experiment_log.read_text())["log_dict"]["eval_suite_digest"]
    assert {short for _, short in run.added_evaluations()} == {suite[:16]}


def test_the_untouched_models_scores_come_out_of_the_cache(run, asked):
    command(run.path)
    assert len(asked) == 1
    assert asked[0]["baseline"] is not None
    command(run.path, "--again", "--no-eval_cache")
    assert len(asked) == 3  # start, to compare with, and final


def test_new_sets_are_merged_on_reading(run, new_questions):
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    assert command(run.path, "--dataset", new_questions, "--checkpoints", "start", "final") == 0
    assert {path: path.read_bytes() for path in before} == before
    own = run.read_evaluation("final").eval_sets
    merged = read_merged(run, "final")
    assert list(merged.eval_sets) == [*own, *(f"new_{name}" for name in own)]
    assert merged.records.num_rows == 2 * run.read_records("final").num_rows
    report = verify_run(run, expected_of, dataset_of(run))
    assert [f.what for f in report.findings] == []
    assert report.n_evaluations == 2


def test_sets_are_chosen_by_pattern(run):
    command(run.path, "--sets", "name_mayor_eval_qa*", "second_*with_fs")
    [(name, suite)] = run.added_evaluations()
    assert set(run.read_evaluation(name, suite).eval_sets) == {
        "name_mayor_eval_qa_1_no_fs",
        "name_mayor_eval_qa_1_with_fs",
        "second_hop_inferred_fact_qa_with_fs",
    }


def test_what_was_asked_is_not_asked_again_unless_told_or_less_is_there(run, asked, capsys):
    command(run.path, "--no-beam_search")
    command(run.path, "--no-beam_search")
    assert len(asked) == 1
    assert "asked before" in capsys.readouterr().out
    command(run.path)  # beam search was left out
    command(run.path, "--no-beam_search")
    command(run.path)
    assert [call["beam_search"] for call in asked] == [False, True]
    command(run.path, "--precision", "bf16", "--no-beam_search")
    assert len(asked) == 4  # its own baseline too
    command(run.path, "--precision", "bf16", "--no-beam_search", "--again")
    assert len(asked) == 5


def test_a_bare_model_has_a_folder_of_its_own(run, sample, tmp_path, asked):
    words = ["--dataset", sample, "--output", tmp_path / "bare", "--model"]
    assert command(*words, "olmo2-tiny") == 0
    bare = RunFolder(tmp_path / "bare")
    own = run.read_evaluation("start").eval_sets
    assert read_merged(bare, "olmo2-tiny").eval_sets == own
    n_asked = len(asked)
    command(*words, "olmo2-tiny")
    assert len(asked) == n_asked
    folder = run.checkpoint("start")
    assert command(*words, folder) == 0
    assert read_merged(bare, str(folder)).eval_sets == own


def test_a_folder_that_holds_other_weights_by_now_is_asked_again(run, sample, tmp_path, asked):
    folder = tmp_path / "weights"
    shutil.copytree(run.checkpoint("start"), folder)
    words = ["--dataset", sample, "--output", tmp_path / "bare", "--model", folder]
    command(*words)
    n_asked = len(asked)
    shutil.copy(run.checkpoint("final") / "model.safetensors", folder)
    command(*words)
    assert len(asked) == n_asked + 1


def test_a_run_in_progress_is_left_alone(run, new_questions):
    """Its owner lives: nothing that is there changes, and only new names appear."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(run.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert owner.stdout.readline() == "ready\n"
        assert run.ownership()[0] == "alive"
        before = {
            p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in run.path.rglob("*") if p.is_file()
        }
        assert command(run.path, "--dataset", new_questions) == 0
        after = {
            p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in run.path.rglob("*") if p.is_file()
        }
        assert {path: after.pop(path) for path in before} == before
        assert {path.parent for path in after} == {run.eval_results}
        assert all("__" in path.name for path in after)
        assert run.ownership()[0] == "alive"
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.wait()


def test_a_run_that_is_deleted_meanwhile_stays_deleted(run, monkeypatch, capsys):
    plain = evaluation_session.Session._write

    def write(self, target, *given, **named):
        target.folder.path.rename(target.folder.path.with_name("gone"))
        plain(self, target, *given, **named)

    monkeypatch.setattr(evaluation_session.Session, "_write", write)
    assert command(run.path) == 1
    assert "deleted meanwhile" in capsys.readouterr().out
    assert not run.path.exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["{run}", "--checkpoints", "e9_s9"],
            "no run has a checkpoint e9_s9; there are: final, start",
        ),
        (["{run}", "--sets", "nope*"], "none of the 5 eval sets is called nope*"),
        (["{run}", "--dataset", "{tmp}/no.json"], "no such file"),
        (["{run}", "--output", "x"], "--output goes with --model"),
        (["{run}", "--model", "olmo2-tiny"], "name either runs or a --model"),
        ([], "name either runs or a --model"),
        (["--model", "olmo2-tiny"], "--output is missing"),
        (["{tmp}"], "no run in"),
        (["{run}", "--device", "cuda"], "there is no GPU"),
    ],
)
def test_wrong_input_is_one_error_before_anything_is_loaded(
    run, tmp_path, monkeypatch, words, told
):
    monkeypatch.setattr(
        evaluation_session, "load_model", lambda *given, **named: pytest.fail("loaded")
    )
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (tmp_path / "empty").mkdir()
    filled = [word.format(run=run.path, tmp=tmp_path / "empty") for word in words]
    with pytest.raises(UsageError, match=told.replace("*", r"\*")):
        command(*filled)


def test_a_broken_checkpoint_is_named(run):
    weights = run.checkpoint("final") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(UsageError, match="cut short"):
        command(run.path)


def test_a_metric_of_ones_own_is_asked_for_later(run, tmp_path):
    """And asked for anew once its file says something else."""
    own = tmp_path / "own_later.py"
    text = (
        "from oocr_influence.evaluation.metrics import metric\n"
        "@metric('bits_later', columns=['bits_later'])\n"
        "def bits_later(asked):\n"
        "    path_Q = asked.planned.right_path_Q\n"
        "    return {'bits_later': asked.sums.loss_P[path_Q] / FACTOR}\n"
    )
    means = []
    for factor in ("0.6931471805599453", "2.0"):
        own.write_text(text.replace("FACTOR", factor), encoding="utf-8")
        for _ in range(2):
            assert command(run.path, "--metric_files", own) == 0
        ((name, suite),) = run.added_evaluations()
        found = run.read_evaluation(name, suite).eval_sets
        for of_set in found.values():
            assert of_set["mean_bits_later"] == pytest.approx(of_set["mean_loss"] / float(factor))
        means.append(run.evaluation(name, suite).stat().st_mtime_ns)
    assert means[0] < means[1]
    with pytest.raises(UsageError, match="--metric_files: no file of metrics at"):
        command(run.path, "--metric_files", tmp_path / "none.py")
