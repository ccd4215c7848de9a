"""Trackers are told what lies on the disk, and nothing that they do is noticed by the run."""

import json
import logging
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from oocr_influence.cli import run_tracking, tracker_thread
from oocr_influence.cli.arguments import UsageError, parse
from oocr_influence.cli.data_modeling import DataModelingArgs
from oocr_influence.cli.one_run import run_once
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.run_context import Control, RunStopped
from oocr_influence.cli.run_tracking import group_means
from oocr_influence.cli.tracker_thread import ToldMark, TrackerThread
from oocr_influence.cli.trackers import TrackedRun, missing_packages
from oocr_influence.cli.verify import dataset_of, expected_of
from oocr_influence.datasets.set_names import asked, describe_by_name, kind_named
from oocr_influence.models.load import load_model, weights_digest
from oocr_influence.models.resolve import resolve_model
from oocr_influence.results.experiment_log import read_experiment_log
from oocr_influence.results.run_folder import RunFolder
from oocr_influence.results.verification import verify_run

pytestmark = pytest.mark.filterwarnings("ignore:.*more than once")
torch.set_num_threads(1)
SAMPLE = Path(__file__).parents[1] / "samples" / "earlier_structured_dataset.json"
# 42 windows in 6 steps; burn-in of 2.
RUN = {
    "structured_dataset": SAMPLE,
    "model": "olmo2-tiny",
    "n_pretraining_examples": 6,
    "chunk_size": 128,
    "batch_size": 7,
    "micro_batch_size": 7,
    "learning_rate": 1e-3,
    "beam_search": "never",
    "burn_in_epochs": 0.3,
    "epochs_per_eval": 0.5,
    "epochs_per_save": 0.5,
    "logging_type": "disk,stdout",
    "sweep_id": "the sweep",
}


class Fake:
    """A tracker that keeps what it is told, over all attempts."""

    def __init__(self):
        self.runs, self.tellings, self.ends = [], [], []

    def start(self, run, told):
        self.runs.append(run)
        return told

    def log(self, step, values):
        self.tellings.append((step, dict(values)))

    def finish(self, status):
        self.ends.append(status)

    def abandon(self):
        pass

    def steps(self):
        return [step for step, values in self.tellings if "train/loss" in values]

    def evaluations(self):
        return [step for step, values in self.tellings if "eval/seconds" in values]


@pytest.fixture
def told_by(monkeypatch):
    """Have the runs of a test tell this tracker alone."""

    def use(make, name="fake"):
        monkeypatch.setattr(run_tracking, "trackers_of", lambda *_: {name: make})

    return use


def arguments(folder, **changes):
    return TrainingArgs(**{"output_dir": folder, **RUN, **changes})


def run(folder, control=None, unfinished=None, **changes):
    done = run_once(arguments(folder, **changes), control, unfinished=unfinished)
    return RunFolder(Path(done["run"]))


def final_digest(folder):
    return weights_digest(load_model(resolve_model(str(folder.checkpoint("final")), None)))


def losses(folder):
    return [json.loads(line)["loss"] for line in folder.steps.read_text().splitlines()]


