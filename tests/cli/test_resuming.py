"""A run that is stopped, at any step, goes on in its own folder and leaves the same as without."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from oocr_influence.cli import one_run, run_asking, run_saving
from oocr_influence.cli.arguments import UsageError, parse
from oocr_influence.cli.one_run import run_once
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.resuming import begun_with, find_unfinished, resume, unfinished_run
from oocr_influence.cli.run_context import Control, RunStopped
from oocr_influence.cli.train_extractive import TrainExtractiveArgs
from oocr_influence.cli.verify import dataset_of, expected_of
from oocr_influence.results.run_folder import RunFolder
from oocr_influence.results.verification import verify_run

pytestmark = pytest.mark.filterwarnings("ignore:.*more than once")
torch.set_num_threads(1)
SAMPLE = Path(__file__).parents[1] / "samples" / "earlier_structured_dataset.json"


def arguments(folder, **changes):
    given = {
        "structured_dataset": SAMPLE,
        "output_dir": folder,
        "model": "olmo2-tiny",
        "n_pretraining_examples": 6,
        "chunk_size": 128,
        "batch_size": 7,
        "micro_batch_size": 3,
        "learning_rate": 1e-3,
        "beam_search": "never",
        "epochs": 2,
        "burn_in_epochs": 0.3,
        "epochs_per_eval": 0.5,
        "epochs_per_save": 0.5,
        **changes,
    }
    return TrainingArgs(**given)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nobody stops."""
    return RunFolder(Path(run_once(arguments(tmp_path_factory.mktemp("whole")))["run"]))


class StopAfter(Control):
    """Asks to stop once so many updates have been made, those of burn-in included."""

    def __init__(self, updates):
        self.updates = updates
        super().__init__(report=self._count, stop_requested=lambda: self.updates <= 0)

    def _count(self, values):
        self.updates -= "tok/s" in values["message"]


def contents(run):
    """All that a run leaves, but times, names of processes and places."""
    log = json.loads(run.experiment_log.read_text())
    kept = ("status", "train_set_digest", "packing_digest", "weights_digest", "order_digests")
    kept = (*kept, "attention", "compiled")
    steps = [json.loads(line) for line in run.steps.read_text().splitlines()]
    for step in steps:
        del step["seconds"]
    for entry in log["history"]:
        del entry["eval_time"]
    return {
        "log": {name: log["log_dict"][name] for name in kept},
        "history": log["history"],
        "steps": steps,
        "exposure": pq.read_table(run.exposure).to_pylist(),
        "evaluations": {
            name: run.read_evaluation(name).eval_sets | {"records": run.read_records(name)}
            for name in run.evaluations()
        },
        "weights": {
            name: load_file(run.checkpoint(name) / "model.safetensors")
            for name in run.checkpoints()
        },
    }


def check_same(one, other):
    found, expected = contents(one), contents(other)
    weights, wanted = found.pop("weights"), expected.pop("weights")
    assert found == expected
    assert weights.keys() == wanted.keys()
    for name, tensors in wanted.items():
        for key, tensor in tensors.items():
            assert torch.equal(weights[name][key], tensor), (name, key)


def stop_and_go_on(args, *updates):
    """Stop after each of these numbers of updates in turn, then go on to the end."""
    folder = None
    for count in updates:
        with pytest.raises(RunStopped) as stopped:
            run_once(args, StopAfter(count), unfinished=folder)
        folder = RunFolder(stopped.value.folder)
        assert json.loads(folder.experiment_log.read_text())["log_dict"]["status"] == "interrupted"
        assert find_unfinished(args) == folder
    done = run_once(args, unfinished=folder)
    assert done["run"] == str(folder.path)
    assert find_unfinished(args) is None
    assert not folder.training_state.exists()
    assert folder.unfinished() == []
    return folder


@pytest.mark.parametrize("updates", [(1,), (5,), (8, 3), (13,)], ids=str)
def test_stopped_and_gone_on_with_is_the_same_run(tmp_path, whole, updates):
    """In burn-in (two updates), between checkpoints, at one (five), in the second epoch and once
    more, one update before the end."""
    folder = stop_and_go_on(arguments(tmp_path), *updates)
    check_same(folder, whole)
    assert verify_run(folder, expected_of, dataset_of(folder)).ok
    resumed = json.loads(folder.experiment_log.read_text())["log_dict"]["resumed"]
    assert len(resumed) == len(updates)


