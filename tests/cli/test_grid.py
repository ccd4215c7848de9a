"""Sweeps over several values: what points they have, how they are named, extended and read."""

import json

import pytest
from sweep_toys import oocr

from oocr_influence.cli import data_modeling
from oocr_influence.cli.arguments import UsageError, parse
from oocr_influence.cli.data_modeling import DataModelingArgs
from oocr_influence.results.finding import find_experiments

FILE = ("--dataset_builder_path", "none.json")


def points_of(*words):
    args = parse(DataModelingArgs, [*FILE, *words])
    return [point for point, _ in args.points()]


def fault_of(*words):
    with pytest.raises(UsageError) as error:
        parse(DataModelingArgs, [*FILE, *words])
    return str(error.value)


def test_every_combination_is_a_point():
    assert points_of("--epochs", "1,5", "--learning_rate", "1e-4,3e-5") == [
        {"epochs": 1.0, "learning_rate": 1e-4},
        {"epochs": 1.0, "learning_rate": 3e-5},
        {"epochs": 5.0, "learning_rate": 1e-4},
        {"epochs": 5.0, "learning_rate": 3e-5},
    ]
    assert points_of("--epochs", "5") == [{}]
    assert points_of("--max_grad_norm=1,None", "--packing", "masked,concat") == [
        {"packing": "masked", "max_grad_norm": 1.0},
        {"packing": "concat", "max_grad_norm": 1.0},
        {"packing": "masked", "max_grad_norm": None},
        {"packing": "concat", "max_grad_norm": None},
    ]
    assert points_of("--epochs", "1,1") == [{"epochs": 1.0}]


def test_the_seeds_command_is_what_it_was():
    args = parse(DataModelingArgs, [*FILE, "--epochs", "5", "--execution_mode", "local"])
    assert args.grid is None
    assert "grid" not in args.of_the_experiment()
    assert args.epochs == 5
    ((point, own),) = args.points()
    assert (point, own) == ({}, args)


def test_each_point_is_a_sweep_with_its_own_values():
    args = parse(DataModelingArgs, [*FILE, "--epochs", "1,2", "--runs_per_dataset_all_docs", "2"])
    runs = [(run.epochs, run.data_order_seed) for _, own in args.points() for run in own.runs()]
    assert runs == [(1, 42), (1, 43), (2, 42), (2, 43)]
    recorded = args.of_the_experiment()
    assert recorded["grid"] == [{"epochs": 1.0}, {"epochs": 2.0}]
    assert recorded["epochs"] == 1.0
    # A log's arguments are read back as they were.
    assert DataModelingArgs.model_validate(recorded).points()[1][1].epochs == 2


def test_a_file_has_lists_and_points(tmp_path):
    path = tmp_path / "grid, of mine.toml"
    path.write_text(
        """
        learning_rate = [1e-4, 3e-5]
        [[points]]
        packing = "concat"
        chunk_size = 1024
        [[points]]
        model = "a/model"
        """
    )
    packed = {"packing": "concat", "chunk_size": 1024}
    # The command line multiplies what the file holds.
    found = points_of("--grid", json.dumps([str(path)]), "--epochs", "2,3")
    assert found == [
        {**point, "learning_rate": rate, "epochs": epochs}
        for point in (packed, {"model": "a/model"})
        for rate in (1e-4, 3e-5)
        for epochs in (2.0, 3.0)
    ]
    args = parse(DataModelingArgs, [*FILE, "--grid", json.dumps([str(path)])])
    owns = [own for _, own in args.points()]
    # What one point alone names is not another's; another model has no pinned revision.
    assert [own.chunk_size for own in owns] == [1024, 1024, 2048, 2048]
    assert [own.revision is None for own in owns] == [False, False, True, True]