def logged(folder):
    return read_experiment_log(folder.experiment_log).log_dict


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The run that nobody is told of."""
    return run(tmp_path_factory.mktemp("plain"), logging_type="disk")


def test_it_is_told_all_that_lies_on_the_disk(tmp_path, plain, told_by):
    fake = Fake()
    told_by(lambda: fake)
    folder = run(tmp_path)
    rows = [json.loads(line) for line in folder.steps.read_text().splitlines()]
    assert fake.steps() == [1, 2, *range(3, 9)]  # two of burn-in
    told = [values for _, values in fake.tellings if "train/loss" in values]
    for values, row in zip(told, rows, strict=True):
        assert values["train/loss"] == row["loss"]
        assert values["train/learning_rate"] == row["learning_rate"]
        assert values["train/grad_norm"] == row["grad_norm"]
        assert values["train/step"] == row["step"]
        assert values["train/burn_in"] == row["burn_in"]
        speed = row["labelled_tokens"] / row["seconds"]
        assert values["train/tokens_per_second"] == pytest.approx(speed)
        assert 1e8 < values["train/memory_bytes"] < 1e11
    assert fake.evaluations() == [0, 5, 8]  # start, e1_s3, final
    for (_, values), name in zip(
        [one for one in fake.tellings if "eval/seconds" in one[1]],
        ("start", "e1_s3", "final"),
        strict=True,
    ):
        for key, mean in naive_means(folder, name).items():
            assert values[key] == pytest.approx(mean), key
        documents = folder.read_evaluation(name).document_losses
        assert values["eval/documents/trained/mean_loss"] == documents["trained"]["mean_loss"]
    (tracked,) = fake.runs
    assert folder.name.startswith(tracked.id)
    assert tracked.group == "the sweep"
    assert tracked.config["learning_rate"] == 1e-3
    assert tracked.config["total_steps"] == 6
    assert fake.ends == ["completed"]
    assert logged(folder)["trackers"] == {"fake": {"told_to_step": 8, "fault": None}}
    assert final_digest(folder) == final_digest(plain)
    assert "trackers" not in logged(plain)
    assert not plain.trackers.exists()
    assert verify_run(folder, expected_of, dataset_of(folder)).ok


def naive_means(folder, name):
    """Means over the questions themselves, by the kind of their set."""
    found = {}
    for record in folder.read_records(name).to_pylist():
        about = describe_by_name(record["set"])
        kind = asked(kind_named(about.kind, about.control), about.answer_format)
        group = kind.replace(": ", "_").replace(" ", "_")
        for column, metric in (
            ("loss", "mean_loss"),
            ("accuracy", "accuracy"),
            ("rank", "mean_rank"),
        ):
            found.setdefault(f"eval/{group}/{metric}", []).append(float(record[column]))
    assert len(found) > 6, "the sample has sets of several kinds"
    return {key: np.mean(values) for key, values in found.items()}


def test_means_of_a_group_weigh_questions_and_leave_out_what_is_not_there():
    sets = {
        "a": {"n": 3, "mean_rank": 1.0, "accuracy": 0.5, "n_tied": 2},
        "b": {"n": 1, "mean_rank": 5.0, "accuracy": None},
        "c": {"n": 9, "mean_rank": 7.0},
    }
    groups = {"a": ["x"], "b": ["x", "y/x"], "c": []}
    assert group_means(sets, groups) == {
        "eval/x/mean_rank": 2.0,
        "eval/x/accuracy": 0.5,
        "eval/y/x/mean_rank": 5.0,
    }


class Raises(Fake):
    def __init__(self, where):
        super().__init__()
        self.where = where

    def start(self, run, told):
        if self.where == "start":
            raise ConnectionError("no network")
        return super().start(run, told)

    def log(self, step, values):
        super().log(step, values)
        if self.where == "log" and len(self.tellings) == 3:
            raise SystemExit(1)

    def finish(self, status):
        if self.where == "finish":
            raise OSError("no room")


class Hangs(Fake):
    """Never comes back from where it is told to hang, until the test is over."""

    def __init__(self, where, over):
        super().__init__()
        self.where, self.over, self.abandoned = where, over, False

    def start(self, run, told):
        if self.where == "start":
            self.over.wait()
        return super().start(run, told)

    def log(self, step, values):
        if self.where == "log":
            self.over.wait()

    def finish(self, status):
        if self.where == "finish":
            self.over.wait()

    def abandon(self):
        self.abandoned = True


@pytest.fixture
def over():
    event = threading.Event()
    yield event
    event.set()


def not_there():
    raise ModuleNotFoundError("No module named 'wandb'")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (not_there, "ModuleNotFoundError: No module named 'wandb'"),
        (lambda: Raises("start"), "ConnectionError: no network"),
        (lambda: Raises("log"), "SystemExit: 1"),
        (lambda: Raises("finish"), "OSError: no room"),
    ],
)
def test_one_that_fails_costs_nothing_and_is_told_once(
    tmp_path, plain, told_by, caplog, make, said
):
    told_by(make)
    with caplog.at_level(logging.WARNING, logger="oocr_influence"):
        folder = run(tmp_path)
    assert losses(folder) == losses(plain)
    assert final_digest(folder) == final_digest(plain)
    log = logged(folder)
    assert log["status"] == "completed"
    assert log["trackers"]["fake"]["fault"] == said
    warned = [record.message for record in caplog.records if "fake is not told" in record.message]
    assert len(warned) == 1
    assert said in warned[0]
    assert folder.text_log.read_text().count("is not told any more") == 1


@pytest.mark.parametrize("where", ["start", "log", "finish"])
def test_one_that_hangs_is_left_behind(tmp_path, plain, told_by, monkeypatch, over, where):
    monkeypatch.setattr(tracker_thread, "PATIENCE", 0.5)
    hanging = Hangs(where, over)
    told_by(lambda: hanging)
    folder = run(tmp_path)
    assert losses(folder) == losses(plain)
    log = logged(folder)
    assert log["status"] == "completed"
    assert log["trackers"]["fake"]["fault"] == "it did not end within 0.5 s"
    assert hanging.abandoned


def test_telling_never_waits_and_what_waits_is_bounded(tmp_path, monkeypatch, over):
    monkeypatch.setattr(tracker_thread, "QUEUE_SIZE", 1000)
    monkeypatch.setattr(tracker_thread, "PATIENCE_WITH_A_FAULT", 0.1)
    tracked = TrackedRun("id", "name", None, {}, tmp_path)
    thread = TrackerThread("fake", lambda: Hangs("log", over), tracked)
    longest = 0.0
    for step in range(5000):
        began = time.perf_counter()
        thread.tell((step, 0), {"train/loss": 1.0})
        longest = max(longest, time.perf_counter() - began)
    # The thread may have taken one of them by then.
    assert thread.fault.startswith("it does not keep up: 1000 tellings wait at step 100")
    assert 999 <= thread._queue.qsize() <= 1000
    assert longest < 0.1
    thread.close("completed")


class CrashAfter(Control):
    """Dies after so many updates, as by an error of ours; or is asked to stop."""

    def __init__(self, updates, *, stops=False):
        self.updates, self.stops = updates, stops
        super().__init__(report=self._count, stop_requested=lambda: stops and self.updates <= 0)

    def _count(self, values):
        self.updates -= "tok/s" in values["message"]
        if not self.stops and self.updates == 0:
            self.updates = -1
            raise RuntimeError("planted")


@pytest.mark.parametrize("updates", [(1,), (4,), (6, 1)], ids=str)
@pytest.mark.parametrize("stops", [True, False], ids=["stopped", "crashed"])
def test_attempts_are_one_run_to_it_and_nothing_is_told_twice(
    tmp_path, plain, told_by, stops, updates
):
    """A crash after six updates goes on from the state of five: the sixth is made again."""
    fake = Fake()
    told_by(lambda: fake)
    folder = None
    for count in updates:
        with pytest.raises(RunStopped if stops else RuntimeError):
            run(tmp_path, CrashAfter(count, stops=stops), folder)
        (path,) = tmp_path.iterdir()
        folder = RunFolder(path)
    assert run(tmp_path, None, folder).path == path
    assert fake.steps() == [1, 2, *range(3, 9)]
    assert fake.evaluations() == [0, 5, 8]
    assert [step for step, _ in fake.tellings] == [0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 8]
    assert len({tracked.id for tracked in fake.runs}) == 1
    assert len(fake.runs) == len(updates) + 1
    assert fake.ends == ["interrupted" if stops else "failed"] * len(updates) + ["completed"]
    assert losses(folder) == losses(plain)


def test_an_attempt_tells_what_the_one_before_could_not(tmp_path, told_by):
    told_by(not_there)
    with pytest.raises(RunStopped):
        run(tmp_path, CrashAfter(5, stops=True))
    (path,) = tmp_path.iterdir()
    fake = Fake()
    told_by(lambda: fake)
    run(tmp_path, None, RunFolder(path))
    assert fake.steps() == [1, 2, *range(3, 9)]
    assert fake.evaluations() == [0, 5, 8]
    rows = [json.loads(line)["loss"] for line in RunFolder(path).steps.read_text().splitlines()]
    assert [v["train/loss"] for _, v in fake.tellings if "train/loss" in v] == rows


def test_a_mark_that_cannot_be_read_is_none(tmp_path):
    mark = ToldMark(tmp_path / "x.told")
    assert mark.read() == (-1, 0)
    mark.write((1234, 1))
    mark.write((7, 0))
    mark.close()
    assert mark.read() == (7, 0)
    (tmp_path / "x.told").write_bytes(b"\xff")
    assert mark.read() == (-1, 0)


def test_what_can_be_asked_for():
    line = ["--dataset_builder_path", "x.json"]
    for stated, meant in (
        ("disk", "disk"),
        ("wandb", "disk,wandb"),
        ("tensorboard,stdout, disk", "disk,stdout,tensorboard"),
    ):
        args = parse(DataModelingArgs, [*line, "--logging_type", stated])
        assert args.logging_type == meant
        assert args.grid is None, "several trackers are no grid"
        assert {run.logging_type for run in args.runs()} == {meant}
    args = parse(DataModelingArgs, [*line, "--logging_type=wandb", "--wandb_project=p"])
    assert args.runs()[0].wandb_project == "p"
    with pytest.raises(UsageError, match="no mlflow here; choose among disk, stdout"):
        parse(DataModelingArgs, [*line, "--logging_type", "disk,mlflow"])


def test_a_missing_package_is_told_before_anything_starts(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (told,) = missing_packages("disk,stdout,wandb")
    assert "pip install 'oocr-influence[wandb]'" in told
    assert missing_packages("disk,stdout") == []


def test_stdout_has_a_line_a_moment(tmp_path, capsys):
    folder = run(tmp_path, burn_in_epochs=0)
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("step ")]) == 6 + 3
    assert f"train/loss {losses(folder)[0]:.6g}" in "\n".join(lines)