@pytest.mark.slow
def test_without_the_cache_the_untouched_model_is_asked_again(tmp_path, whole):
    folder = stop_and_go_on(arguments(tmp_path, eval_cache=False), 6)
    check_same(folder, whole)
    phases = json.loads(folder.experiment_log.read_text())["log_dict"]["phases"]
    assert phases["evaluate_untouched_again"]["count"] == 1
    assert phases["evaluate"]["count"] == 5


@pytest.mark.slow
@pytest.mark.parametrize("at", ["stream_checkpoint", "evaluate", "write_evaluation", "record"])
def test_what_dies_between_two_files_goes_on(tmp_path, whole, monkeypatch, at):
    """The state is written first: what comes after it at the same step is made when going on."""
    seen = []

    def dies_at_the_third(own):
        def call(*given, **named):
            seen.append(1)
            if len(seen) == 3:
                raise MemoryError("gone")
            return own(*given, **named)

        return call

    places = {
        "stream_checkpoint": (run_saving, "stream_checkpoint"),
        "evaluate": (run_asking.Evaluator, "evaluate"),
        "write_evaluation": (RunFolder, "write_evaluation"),
        "record": (run_asking.RunAsking, "_record"),
    }
    owner, name = places[at]
    args = arguments(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dies_at_the_third(getattr(owner, name)))
        with pytest.raises(MemoryError):
            run_once(args)
    folder = find_unfinished(args)
    assert json.loads(folder.experiment_log.read_text())["log_dict"]["status"] == "failed"
    run_once(args, unfinished=folder)
    check_same(folder, whole)


def test_a_run_without_a_state_begins_again_in_its_folder(tmp_path, whole):
    args = arguments(tmp_path, save_state=False)
    folder = stop_and_go_on(args, 8)
    check_same(folder, whole)


def test_a_run_goes_on_with_the_attention_that_it_began_with(tmp_path):
    args = arguments(tmp_path)
    with pytest.raises(RunStopped) as stopped:
        run_once(args, StopAfter(6))
    found = resume(RunFolder(stopped.value.folder))
    assert begun_with(found, args) == ("padded", "off")
    found.log.log_dict["compiled"] = True
    assert begun_with(found, args) == ("padded", "on")
    # A run of before there was a choice.
    del found.log.log_dict["attention"], found.log.log_dict["compiled"]
    assert begun_with(found, args) == ("dense", "off")
    # Without a state it begins again, as a new one does.
    found.folder.training_state.unlink()
    assert begun_with(found, args) == begun_with(None, args) == ("auto", "auto")
    found.folder.release()


def test_what_decides_bits_is_on_disk_before_the_first_update(tmp_path):
    """A run that is killed after its first state goes on as it began, evaluated or not."""
    logged = []

    def look(values):
        if "tok/s" in values["message"]:
            logged.extend(json.loads(p.read_text()) for p in tmp_path.glob("*/experiment_log.json"))

    args = arguments(tmp_path, epochs_per_eval=None, eval_first_step=False, max_steps=1)
    run_once(args, Control(report=look))
    assert {log["log_dict"].get("attention") for log in logged} == {"padded"}
    assert all("compiled" in log["log_dict"] for log in logged)
    assert all("train_set_digest" in log["log_dict"] for log in logged)


def test_a_run_that_died_between_its_windows_and_its_log_has_their_digest(tmp_path, whole):
    args = arguments(tmp_path)
    with pytest.raises(RunStopped) as stopped:
        run_once(args, StopAfter(1))
    folder = RunFolder(stopped.value.folder)
    log = json.loads(folder.experiment_log.read_text())
    del log["log_dict"]["train_set_digest"], log["log_dict"]["packing_digest"]
    folder.experiment_log.write_text(json.dumps(log))
    run_once(args, unfinished=folder)
    check_same(folder, whole)


def test_later_work_is_taken_back(tmp_path):
    """A checkpoint after the last state is made again, and the log says so."""
    args = arguments(tmp_path)
    with pytest.raises(RunStopped) as stopped:
        run_once(args, StopAfter(6))
    folder = RunFolder(stopped.value.folder)
    (folder.path / "checkpoint_e1_s6").mkdir()
    folder.records("e1_s6").write_bytes(b"half")
    folder.evaluation("e1_s6").write_text("{}", encoding="utf-8")
    added = folder.evaluation("e1_s6", "0" * 16)
    added.write_text("{}", encoding="utf-8")
    found = resume(folder)
    assert found.place.training_step == 4
    assert not (folder.path / "checkpoint_e1_s6").exists()
    assert not folder.evaluation("e1_s6").exists()
    assert added.exists(), "what oocr evaluate added is not the run's to delete"
    last = json.loads(folder.experiment_log.read_text())["log_dict"]["resumed"][-1]
    assert "checkpoint_e1_s6" in last["made_again"]
    folder.release()