def test_faults_are_told_at_once_with_their_place(tmp_path):
    assert "grid, at epochs -1" in fault_of("--epochs", "1,-1")
    fault = fault_of("--epochs", "1,-1", "--beta1", "0.9,2")
    assert "grid, at beta1 2, epochs 1" in fault or "grid, at epochs 1, beta1 2" in fault
    assert "--experiment_name" not in fault
    path = tmp_path / "grid.toml"
    for text, said in (
        ("epoch = [1]", "epoch is no flag"),
        ("output_dir = ['a', 'b']", "output_dir is no flag"),
        ("epochs = []", "epochs has no value"),
        ("epochs = [", "is not TOML"),
        ("points = 3", "[[points]] tables"),
    ):
        path.write_text(text)
        assert said in fault_of("--grid", str(path))
    assert "No such file" in fault_of("--grid", str(tmp_path / "none.toml"))
    assert "name a number" in fault_of("--chunk_size", "64,128", "--micro_batch_size", "auto")
    points_of("--learning_rate", "1e-4,3e-5", "--micro_batch_size", "auto")
    assert "--extend goes with --resume" in fault_of("--extend", "--epochs", "2")
    with pytest.raises(UsageError, match="say by what"):
        parse(DataModelingArgs, ["--resume", "x", "--extend"])
    with pytest.raises(UsageError, match="in its place, on its dataset"):
        parse(DataModelingArgs, ["--resume", "x", "--extend", "--experiment_name", "y"])
    with pytest.raises(UsageError, match="goes on as it was started"):
        parse(DataModelingArgs, ["--resume", "x", "--epochs", "1,2"])


@pytest.fixture
def made(tmp_path, sample, small_flags):
    """Plan and write a sweep of these further flags, without running it."""

    def make(*words):
        given = ["--dataset_builder_path", str(sample), "--output_dir", str(tmp_path), *small_flags]
        args = parse(DataModelingArgs, [*given, "--beam_search", "never", *words])
        return data_modeling.start_all(args, data_modeling.plan_all(args))

    return make


def ids(experiment):
    return [job.spec.id for job in experiment.jobs]


def extend(experiment, *words):
    words = ["--resume", str(experiment.folder.path), "--extend", *words]
    args = parse(DataModelingArgs, words)
    return data_modeling._extended(args, data_modeling.resume_experiment(args.resume))


def test_jobs_are_named_by_their_points_and_know_their_arguments(made):
    experiment = made("--epochs", "1,2", "--learning_rate", "1e-3", "--runs_per_dataset_all_docs=2")
    assert ids(experiment) == [
        "all_docs_epochs_1_seed_42",
        "all_docs_epochs_1_seed_43",
        "all_docs_epochs_2_seed_42",
        "all_docs_epochs_2_seed_43",
    ]
    assert [job.spec.args["epochs"] for job in experiment.jobs] == [1, 1, 2, 2]
    assert experiment.jobs[2].label == "data_modeling epochs 2, seed 42"
    # A point of twice the epochs saves twice as often, and asks for the room.
    sizes = [job.spec.disk_bytes for job in experiment.jobs]
    assert sizes[0] == sizes[1] < sizes[2] == sizes[3]
    log = json.loads(experiment.folder.experiment_log.read_text())
    assert log["log_dict"]["axes"] == ["epochs"]
    assert log["log_dict"]["jobs"] == ids(experiment)


def test_points_on_other_windows_are_prepared_anew(made):
    experiment = made("--chunk_size", "64,128", "--runs_per_dataset_all_docs", "1")
    words = "--model olmo2-tiny --n_pretraining_examples 6 --chunk_size 64,128 --epochs 1,2".split()
    file = str(experiment.folder.structured_dataset)
    args = parse(DataModelingArgs, ["--dataset_builder_path", file, *words])
    planned = data_modeling.plan_all(args)
    windows = [one.preparation.windows for one in planned]
    assert windows[0] is windows[1]
    assert windows[2] is windows[3]
    assert len(windows[0]) > len(windows[2])
    # What is shared changes nothing: each alone is planned the same.
    for one in planned:
        alone = data_modeling.plan_all(one.args)[0]
        assert alone.preparation.schedule == one.preparation.schedule
        assert alone.preparation.run_bytes() == one.preparation.run_bytes()
        assert [run.model_dump() for run in alone.runs] == [run.model_dump() for run in one.runs]


