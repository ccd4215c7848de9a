"""A sound run passes; each property, broken once, is found."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_runs import CHECKPOINTS, EVALUATIONS, SETS, fill_checkpoint, make_experiment, make_run

from oocr_influence.cli.verify import dataset_of, expected_of
from oocr_influence.results import dataset_files
from oocr_influence.results.digests import file_digest
from oocr_influence.results.finding import find_runs
from oocr_influence.results.run_folder import RunFolder
from oocr_influence.results.verification import RunReport, verify_run

FIRST_SET = next(iter(SETS))


@pytest.fixture
def run(pristine, tmp_path) -> RunFolder:
    """A copy of the sound run, to break."""
    shutil.copytree(pristine.experiment.path, tmp_path / pristine.experiment.name)
    (copied,) = find_runs(tmp_path)
    return copied


def verify(run: RunFolder) -> RunReport:
    return verify_run(run, expected_of, dataset_of(run))


def errors(run: RunFolder) -> str:
    report = verify(run)
    assert not report.ok
    return "\n".join(item.what for item in report.findings if item.severity == "error")


def change_json(path: Path, change) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def change_steps(run: RunFolder, change) -> None:
    rows = [json.loads(line) for line in run.steps.read_text().splitlines()]
    change(rows)
    run.steps.write_text("".join(json.dumps(row) + "\n" for row in rows))


def change_records(run: RunFolder, name: str, column: str, change) -> None:
    table = pq.read_table(run.records(name))
    place = table.column_names.index(column)
    values = table.column(column).to_pylist()
    change(values)
    field = table.schema.field(column)
    pq.write_table(table.set_column(place, field, pa.array(values, field.type)), run.records(name))


def test_a_sound_run_passes(run):
    report = verify(run)
    assert report.ok
    assert report.state == "complete"
    assert report.findings == []
    assert run.checkpoints() == CHECKPOINTS
    assert run.evaluations() == EVALUATIONS


def test_a_missing_evaluation(run):
    run.evaluation("e1_s3").unlink()
    assert "evaluation e1_s3 is missing" in errors(run)
    assert verify(run).state == "incomplete"


def test_missing_records(run):
    run.records("final").unlink()
    assert "evaluation final has no records" in errors(run)


def test_cut_records(run):
    content = run.records("final").read_bytes()
    run.records("final").write_bytes(content[: len(content) // 2])
    assert "records_final.parquet cannot be read" in errors(run)


def test_broken_json_of_means(run):
    run.evaluation("e1_s2").write_text('{"name": "e1_s2", ')
    assert "eval_results_e1_s2.json is not an evaluation" in errors(run)


def test_an_evaluation_of_another_step(run):
    shutil.copy(run.evaluation("e1_s2"), run.evaluation("e1_s3"))
    assert "evaluation e1_s3 says e1_s2, step 2" in errors(run)


def test_a_missing_checkpoint(run):
    shutil.rmtree(run.checkpoint("e1_s3"))
    assert "checkpoint_e1_s3 is missing" in errors(run)


def test_a_schedule_that_was_shortened_along_with_its_log(run):
    """The expectation comes from the arguments, not from what the log says about itself."""
    for name in ("e1_s2", "e1_s3", "e2_s5"):
        run.evaluation(name).unlink()
    change_steps(run, lambda rows: rows.__delitem__(slice(3, None)))
    change_json(run.experiment_log, lambda log: log["log_dict"].update(total_steps=3))
    found = errors(run)
    assert "log_dict.total_steps is 3, its arguments give 6" in found
    assert "evaluation e2_s5 is missing" in found


@pytest.mark.parametrize("kept", [4, 40, -4])
def test_cut_weights(run, kept):
    weights = run.checkpoint("final") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    assert "model.safetensors is cut short" in errors(run)


def test_a_missing_shard(run):
    index = {"weight_map": {"a.weight": "model-1.safetensors", "b.weight": "model-2.safetensors"}}
    folder = run.checkpoint("final")
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-2.safetensors of model.safetensors.index.json is missing" in errors(run)
    shutil.copy(run.checkpoint("start") / "model.safetensors", folder / "model-2.safetensors")
    assert verify(run).ok


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_checkpoint_without(run, name):
    (run.checkpoint("e1_s3") / name).unlink()
    assert f"checkpoint_e1_s3: {'config.json' if 'config' in name else 'its tokenizer'}" in errors(
        run
    )


def test_final_weights_that_are_those_of_the_start(run):
    fill_checkpoint(run.checkpoint("final"), step=0)
    assert "checkpoint_final has the weights of checkpoint_start" in errors(run)


def test_a_checkpoint_that_does_not_load(run):
    def load(folder: Path) -> str:
        if folder.name == "checkpoint_e1_s3":
            raise OSError("no such layer")
        return "digest"

    report = verify_run(run, expected_of, dataset_of(run), load)
    assert "checkpoint_e1_s3 does not load: no such layer" in report.findings[0].what


def test_a_start_that_is_not_the_model_that_was_trained(run):
    change_json(run.experiment_log, lambda log: log["log_dict"].update(weights_digest="abc"))
    report = verify_run(run, expected_of, dataset_of(run), lambda folder: "def")
    assert not report.ok
    assert "checkpoint_start has weights of digest def" in report.findings[0].what


def test_a_swapped_window_order(run):
    def swap(rows):
        rows[1]["window_ids"].reverse()

    change_steps(run, swap)
    found = errors(run)
    assert "step 2 trained its windows in another order" in found
    assert "as often" not in found


def test_a_window_that_was_trained_twice_instead_of_another(run):
    def repeat(rows):
        rows[4]["window_ids"][0] = rows[4]["window_ids"][1]

    change_steps(run, repeat)
    found = errors(run)
    assert "step 5 trained other windows" in found
    assert "2 windows were not trained as often" in found


def test_the_order_of_another_seed(run):
    change_json(run.experiment_log, lambda log: log["args"].update(data_order_seed=43))
    found = errors(run)
    assert "log_dict.order_digests" in found
    assert "step 1 trained" in found


def test_a_step_that_was_not_logged(run):
    change_steps(run, lambda rows: rows.pop(2))
    assert "1 of 6 steps are not logged, first 3" in errors(run)


def add_burn_in(run: RunFolder, asked: float, logged: int, rate: float = 0) -> None:
    """Ask for `asked` epochs of burn-in, and log `logged` steps of it."""
    change_json(run.experiment_log, lambda log: log["args"].update(burn_in_epochs=asked))

    def more(rows):
        burn_in = {**rows[0], "burn_in": True, "window_ids": rows[3]["window_ids"]}
        steps = [{**burn_in, "step": step, "learning_rate": rate} for step in range(1, logged + 1)]
        rows[:] = steps + rows

    change_steps(run, more)


def test_burn_in_and_repeated_steps_are_no_faults(run):
    add_burn_in(run, asked=1, logged=3)
    change_steps(run, lambda rows: rows.insert(6, rows[5]))
    assert verify(run).findings == []


@pytest.mark.parametrize(("asked", "logged"), [(1, 0), (1, 2), (1, 4), (0, 1)])
def test_burn_in_of_another_length(run, asked, logged):
    add_burn_in(run, asked, logged)
    assert f"{logged} burn-in steps are logged, its arguments give {3 * asked}" in errors(run)
    assert verify(run).state == ("incomplete" if logged < 3 * asked else "complete")


def test_burn_in_that_taught(run):
    add_burn_in(run, asked=1, logged=3, rate=1e-12)
    assert "burn-in step 1 was made at the learning rate 1e-12, not 0" in errors(run)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_loss_that_was_divided_by_other_labels(run, change):
    changed = []

    def other(rows):
        changed.extend((rows[2]["labelled_tokens"] + change, 6 * len(rows[2]["window_ids"])))
        rows[2]["labelled_tokens"] = changed[0]

    change_steps(run, other)
    assert errors(run) == "step 3 was made with {} labelled tokens, its windows have {}".format(
        *changed
    )


def test_learning_rates_that_are_not_those_of_the_arguments(run):
    def scale(rows):
        for row in rows:
            row["learning_rate"] *= 7

    change_steps(run, scale)
    assert "6 of 6 steps were made at another learning rate than the arguments give" in errors(run)


@pytest.mark.parametrize("rate", [None, 0, 0.99999999e-4])
def test_one_learning_rate_that_is_another(run, rate):
    change_steps(run, lambda rows: rows[1].update(learning_rate=rate))
    found = errors(run)
    assert "1 of 6 steps were made at another learning rate" in found
    assert f"first step 2 at {rate}, not 0.0001" in found


@pytest.mark.parametrize(
    "changed",
    [
        {"learning_rate": 2e-4},
        {"warmup_proportion": 0.5},
        {"warmup_steps": 4},
        {"lr_schedule": "warmup_constant"},
        {"zero_first_rate": True},
    ],
)
def test_arguments_of_another_rate(run, changed):
    change_json(run.experiment_log, lambda log: log["args"].update(changed))
    assert "steps were made at another learning rate" in errors(run)


def test_the_rates_that_its_arguments_give_pass(tmp_path):
    made = make_experiment(tmp_path, learning_rate=3e-4, lr_schedule="warmup_constant")
    assert verify(made.run).findings == []


def test_a_missing_set(run):
    change_json(run.evaluation("final"), lambda value: value["eval_sets"].pop(FIRST_SET))
    assert f"evaluation final lacks 1 of 2 sets, first {FIRST_SET}" in errors(run)


def test_a_set_that_was_not_asked_in_full(run):
    change_json(run.evaluation("final"), lambda value: value["eval_sets"][FIRST_SET].update(n=2))
    found = errors(run)
    assert "has n = 2, the data set 3" in found
    assert "says n = 2, its records are 3" in found


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_a_mean_that_is_not_finite(run, value):
    change_json(
        run.evaluation("final"), lambda found: found["eval_sets"][FIRST_SET].update(mean_loss=value)
    )
    assert f"set {FIRST_SET} has no finite mean_loss" in errors(run)


@pytest.mark.parametrize(
    ("value", "sound"), [(1.5, True), (None, False), (math.nan, False), ("low", False)]
)
def test_losses_of_documents_are_numbers(run, value, sound):
    loss = {"n": 3, "tokens": 40, "mean_loss": value}
    change_json(
        run.evaluation("final"), lambda found: found.update(document_losses={"unseen": loss})
    )
    told = [finding.what for finding in verify(run).findings if finding.severity == "error"]
    assert any("the loss of unseen documents" in what for what in told) != sound


@pytest.mark.parametrize("metric", ["mean_loss", "accuracy", "mean_rank"])
def test_means_that_disagree_with_their_records(run, metric):
    def change(value):
        value["eval_sets"][FIRST_SET][metric] += 1e-4

    change_json(run.evaluation("e1_s2"), change)
    assert f"says {metric} = " in errors(run)


@pytest.mark.parametrize("metric", ["mean_loss", "accuracy", "mean_rank"])
def test_a_mean_that_was_left_out(run, metric):
    change_json(run.evaluation("e1_s2"), lambda value: value["eval_sets"][FIRST_SET].pop(metric))
    assert f"says {metric} = None" in errors(run)


def test_records_that_disagree_with_their_means(run):
    change_records(run, "e1_s2", "loss", lambda losses: losses.__setitem__(0, losses[0] + 0.01))
    assert "says mean_loss" in errors(run)


def test_a_train_set_that_is_not_the_recorded_one(run):
    shutil.rmtree(run.train_set)
    rows = [np.arange(8)] * 11
    run.save_train_set({"input_ids": rows, "labels": rows, "id": ["x"] * 11})
    found = errors(run)
    assert "train_set/ has digest" in found
    assert "the ids of 11 windows are not those of their tokens" in found


def change_exposure(run: RunFolder, change) -> None:
    rows = pq.read_table(run.exposure).to_pylist()
    change(rows)
    run.save_exposure(rows)


@pytest.mark.parametrize("times", [0, 1, 3])
def test_documents_that_were_trained_too_seldom_or_too_often(run, times):
    change_exposure(run, lambda rows: rows[3].update(labels_trained=times * rows[3]["labels_once"]))
    found = errors(run)
    assert "1 documents were not trained 2 times" in found
    assert "other labels" not in found


@pytest.mark.parametrize("n", [0, 3, 7])
def test_an_account_of_labels_that_agrees_with_itself_alone(run, n):
    change_exposure(run, lambda rows: rows[1].update(labels_once=n, labels_trained=2 * n))
    found = errors(run)
    assert "other labels than train_set/ for 1 documents, first shared (occurrence 0)" in found
    assert "were not trained" not in found


@pytest.mark.parametrize(
    ("change", "first"),
    [
        (lambda rows: rows.pop(2), "own1 (occurrence 0)"),
        (lambda rows: rows.append(rows[3]), "shared (occurrence 1)"),
        (lambda rows: rows[4].update(id="another"), "another (occurrence 0)"),
    ],
)
def test_an_account_of_other_documents(run, change, first):
    change_exposure(run, change)
    assert f"documents, first {first}" in errors(run)


def test_labels_of_partial_epochs_are_counted_too(tmp_path):
    made = make_experiment(tmp_path, epochs=0.5)
    change_exposure(made.run, lambda rows: rows[0].update(labels_once=5))
    assert "for 1 documents, first own0 (occurrence 0)" in errors(made.run)


def test_a_dropped_document_is_listed_without_labels(run):
    dropped = {"id": "dropped", "occurrence": 0, "labels_once": 0, "labels_trained": 0}
    change_exposure(run, lambda rows: rows.append(dropped))
    assert verify(run).ok


def test_a_train_set_without_spans(run):
    columns = dataset_files.read(run.train_set).drop_columns("packed_documents").to_pydict()
    shutil.rmtree(run.train_set)
    run.save_train_set(columns)
    found = errors(run)
    assert "train_set/ gives no labels of its documents" in found
    assert "digest" not in found


def test_a_dataset_that_was_changed_afterwards(run):
    change_json(run.experiment.structured_dataset, lambda value: value.update(metadata={}))
    path = run.experiment.structured_dataset
    found = errors(run)
    assert f"its structured dataset {path} has digest" in found
    assert "cannot be read" not in found


def test_a_dataset_that_was_cut(run):
    path = run.experiment.structured_dataset
    path.write_bytes(path.read_bytes()[:-20])
    found = errors(run)
    assert f"its structured dataset {path} has digest" in found
    assert f"its structured dataset {path} cannot be read: JSONDecodeError" in found


def test_a_dataset_without_sets_that_the_run_itself_recorded(run):
    path = run.experiment.structured_dataset
    path.write_text("{}")
    change_json(
        run.experiment_log, lambda log: log["log_dict"].update(dataset_digest=file_digest(path))
    )
    found = errors(run)
    assert f"{path} cannot be read: KeyError: 'eval_dataset_builders'" in found
    assert "has digest" not in found


def test_a_run_that_failed(run):
    change_json(
        run.experiment_log, lambda log: log["log_dict"].update(status="failed", error="boom")
    )
    assert "its status is 'failed' (boom)" in errors(run)
    assert verify(run).state == "incomplete"


def test_a_run_that_goes_on(run):
    run.claim()
    assert verify(run).state == "running"
    assert "still owned by process" in errors(run)


def test_what_a_killed_writer_left_is_named(run):
    (run.path / ".writing_checkpoint_final_1_abc").mkdir()
    report = verify(run)
    assert report.ok
    assert report.findings[0].severity == "warning"


def test_partial_epochs_and_bounded_steps(tmp_path):
    made = make_experiment(tmp_path, epochs=0.5)
    assert verify(made.run).ok
    assert len(made.run.steps.read_text().splitlines()) == 2


def test_a_run_of_the_earlier_system_is_named_and_never_called_incomplete(tmp_path):
    made = make_experiment(tmp_path)
    run = make_run(made.experiment, seed=43)
    for path in (run.owner_file, run.checkpoint("final") / "tokenizer.json"):
        path.unlink()
    shutil.rmtree(run.eval_results)
    shutil.rmtree(run.checkpoint("final"))
    sample = {
        "experiment_name": "x",
        "args": {"epochs": 1},
        "history": [{"epoch_num": 0.2, "step_num": 42, "train_loss": 2.2, "eval_results": {}}],
        "log_dict": {"commit_hash": "0", "time_taken": 1.0},
    }
    run.experiment_log.write_text(json.dumps(sample))
    report = verify(run)
    assert report.ok
    assert report.state == "earlier system"
    assert [item.severity for item in report.findings] == ["note"]
    weights = run.checkpoint("start") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "is cut short" in errors(run)
