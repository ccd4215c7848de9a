"""`oocr rerun` and `oocr diff`: replayed bit for bit, refused, warned of, told apart in words."""

import hashlib
import json
import shutil
import socket
import sys
import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from oocr_influence.cli import diff as diff_command
from oocr_influence.cli import document
from oocr_influence.cli import rerun as rerun_command
from oocr_influence.cli.arguments import UsageError, parse
from oocr_influence.cli.one_run import run_once
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.run_context import Control, RunStopped
from oocr_influence.results.checkpoints import content_digest
from oocr_influence.results.run_folder import RunFolder

SAMPLE = Path(__file__).parents[1] / "samples" / "earlier_structured_dataset.json"
SMALL = {
    "model": "olmo2-tiny",
    "n_pretraining_examples": 6,
    "chunk_size": 128,
    "batch_size": 8,
    "micro_batch_size": 8,
    "learning_rate": 1e-3,
    "beam_search": "never",
}

SHORT = {"epochs_per_eval": None, "epochs_per_save": None, "n_loss_documents": 4}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run to replay; no test changes it."""
    torch.set_num_threads(1)
    dataset = tmp_path_factory.mktemp("data") / "facts.json"
    shutil.copy(SAMPLE, dataset)
    given = {**SMALL, **SHORT, "structured_dataset": dataset}
    given["output_dir"] = tmp_path_factory.mktemp("first")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return RunFolder(Path(run_once(TrainingArgs(**given))["run"]))


@pytest.fixture
def copied(first, tmp_path):
    """A copy of the run, to break."""
    folder = tmp_path / "copy" / first.name
    shutil.copytree(first.path, folder)
    return RunFolder(folder)


def rerun(*words):
    args = parse(rerun_command.RerunArguments, list(map(str, words)))
    return rerun_command.main(args)


def diff(*words):
    return diff_command.main(parse(diff_command.DiffArguments, list(map(str, words))))


def change_log(run, **values):
    log = json.loads(run.experiment_log.read_text())
    for name, value in values.items():
        if name == "args":
            log["args"] |= value
        else:
            log["log_dict"][name] = value
    run.experiment_log.write_text(json.dumps(log))


def only_run(folder):
    (path,) = folder.iterdir()
    return RunFolder(path)


def test_a_replay_is_the_same_to_the_last_bit(first, tmp_path, capsys):
    assert rerun(first.path, "--to", tmp_path / "again") == 0
    out = capsys.readouterr().out
    assert "the same: loss, gradient norm and windows of all 5 updates" in out
    assert "the same: the last weights, digest " in out
    assert "it came out the same" in out
    again = only_run(tmp_path / "again")
    # By plain files, not by what the command says.
    for name in ("checkpoint_start", "checkpoint_final"):
        files = [run.path / name / "model.safetensors" for run in (first, again)]
        assert files[0].read_bytes() == files[1].read_bytes()
    losses = [
        [json.loads(line)["loss"] for line in run.steps.read_text().splitlines()]
        for run in (first, again)
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 5
    log = json.loads(again.experiment_log.read_text())["log_dict"]
    assert log["rerun_of"] == {"run": str(first.path), "same": True, "differences": []}
    assert "evaluation_from_cache" not in log
    assert diff(first.path, again.path) == 0
    out = capsys.readouterr().out
    assert "the same, in both: configuration, model, data, data order, code" in out


def test_a_run_writes_down_what_a_replay_takes(first):
    log = json.loads(first.experiment_log.read_text())["log_dict"]
    assert log["dataset_digest"] == hashlib.sha256(SAMPLE.read_bytes()).hexdigest()
    assert log["final_weights_digest"] == content_digest(first.checkpoint("final"))
    assert log["torch_settings"]["threads"] == 1
    assert log["torch_settings"]["cpu_capability"]
    provenance = log["provenance"]
    assert provenance["libraries"]["torch"] == torch.__version__
    assert provenance["command_line"] == sys.orig_argv
    git = provenance["git"]
    if git["dirty"]:
        diff = first.working_tree_diff.read_text()
        assert hashlib.sha256(diff.encode()).hexdigest() == git["diff_digest"]


def test_a_run_that_was_stopped_and_went_on_replays_the_same(tmp_path, capsys):
    given = {**SMALL, **SHORT, "structured_dataset": SAMPLE, "output_dir": tmp_path / "first"}
    args, made = TrainingArgs(**given), []
    control = Control(
        report=lambda told: made.append(told.get("completed")),
        stop_requested=lambda: 3 in made,
    )
    with pytest.raises(RunStopped) as stopped:
        run_once(args, control)
    run = RunFolder(stopped.value.folder)
    run_once(args, unfinished=run)
    (entry,) = json.loads(run.experiment_log.read_text())["log_dict"]["resumed"]
    assert entry["step"] == 3
    assert entry["provenance"]["host"] == socket.gethostname()
    assert rerun(run.path, "--to", tmp_path / "again") == 0
    words = [str(tmp_path / "first"), "--to", str(tmp_path / "record")]
    document.main(parse(document.DocumentArguments, words))
    text = (tmp_path / "record" / "replication.md").read_text()
    assert "experiment, seed 42: went on after step 3 on " in text
    assert f"({socket.gethostname()})" in text


def test_another_dataset_is_refused_unless_told(copied, tmp_path, capsys):
    changed = tmp_path / "other.json"
    dataset = json.loads(SAMPLE.read_text())
    dataset["document_dataset"]["docs"][-1]["completion"] += " And more."
    changed.write_text(json.dumps(dataset))
    with pytest.raises(UsageError, match=r"other\.json has digest .* --other_data"):
        rerun(copied.path, "--to", tmp_path / "again", "--dataset", changed)
    assert not (tmp_path / "again").exists()
    words = ("--to", tmp_path / "again", "--dataset", changed, "--other_data")
    assert rerun(copied.path, *words) == 1
    out = capsys.readouterr().out
    assert "warning: the dataset" in out
    assert "warning: the windows are not those" in out
    assert "differs: the last weights" in out
    again = only_run(tmp_path / "again")
    assert diff(copied.path, again.path) == 1
    out = capsys.readouterr().out
    assert "the dataset's file: " in out
    assert "documents: 38 the same, 1 changed" in out
    assert "the same, in both: configuration, model" in out


def test_other_weights_are_refused_unless_told(copied, tmp_path):
    change_log(copied, weights_digest="0" * 64)
    with pytest.raises(UsageError, match=r"untouched weights .* --other_weights"):
        rerun(copied.path, "--to", tmp_path / "again")
    assert not (tmp_path / "again").exists()
    # Of a folder whose commit is another one by now, likewise.
    change_log(copied, model_commit="0" * 40)
    with pytest.raises(UsageError, match="is now commit None"):
        rerun(copied.path, "--to", tmp_path / "again")


def test_a_run_without_its_dataset_or_record_is_refused(copied, tmp_path):
    change_log(copied, args={"structured_dataset": str(tmp_path / "gone.json")})
    with pytest.raises(UsageError, match=r"gone\.json is not there: .* --dataset"):
        rerun(copied.path, "--to", tmp_path / "again")
    change_log(copied, status=None)
    with pytest.raises(UsageError, match="a run of the earlier system"):
        rerun(copied.path)
    change_log(copied, status="completed", args={"no_such_flag": 3})
    with pytest.raises(UsageError, match="what this version lacks: no_such_flag"):
        rerun(copied.path)
    copied.experiment_log.unlink()
    with pytest.raises(UsageError, match="has no record"):
        rerun(copied.path)


def test_it_warns_in_words_before_it_starts(copied, tmp_path, capsys):
    log = json.loads(copied.experiment_log.read_text())["log_dict"]
    provenance = log["provenance"]
    provenance["libraries"]["torch"] = "2.5.0"
    provenance["environment"]["OMP_NUM_THREADS"] = "7"
    provenance["cpu"] = "An Abacus"
    change_log(copied, provenance=provenance)
    log = json.loads(copied.experiment_log.read_text())
    del log["args"]["profile"]
    copied.experiment_log.write_text(json.dumps(log))
    rerun(copied.path, "--to", tmp_path / "again")
    out = capsys.readouterr().out
    assert "warning: torch: 2.5.0 then, " in out
    assert "warning: OMP_NUM_THREADS: 7 then, " in out
    assert "warning: the processor: An Abacus then, " in out
    assert "warning: profile is not in its record: this version's default False is used" in out
    assert out.index("An Abacus") < out.index("\nA  ")


def test_settings_that_decide_bits_are_those_of_the_record(copied):
    change_log(copied, attention="dense", compiled=False, dtype="torch.bfloat16")
    plan = rerun_command.plan_replay(parse(rerun_command.RerunArguments, [str(copied.path)]))
    assert (plan.args.attention, plan.args.compile, plan.args.precision) == ("dense", "off", "bf16")
    change_log(copied, args={"model": "some/model", "revision": "main"}, model_commit="ab" * 20)
    plan = rerun_command.plan_replay(parse(rerun_command.RerunArguments, [str(copied.path)]))
    assert plan.args.revision == plan.args.model_commit == "ab" * 20


def test_each_kind_of_difference_has_its_words(first, copied, capsys):
    log = json.loads(copied.experiment_log.read_text())["log_dict"]
    provenance = log["provenance"]
    provenance["git"] = {"commit": "1" * 40, "dirty": True, "diff_digest": "2" * 64}
    provenance["host"] = "elsewhere"
    del provenance["cpu"]
    change_log(
        copied,
        args={"learning_rate": 0.002, "data_order_seed": 43, "experiment_name": "other"},
        provenance=provenance,
        order_digests={"1": "3" * 64},
        weights_digest="4" * 64,
    )
    lines = copied.steps.read_text().splitlines()
    changed = json.loads(lines[3]) | {"loss": 1.25}
    copied.steps.write_text("\n".join([*lines[:3], json.dumps(changed), *lines[4:]]) + "\n")
    assert diff(first.path, copied.path) == 1
    out = capsys.readouterr().out
    for words in (
        "learning_rate: 0.001 in A, 0.002 in B",
        "data_order_seed: 42 in A, 43 in B",
        "the windows of epoch 1 come in another order",
        "commit ",
        "(which this checkout lacks)",
        "B had uncommitted changes (222222222222…)",
        "the untouched weights: ",
        "the machine: ",
        "unknown: the processor, which B lacks",
        "1 of 5 updates, losses by up to ",
        "first update 4, in loss",
        "the same: answers of start, final",
    ):
        assert words in out, words
    assert "experiment_name" not in out
    assert diff(first.path, copied.path, "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert told["same"] is False
    parts = {one["part"] for one in told["differences"]}
    assert parts == {"configuration", "model", "data order", "code", "hardware"}
    (rate,) = [one for one in told["differences"] if one["what"] == "learning_rate"]
    assert (rate["a"], rate["b"]) == (0.001, 0.002)


def test_changed_answers_are_counted(first, copied, capsys):
    path = copied.records("final")
    table = pq.read_table(path)
    losses = table.column("loss").to_pylist()
    losses[2] += 0.5
    place = table.column_names.index("loss")
    pq.write_table(table.set_column(place, "loss", pa.array(losses)), path)
    assert diff(first.path, copied.path) == 1
    out = capsys.readouterr().out
    n = len(losses)
    assert f"differs: evaluation final: 1 of {n} questions, losses by up to 0.5" in out


def test_a_wrong_line_is_a_usage_error(first, tmp_path):
    with pytest.raises(UsageError, match="name two runs"):
        diff(first.path)
    with pytest.raises(UsageError, match="no such folder"):
        diff(first.path, tmp_path / "nothing")
    with pytest.raises(UsageError, match="holds no runs"):
        diff(first.path, tmp_path)