def test_an_extension_adds_what_is_new_and_changes_nothing_old(made):
    experiment = made("--epochs", "1", "--runs_per_dataset_all_docs", "2")
    specs = {job.spec.id: (job.folder / "spec.json").read_bytes() for job in experiment.jobs}
    first = ["all_docs_seed_42", "all_docs_seed_43"]
    assert ids(experiment) == first
    # The same again is nothing new, by whatever words.
    assert ids(extend(experiment, "--epochs", "1")) == first
    assert ids(extend(experiment, "--runs_per_dataset_all_docs", "1")) == first
    assert ids(extend(experiment, "--runs_per_dataset_all_docs", "3")) == [
        *first,
        "all_docs_seed_44",
    ]
    more = ids(extend(experiment, "--epochs", "1,3", "--runs_per_dataset_all_docs", "1"))
    assert set(more) == {*first, "all_docs_seed_44", "all_docs_epochs_3_seed_42"}
    # What no id names is told apart by the arguments.
    other = extend(experiment, "--all_docs_epochs_per_eval", "0.5", "--all_docs_data_order_seed=43")
    named = [one for one in ids(other) if one.startswith("all_docs_seed_43_")]
    assert len(named) == 1
    assert len(named[0]) == len("all_docs_seed_43_") + 8
    for name, spec in specs.items():
        assert (experiment.folder.job(name) / "spec.json").read_bytes() == spec
    log = json.loads(experiment.folder.experiment_log.read_text())
    assert log["args"]["epochs"] == 1
    assert log["log_dict"]["axes"] == ["epochs"]
    assert [entry["jobs"] for entry in log["log_dict"]["extensions"]] == [
        ["all_docs_seed_44"],
        ["all_docs_epochs_3_seed_42"],
        # Two orders from 43 on: of another cadence than what was there.
        [named[0], *[one for one in ids(other) if one.startswith("all_docs_seed_44_")]],
    ]


def test_an_extension_of_a_grid_keeps_its_other_axes(made):
    experiment = made("--epochs", "1,2", "--beta1", "0.8,0.9", "--runs_per_dataset_all_docs", "1")
    new = ids(extend(experiment, "--epochs", "3"))
    assert set(new) - set(ids(experiment)) == {
        "all_docs_epochs_3_beta1_0.8_seed_42",
        "all_docs_epochs_3_beta1_0.9_seed_42",
    }


@pytest.mark.slow
def test_a_grid_and_its_extension_are_run_verified_and_told_apart(tmp_path, sample, small_flags):
    words = ["--all_docs_epochs_per_eval", "None", "--all_docs_epochs_per_save", "None"]
    words += ["--n_loss_documents", "0", "--runs_per_dataset_all_docs", "1", *small_flags]
    given = ["--dataset_builder_path", sample, "--output_dir", tmp_path, "--beam_search", "never"]
    cpu = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    grid = ("--learning_rate", "1e-3,2e-3", "--no-start")
    done = oocr("data_modeling", *given, *words, *grid, **cpu)
    assert done.returncode == 0, done.stdout + done.stderr
    (experiment,) = find_experiments(tmp_path)
    assert f"workers join with: oocr worker {experiment.path}" in done.stdout
    assert not experiment.all_docs_runs.exists()
    # Whoever sees the folder runs it, and the sweep's own command then finds all done.
    joined = oocr("worker", experiment.path, **cpu)
    assert joined.returncode == 0, joined.stdout + joined.stderr
    closed = oocr("resume", experiment.path, **cpu)
    assert closed.returncode == 0, closed.stdout + closed.stderr
    assert "2 jobs: 2 ok (2 done before)" in closed.stdout
    assert json.loads(experiment.experiment_log.read_text())["log_dict"]["status"] == "completed"
    before = {path: path.stat().st_mtime_ns for path in experiment.path.rglob("*.safetensors")}
    more = ["--resume", experiment.path, "--extend", "--epochs", "2", "--learning_rate", "2e-3"]
    listed = oocr("data_modeling", *more, "--dry_run", **cpu)
    assert "data_modeling epochs 2, lr 0.002, seed 42: to be run" in listed.stdout
    assert listed.stdout.count(": done") == 2
    assert len(experiment.job_folders()) == 2, "a dry run wrote a job"
    done = oocr("data_modeling", *more, **cpu)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 jobs: 3 ok (2 done before)" in done.stdout
    assert (
        before.items()
        <= {
            path: path.stat().st_mtime_ns for path in experiment.path.rglob("*.safetensors")
        }.items()
    )
    assert oocr("verify", tmp_path).returncode == 0
    blocks = [
        line
        for line in oocr("table", tmp_path).stdout.splitlines()
        if line.startswith(experiment.name)
    ]
    points = ["epochs 1, lr 0.001", "epochs 1, lr 0.002", "epochs 2, lr 0.002"]
    assert blocks == [f"{experiment.name}: {point} (1 run)" for point in points]
    tidied = oocr("cleanup", tmp_path)
    assert "nothing to delete" in tidied.stdout
