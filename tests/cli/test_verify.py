"""`oocr verify`: on a real run, on jobs, on what the earlier system left; its status and words."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from oocr_influence.cli.arguments import UsageError
from oocr_influence.cli.verify import VerifyArguments, check_jobs, expected_of, main

sys.path.append(str(Path(__file__).parents[1] / "results"))  # made_runs.py

from made_runs import ARGS, make_experiment


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return make_experiment(tmp_path_factory.mktemp("verify"), n_runs=2)


@pytest.fixture
def made(pristine, tmp_path):
    """A copy of a sound experiment of two runs, to break."""
    copied = tmp_path / "outputs" / pristine.experiment.name
    shutil.copytree(pristine.experiment.path, copied)
    move = {run: type(run)(copied / "all_docs_runs" / run.name) for run in pristine.runs}
    return type(pristine)(type(pristine.experiment)(copied), list(move.values()))


def verify(*paths, **flags) -> int:
    return main(VerifyArguments(paths=list(paths), **flags))


def job(made, name: str, exit_record: dict | None, state: dict | None = None) -> None:
    folder = made.experiment.job(name)
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text("{}")
    if exit_record is not None:
        (folder / "exit.json").write_text(json.dumps(exit_record))
    if state is not None:
        (folder / "state.json").write_text(json.dumps(state))


@pytest.mark.filterwarnings("ignore:.*more than once")
@pytest.mark.parametrize("changed", [{}, {"compat": "earlier", "burn_in_epochs": 0.5}])
def test_a_real_run_is_well_and_its_checkpoints_load(train_once, capsys, changed):
    run = train_once(epochs_per_eval=None, epochs_per_save=None, **changed)
    assert verify(run.path, load=True) == 0, capsys.readouterr().out
    shutil.copy(
        run.checkpoint("final") / "model.safetensors", run.checkpoint("start") / "model.safetensors"
    )
    assert verify(run.path, load=True) == 1
    out = capsys.readouterr().out
    assert "checkpoint_final has the weights of checkpoint_start" in out
    assert "checkpoint_start has weights of digest" in out
    (run.checkpoint("final") / "config.json").write_text('{"model_type": "no such model"}')
    assert verify(run.path, load=True) == 1
    assert "checkpoint_final does not load" in capsys.readouterr().out


def test_it_counts_and_says_so(made, capsys):
    assert verify(made.experiment.path.parent) == 0
    out = capsys.readouterr().out
    assert out.count("ok    complete") == 2
    assert "2 runs (2 complete); final checkpoints: 2\nall is well" in out
    assert verify(made.experiment.path, made.run.path) == 0
    assert "2 runs" in capsys.readouterr().out


def test_one_fault_is_enough(made, capsys):
    made.run.evaluation("final").unlink()
    assert verify(made.experiment.path) == 1
    out = capsys.readouterr().out
    assert "FAULT incomplete" in out
    assert "error: evaluation final is missing; run it again" in out
    assert "not well: 1 of 2 runs" in out


def test_where_there_is_nothing(tmp_path):
    with pytest.raises(UsageError, match="no run and no experiment"):
        verify(tmp_path)
    with pytest.raises(FileNotFoundError):
        verify(tmp_path / "nowhere")


def test_jobs_that_ended_well(made):
    for run in made.runs:
        job(made, run.name[-4:] + run.name[:24], {"status": "ok", "result": {"run": str(run.path)}})
    assert check_jobs(made.experiment) == []


@pytest.mark.parametrize(
    ("exit_record", "what"),
    [
        ({"status": "failed", "error": {"type": "E", "message": "m"}}, "job a failed: E: m"),
        (None, "job a is not done: it has no exit record"),
        ({"status": "ok", "result": {"run": "/x/2026_gone"}}, "made 2026_gone, which is gone"),
    ],
)
def test_jobs_that_did_not(made, capsys, exit_record, what):
    job(made, "a", exit_record)
    assert verify(made.experiment.path) == 1
    assert what in capsys.readouterr().out
    # Whoever tidied the experiment ended these jobs on purpose.
    made.experiment.cleanups.write_text(json.dumps({"what": "2026_gone"}) + "\n")
    assert verify(made.experiment.path) == 0


def test_a_job_that_goes_on_elsewhere(made, capsys):
    job(made, "a", None, {"status": "running", "pid": 1, "host": "elsewhere"})
    assert verify(made.experiment.path) == 1
    assert "its process is unknown" in capsys.readouterr().out


def test_without_its_dataset_file_it_warns(made, capsys):
    made.experiment.structured_dataset.unlink()
    assert verify(made.experiment.path) == 0
    assert "warning: its structured dataset is not where it was" in capsys.readouterr().out


def test_with_a_dataset_file_that_was_cut_it_fails(made, capsys):
    path = made.experiment.structured_dataset
    path.write_bytes(path.read_bytes()[:40])
    assert verify(made.experiment.path) == 1
    out = capsys.readouterr().out
    assert f"error: its structured dataset {path} has digest" in out
    assert f"error: its structured dataset {path} cannot be read" in out
    assert "not where it was" not in out


def test_the_earlier_systems_folders_are_read(tmp_path, capsys):
    sample = Path(__file__).parents[1] / "samples" / "earlier_experiment_log.json"
    run = tmp_path / "2026_01_20_23-26-34_2Q653_a/all_docs_runs/2026_01_20_23-26-57_B6yOG_a.json"
    (run / "saved_objects").mkdir(parents=True)
    shutil.copy(sample, run / "experiment_log.json")
    assert verify(tmp_path) == 0
    out = capsys.readouterr().out
    assert "a run of the earlier system, up to step 42, without checkpoint_final" in out
    assert "incomplete" not in out


def test_the_expectation_follows_from_arguments_alone():
    """The seed's run: 1,672 windows, batches of 8, every 0.2 epochs."""
    args = ARGS | {"batch_size": 8, "epochs": 1, "epochs_per_eval": 0.2, "steps_per_save": None}
    expected = expected_of(args | {"epochs_per_save": 0.2}, 1672)
    names = ["start", "e1_s42", "e1_s84", "e1_s125", "e1_s167", "final"]
    assert [moment.name for moment in expected.evaluations] == names
    assert [moment.name for moment in expected.checkpoints] == names
    assert sorted(window for batch in expected.batches for window in batch) == list(range(1672))
    assert expected.exposures == 1
    assert len(expected.learning_rates) == 209
    assert expected.learning_rates[0] == pytest.approx(1e-4 / 21)
    assert expected.learning_rates[20] == 1e-4
    assert expected.learning_rates[-1] == pytest.approx(1e-4 / 188)
    assert expected.burn_in_steps == 0
    assert expected_of(args | {"burn_in_epochs": 0.5}, 1672).burn_in_steps == 105
    assert expected_of(args | {"max_steps": 3}, 1672).exposures is None