def test_what_cannot_go_on_says_why(tmp_path, whole):
    with pytest.raises(UsageError, match="this run is complete"):
        unfinished_run(whole.path)
    with pytest.raises(UsageError, match="is not the folder of a run"):
        unfinished_run(tmp_path)
    args = arguments(tmp_path)
    with pytest.raises(RunStopped) as stopped:
        run_once(args, StopAfter(6))
    folder = RunFolder(stopped.value.folder)
    assert unfinished_run(folder.path) == (folder, args)
    assert find_unfinished(arguments(tmp_path, learning_rate=2e-3)) is None
    other = json.loads(SAMPLE.read_text())
    other["document_dataset"]["docs"].pop()
    changed = tmp_path / "other.json"
    changed.write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(UsageError, match="its windows are not those it began with"):
        run_once(arguments(tmp_path, structured_dataset=changed), unfinished=folder)
    folder.training_state.write_bytes(b"PK torn")
    with pytest.raises(UsageError, match=r"training_state.pt cannot be read .* delete it"):
        run_once(args, unfinished=folder)
    folder.training_state.unlink()
    run_once(args, unfinished=folder)
    check_same(folder, whole)


def test_flags_of_the_command(tmp_path):
    with pytest.raises(UsageError, match="--epochs: with --resume a run goes on as it was"):
        parse(TrainExtractiveArgs, ["--resume", str(tmp_path), "--epochs", "2"])
    with pytest.raises(UsageError, match="--structured_dataset is missing"):
        parse(TrainExtractiveArgs, ["--epochs", "2"])
    given = parse(TrainExtractiveArgs, ["--structured_dataset", "x.json", "--epochs", "2"])
    assert given.run() == TrainingArgs(structured_dataset=Path("x.json"), epochs=2)
    assert given.run().model_fields_set == {"structured_dataset", "epochs"}


def test_a_signal_stops_the_command_and_its_line_goes_on(tmp_path, whole):
    """Through the shell's door: SIGTERM, exit status 75, the printed line, the same run."""
    args = arguments(tmp_path).model_dump(mode="json", exclude_defaults=True)
    words = [word for name, value in args.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "oocr_influence.cli.main", "train_extractive"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, *words], stdout=subprocess.PIPE, env=environment)
    deadline = time.monotonic() + 100
    while not list(tmp_path.glob("*/checkpoint_e1_s3")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 75
    line = said.decode().splitlines()[-1]
    folder = RunFolder(Path(line.rpartition(" ")[2]))
    assert line == f"go on with: oocr train_extractive --resume {folder.path}"
    assert folder.training_state.exists()
    done = subprocess.run(
        [*command, "--resume", str(folder.path)], capture_output=True, env=environment, check=True
    )
    assert done.stdout.decode().splitlines()[-1] == str(folder.path)
    check_same(folder, whole)


class StopsBetweenTwoLooks(StopAfter):
    """Is asked to stop after it was looked at for the first time once the updates are made."""

    def __init__(self, updates):
        super().__init__(updates)
        self.looks = 0
        self.stop_requested = self._late

    def _late(self):
        self.looks += self.updates <= 0
        return self.looks > 1


def test_whoever_stops_has_saved_that_very_update(tmp_path):
    """Whenever the signal comes: nothing that was trained is taken back."""
    with pytest.raises(RunStopped) as stopped:
        run_once(arguments(tmp_path), StopsBetweenTwoLooks(6))
    folder = RunFolder(stopped.value.folder)
    made = folder.steps.read_text()
    found = resume(folder)
    assert found.place.training_step == found.last_step.step == 5
    assert folder.steps.read_text() == made
    folder.release()


def test_who_dies_after_the_last_update_goes_on_from_the_last_state(tmp_path, whole, monkeypatch):
    """Not from the beginning: the state is there until all else is done."""

    def dies(*given):
        raise MemoryError("gone")

    args = arguments(tmp_path)
    for name in ("record_exposure", "record_update_losses"):
        with monkeypatch.context() as patch:
            patch.setattr(one_run, name, dies)
            with pytest.raises(MemoryError):
                run_once(args, unfinished=find_unfinished(args))
    folder = find_unfinished(args)
    run_once(args, unfinished=folder)
    resumed = json.loads(folder.experiment_log.read_text())["log_dict"]["resumed"]
    assert len(resumed) == 2
    assert min(one["step"] for one in resumed) > 8
    assert not folder.training_state.exists()
    check_same(folder, whole)
