"""Plans of sweeps over subsets: what is counted the sweep then meets exactly."""

import json
import shutil
import subprocess
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

from launcher.jobs import load_jobs, read_exit
from oocr_influence.cli import data_modeling, plan, plan_blocks
from oocr_influence.cli.arguments import UsageError, parse
from oocr_influence.cli.data_modeling import DataModelingArgs
from oocr_influence.cli.plan import PlanArguments
from oocr_influence.cli.plan_blocks import blocks_before
from oocr_influence.cli.plan_counts import count_run
from oocr_influence.cli.plan_figures import Figure
from oocr_influence.cli.plan_hardware import hardware_of
from oocr_influence.cli.plan_run import RunFigures
from oocr_influence.cli.plan_subsets import PlannedSubsets
from oocr_influence.cli.plan_time import makespan
from oocr_influence.cli.preparation import prepare
from oocr_influence.cli.subset_block import SubsetRun
from oocr_influence.cli.subset_counts import count_subsets
from oocr_influence.cli.subset_plan import plan_subsets
from oocr_influence.cli.sweep_plan import plan_all
from oocr_influence.results.finding import find_experiments, find_runs
from oocr_influence.results.step_log import read_steps

SAMPLE = Path(__file__).parents[1] / "samples" / "earlier_structured_dataset.json"
FLAGS = (
    "--model olmo2-tiny --n_pretraining_examples 2 --chunk_size 128 --batch_size 4 "
    "--micro_batch_size 4 --learning_rate 1e-3 --execution_mode in_process --experiment_name sub "
    "--n_loss_documents 0 --beam_search never --docs_per_run 4 --n_datasets_train 4 "
    "--n_datasets_test 2 --runs_per_dataset_train 2 --runs_per_job 3 --epochs 1.2 "
    "--burnin_epochs 0.3 --eval_first_step --epochs_per_eval 1 --save_final_checkpoint "
    "--all_docs_epochs_per_eval None --all_docs_epochs_per_save None --runs_per_dataset_all_docs 1"
).split()


def log_of(run):
    return json.loads(run.experiment_log.read_text())


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """The sample with documents of very different lengths: subsets differ in their steps."""
    raw = json.loads(SAMPLE.read_text())
    for place, document in enumerate(raw["document_dataset"]["docs"]):
        if document["type"] == "synthetic_document":
            document["completion"] *= 1 + 2 * (place % 3)
    path = tmp_path_factory.mktemp("data") / "uneven.json"
    path.write_text(json.dumps(raw))
    return path


def words_of(dataset, outputs, *more):
    given = ["--dataset_builder_path", dataset, "--output_dir", outputs, *FLAGS, *more]
    return [str(word) for word in given]


@pytest.fixture(scope="module")
def swept(uneven, tmp_path_factory):
    words = words_of(uneven, tmp_path_factory.mktemp("outputs"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert data_modeling.main(parse(DataModelingArgs, words)) == 0
    (experiment,) = find_experiments(Path(words[3]))
    return words, experiment, json.loads(experiment.plan.read_text())


def planned_json(words, capsys):
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert plan.main(parse(PlanArguments, ["--json", *words])) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_a_sweep_over_subsets_does_what_was_planned(swept):
    _, experiment, planned = swept
    part, whole = planned["subsets"], planned["whole"]
    runs = find_runs(experiment.path)
    on_subsets = [run for run in runs if run.path.parent != experiment.all_docs_runs]
    assert whole["runs"] == len(runs) == 11
    assert part["n_runs"] == len(on_subsets) == 10
    jobs = load_jobs(experiment.jobs)
    assert whole["jobs"] == len(jobs) == 5
    assert part["n_jobs"] == 4
    assert part["runs_per_job"] == 3
    sizes = {
        split: (one["subsets"], one["runs_per_subset"]) for split, one in part["splits"].items()
    }
    assert sizes == {"train": (4, 2), "test": (2, 1)}
    updates = [len(list(read_steps(run.steps))) for run in runs]
    assert whole["updates"] == sum(updates)
    assert whole["evaluations"] == sum(len(run.evaluations()) for run in runs)
    assert whole["checkpoints"] == sum(len(run.checkpoints()) for run in runs) > 0
    assert whole["counts_basis"] == "counted"
    of_subsets = [len(list(read_steps(run.steps))) for run in on_subsets]
    windows = [log_of(run)["log_dict"]["n_windows"] for run in on_subsets]
    for found, name in ((of_subsets, "updates"), (windows, "windows")):
        told = part[name]
        assert (told["fewest"], told["most"]) == (min(found), max(found))
        assert told["mean"] == pytest.approx(sum(found) / 10)
    assert len(set(windows)) > 2, "the subsets differ here"
    for run in on_subsets:
        assert log_of(run)["log_dict"]["eval_suite_digest"] == part["asked"]["suite"]
        assert log_of(run)["log_dict"]["n_eval_sets"] == part["asked"]["sets"]
        assert run.read_records("final").num_rows == part["asked"]["questions"]
    asked = [run.read_records(name).num_rows for run in runs for name in run.evaluations()]
    assert whole["questions"] == sum(asked)
    # Disk by the file system's own account: weights and files are known, 2 MB an evaluation are
    # kept free for a run's records, and 200 MB for those of a run on all documents.
    command = ["du", "-s", "--apparent-size", "-B1", str(experiment.path)]
    used = int(subprocess.check_output(command).split()[0])
    least, most = whole["disk_bytes"]
    assert least < used < most
    assert used < least + 2 * 2**20 * len(runs)
    files = sum(
        path.stat().st_size
        for folder in experiment.path.glob("subsampled_datasets_*")
        for path in folder.iterdir()
    )
    assert abs(part["subset_file_bytes"] - files) < 32, "the digest and the place are made up"


@pytest.mark.slow
def test_each_subset_is_counted_as_its_runs_pack_it(swept):
    words, experiment, _ = swept
    args = parse(DataModelingArgs, words)
    subsets = plan_subsets(args, plan_all(args)[0].preparation)
    counts = count_subsets(subsets)
    for run in subsets.runs:
        told = counts.of(run)
        made = run.completed(experiment)
        about = log_of(made)["log_dict"]
        assert told.windows == about["n_windows"]
        assert told.tokens == about["n_tokens"]
        assert told.labels == about["n_labels"]
        assert (told.total_steps, told.burn_in_steps) == (
            about["total_steps"],
            about["burn_in_steps"],
        )
        assert told.evaluations == made.evaluations()
        assert told.checkpoints == made.checkpoints()
        assert told.trained_windows == sum(len(row.window_ids) for row in read_steps(made.steps))
    # Of very many subsets some stand for all, and the plan says so.
    some = count_subsets(subsets, at_most=2)
    assert list(some.counted) == [("train", 0), ("train", 3)]
    assert not some.is_exact
    assert some.of(SubsetRun("test", 0, 42)) is None
    seen = [counts.counted["train", index].updates for index in (0, 3)]
    assert some.total(subsets, lambda one: one.updates) == pytest.approx(sum(seen) / 2 * 10)


@pytest.mark.parametrize(
    "words",
    [
        "--packing concat",
        "--packing concat --drop_last --no-overlap_cuts",
        "--packing separate --document_order file",
        "--compat earlier",
        "--subset_design leave_one_fact_out --n_datasets_train 4 --n_datasets_test 4",
        "--sampling_k 2 --packing_seed 3 --chunk_size 48",
    ],
)
def test_counts_are_those_of_each_runs_own_preparation(uneven, tmp_path, words):
    args = parse(DataModelingArgs, words_of(uneven, tmp_path, *words.split()))
    planned = plan_all(args)
    subsets = plan_subsets(args, planned[0].preparation)
    experiment = data_modeling.start_all(args, planned, subsets).folder
    counts = count_subsets(subsets)
    for run in subsets.runs:
        alone = prepare(run.args(subsets.shared, experiment))
        assert counts.of(run) == count_run(alone)
        assert counts.checkpoint_bytes[run.split, run.index] == alone.checkpoints_bytes()
    assert len({one.windows for one in counts.counted.values()}) > 1


def test_a_test_split_that_is_the_train_split_is_told(uneven, tmp_path):
    flags = "--subset_design leave_one_fact_out --n_datasets_train 4 --n_datasets_test".split()
    told = []
    for n_test in ("0", "4"):
        args = parse(DataModelingArgs, words_of(uneven, tmp_path, *flags, n_test))
        subsets = plan_subsets(args, plan_all(args)[0].preparation)
        told.append(any("are held out from nothing" in line for line in subsets.describe()))
    assert told == [False, True]


@pytest.mark.slow
def test_planned_against_actual(swept, capsys):
    _, experiment, _ = swept
    args = parse(PlanArguments, ["--json", "--against", str(experiment.path)])
    assert plan.main(args) == 0
    found = json.loads(capsys.readouterr().out)[experiment.name]
    assert found["finished"] == 11
    rows = {row["what"]: row for row in found["rows"]}
    for what in ("runs", "jobs", "updates", "evaluations", "checkpoints"):
        assert rows[what]["planned"] == rows[what]["actual"] > 0, what
    assert rows["disk, at least"]["planned"] < rows["disk, at least"]["actual"]
    assert rows["disk, at most"]["planned"] > rows["disk, at most"]["actual"]
    assert rows["the sweep"]["actual"] > 1


@pytest.mark.slow
def test_the_next_sweep_is_planned_by_what_was_seen(swept, capsys):
    words, experiment, _ = swept
    part = planned_json(words, capsys)["subsets"]
    for name in ("update_seconds", "evaluation_seconds", "beside_seconds", "start_seconds"):
        assert part[name]["basis"] == "measured here", name
        assert part[name]["value"] >= 0
    run = part["update_seconds"]["value"] * part["updates"]["mean"]
    run += part["evaluation_seconds"]["value"] * len(part["run"]["evaluations"])
    assert part["run_seconds"]["value"] == pytest.approx(run + part["beside_seconds"]["value"])
    # start + runs × (a run) is what the blocks took that this was learned from.
    args = parse(DataModelingArgs, words)
    subsets = plan_subsets(args, plan_all(args)[0].preparation)
    shared = subsets.shared.model_copy(update={"subset_split": "train"})
    blocks = blocks_before(args.output_dir, shared, hardware_of())
    for job in load_jobs(experiment.jobs)[1:]:
        ended, busy = read_exit(job.folder), 0.0
        for name in ended["result"]["runs"]:
            run = next(one for one in find_runs(experiment.path) if str(one.path) == name)
            phases = log_of(run)["log_dict"]["phases"]
            busy += sum(row.seconds for row in read_steps(run.steps))
            busy += phases["evaluate"]["seconds"]
        rest = ended["seconds"] - busy
        told = blocks.start_seconds + blocks.beside_seconds * len(ended["result"]["runs"])
        assert 0.3 < told / rest < 3, "medians of jobs of three runs, the last of one"
    # On another model nothing was seen; on a data sheet's GPU it is projected.
    gpu = planned_json([*words, "--device", "H100", "--gpus", "2"], capsys)
    assert gpu["subsets"]["update_seconds"]["basis"] == "projected"
    assert gpu["subsets"]["start_seconds"]["basis"] == "unknown"
    assert gpu["whole"]["seconds"]["basis"] == "projected"


@pytest.mark.slow
def test_the_newest_blocks_of_several_sweeps_stand_for_all(swept, tmp_path, monkeypatch):
    words, experiment, _ = swept
    for name in "ab":
        shutil.copytree(experiment.path, tmp_path / f"{experiment.path.name}_{name}")
    args = parse(DataModelingArgs, words)
    shared = plan_subsets(args, plan_all(args)[0].preparation).shared
    shared = shared.model_copy(update={"subset_split": "train"})
    told = []
    for most in (1, 2, 100):
        monkeypatch.setattr(plan_blocks, "BLOCKS_LOOKED_AT", most)
        told.append(blocks_before(tmp_path, shared, hardware_of()).source.split(",")[0])
    n = 2 * sum("runs" in job.spec.args for job in load_jobs(experiment.jobs))
    assert told == ["1 earlier job", "2 earlier jobs", f"{n} earlier jobs"]


def test_jobs_elsewhere_are_divided_for_the_machine_that_is_stated(uneven, tmp_path, capsys):
    words = words_of(uneven, tmp_path, "--runs_per_job", "None", "--execution_mode", "local")
    words += ["--runs_per_dataset_train", "100"]
    of_one, of_four = (
        planned_json([*words, "--device", "H100", "--gpus", str(gpus)], capsys)["subsets"]
        for gpus in (1, 4)
    )
    assert of_one["n_runs"] == of_four["n_runs"] == 402
    assert (of_one["runs_per_job"], of_one["n_jobs"]) == (50, 9)  # never more than 50
    assert (of_four["runs_per_job"], of_four["n_jobs"]) == (13, 31)  # eight jobs a worker


def test_time_is_that_of_blocks_that_load_once_and_ask_the_untouched_model_once(uneven, tmp_path):
    args = parse(DataModelingArgs, words_of(uneven, tmp_path))
    subsets = plan_subsets(args, plan_all(args)[0].preparation)
    counts = count_subsets(subsets)
    update, asking, beside, start = 2.0, 5.0, 1.0, 30.0
    figures = RunFigures(
        *(Figure(seconds, "measured here") for seconds in (update, asking, beside)),
        memory=Figure(1, "measured here"),
    )
    planned = PlannedSubsets(
        subsets, counts, SimpleNamespace(suite="s"), figures, Figure(start, "measured here")
    )
    expected = []
    for number, block in enumerate(subsets.blocks()):
        seconds = start
        for run in block:
            one = counts.of(run)
            seconds += one.updates * update + len(one.evaluations) * asking + beside
        n_found = len(block) - (number == 0)
        expected.append(seconds - n_found * asking)
    total = makespan(planned.works(), 1)
    assert total.value == pytest.approx(sum(expected))
    assert total.basis == "measured here"
    assert len(expected) == 4


def test_text_tells_subsets_and_faults(uneven, tmp_path, capsys):
    args = parse(PlanArguments, words_of(uneven, tmp_path, "--device_memory", "0.001"))
    assert plan.main(args) == 0
    told = capsys.readouterr().out
    assert "4 subsets of 4 documents × 2 runs" in told
    assert "each of 10 runs on subsets" in told
    assert "it does not fit at runs on subsets" in told
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="documents can be drawn"):
        plan.main(parse(PlanArguments, words_of(uneven, tmp_path, "--docs_per_run", "500")))


def test_what_rests_on_some_of_many_subsets_is_called_projected(
    uneven, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(
        "oocr_influence.cli.plan_subsets.count_subsets", lambda p: count_subsets(p, 3)
    )
    assert plan.main(parse(PlanArguments, words_of(uneven, tmp_path))) == 0
    told = capsys.readouterr().out.splitlines()
    for name in ("tokens trained", "questions answered", "windows"):
        line = next(line for line in told if line.strip().startswith(name))
        assert "projected" in line
        assert "by 3 of 6 subsets" in line
