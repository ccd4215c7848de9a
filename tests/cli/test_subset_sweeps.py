"""Sweeps over subsets: each run is what it would be alone, and trained what its subset holds."""

import json
import shutil
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from launcher.jobs import load_jobs
from oocr_influence.cli import data_modeling, subset_block, verify
from oocr_influence.cli.arguments import UsageError
from oocr_influence.cli.data_modeling import DataModelingArgs
from oocr_influence.cli.one_run import run_once
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.subset_block import run_block
from oocr_influence.datasets.document_dataset import load_structured_dataset
from oocr_influence.results import subset_outcomes as outcomes_module
from oocr_influence.results.experiment_log import read_experiment_log
from oocr_influence.results.finding import find_experiments, find_runs
from oocr_influence.results.run_folder import RunFolder
from oocr_influence.results.step_log import read_steps
from oocr_influence.results.subset_outcomes import subset_outcomes
from oocr_influence.training.loop import NonFiniteLossError

SAMPLE = Path(__file__).parents[1] / "samples" / "earlier_structured_dataset.json"
SUBSETS = {
    "model": "olmo2-tiny",
    "n_pretraining_examples": 2,
    "chunk_size": 128,
    "batch_size": 3,
    "micro_batch_size": 3,
    "learning_rate": 1e-3,
    "runs_per_dataset_all_docs": 0,
    "n_datasets_train": 2,
    "n_datasets_test": 1,
    "runs_per_dataset_train": 2,
    "docs_per_run": 6,
    "execution_mode": "in_process",
}


def arguments(sample, outputs, **changes):
    return DataModelingArgs(
        dataset_builder_path=sample,
        output_dir=outputs,
        experiment_name="subsets",
        **{**SUBSETS, **changes},
    )


def swept(sample, outputs, **changes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert data_modeling.main(arguments(sample, outputs, **changes)) == 0
    (experiment,) = find_experiments(outputs)
    return experiment


def records(run):
    return pq.read_table(run.records("final")).to_pylist()


def losses(run):
    return [(row.step, row.loss, row.grad_norm, row.window_ids) for row in read_steps(run.steps)]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return swept(SAMPLE, tmp_path_factory.mktemp("outputs"), save_final_checkpoint=True)


def test_each_run_has_the_bits_of_one_that_shares_nothing(sweep, tmp_path):
    runs = find_runs(sweep.path)
    assert len(runs) == 5
    for number, run in enumerate(runs):
        args = TrainingArgs.model_validate(read_experiment_log(run.experiment_log).args)
        own = args.model_copy(update={"output_dir": tmp_path / str(number), "eval_cache": False})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            alone = RunFolder(tmp_path / run_once(own)["run"])
        assert losses(alone) == losses(run)
        assert records(alone) == records(run)
        weights = "model.safetensors"
        one, other = (r.checkpoint("final") / weights for r in (alone, run))
        assert one.read_bytes() == other.read_bytes()


def test_what_was_trained_is_the_subset_by_the_step_logs(sweep):
    outcomes = subset_outcomes(sweep.path)
    dataset = load_structured_dataset(sweep.structured_dataset)
    for s, subset in enumerate(outcomes.subsets):
        builder = sweep.subset_builder(subset["split"], subset["dataset_idx"])
        wanted = Counter(d.id for d in load_structured_dataset(builder).synthetic_documents)
        about = json.loads(
            sweep.subset_metadata(subset["split"], subset["dataset_idx"]).read_text()
        )
        assert Counter(about["docs_included"]) == wanted
        assert sum(wanted.values()) == about["docs_per_run"] == 6
        trained = Counter()
        pretraining = 0
        for d, document in enumerate(outcomes.documents):
            if document["type"] == "synthetic_document" and outcomes.trained[s, d]:
                assert outcomes.trained[s, d] == 1
                trained[document["id"]] += 1
            pretraining += document["type"] == "pretraining_document" and outcomes.trained[s, d]
        assert trained == wanted
        assert pretraining == 2
        # The logs name the windows of every step: each once, and all that were packed.
        for run in sweep.runs_of_subset(subset["split"], subset["dataset_idx"]):
            log = read_experiment_log(run.experiment_log)
            logged = Counter(w for row in read_steps(run.steps) for w in row.window_ids)
            assert logged == Counter(log.log_dict["window_ids"])
            assert log.log_dict["n_documents"] == 8
    assert len(outcomes.documents) == len(dataset.document_dataset.docs)


def test_outcomes_are_what_the_runs_answered(sweep):
    outcomes = subset_outcomes(sweep.path)
    assert outcomes.completed().tolist() == [[True, True], [True, True], [True, False]]
    assert outcomes.seeds.tolist() == [[42, 43], [42, 43], [42, -1]]
    assert [s["split"] for s in outcomes.subsets] == ["train", "train", "test"]
    for s, subset in enumerate(outcomes.subsets):
        for run in sweep.runs_of_subset(subset["split"], subset["dataset_idx"]):
            seed = read_experiment_log(run.experiment_log).args["data_order_seed"]
            k = outcomes.seeds[s].tolist().index(seed)
            answers = {(row["set"], row["index"]): row for row in records(run)}
            for q, question in enumerate(outcomes.questions):
                row = answers[question["set"], question["index"]]
                assert row["id"] == question["id"]
                assert outcomes.values("logprob")[s, k, q] == row["logprob"]
    assert "rank" not in outcomes.metrics  # fast: right answers alone
    assert np.isnan(outcomes.values("logprob")[2, 1]).all()


def test_the_datasets_text_and_questions_stand_on_disk_once(sweep):
    sizes = {p: p.stat().st_size for p in sweep.path.glob("subsampled_*/*_builder.json")}
    assert len(sizes) == 3
    assert max(sizes.values()) < 0.1 * sweep.structured_dataset.stat().st_size
    for run in find_runs(sweep.path):
        assert not run.train_set.exists()
        assert not run.eval_datasets.exists()
        assert not run.tokenizer.exists()


def test_it_verifies_and_faults_are_seen(sweep, capsys):
    assert verify.main(verify.VerifyArguments(paths=[sweep.path])) == 0
    run = sweep.runs_of_subset("train", 0)[0]
    table = pq.read_table(run.exposure)
    saved = run.exposure.read_bytes()
    pq.write_table(table.slice(1), run.exposure)
    assert verify.main(verify.VerifyArguments(paths=[sweep.path])) == 1
    assert "without being of its subset" in capsys.readouterr().out
    run.exposure.write_bytes(saved)


class Job:
    """What a job is told by the launcher, which asks for nothing."""

    stop_requested = False

    def may_save(self):
        return True

    def has_ended(self, attempt):
        return False

    def report(self, values):
        pass


def test_what_is_done_is_not_done_again(sweep):
    before = {str(run.path) for run in find_runs(sweep.path)}
    again = [run_block(job.spec.args, Job())["runs"] for job in load_jobs(sweep.jobs)]
    assert {run for runs in again for run in runs} == before
    assert {str(run.path) for run in find_runs(sweep.path)} == before


def test_only_what_a_dead_run_left_is_removed(tmp_path):
    new, dead, begun = (RunFolder(tmp_path / name) for name in ("new", "dead", "begun"))
    for run in (new, dead, begun):
        run.path.mkdir()  # as of another worker, which is about to own it
    for run in (dead, begun):
        run.claim()
        run.release()
    begun.text_log.touch()
    for run in (new, dead, begun):
        subset_block._remove_unbegun(run)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["begun", "new"]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_run_that_diverges_fails_its_job_once_the_others_are_made(sweep, tmp_path, monkeypatch):
    whole = load_jobs(sweep.jobs)[0].spec.args
    copy = tmp_path / sweep.path.name
    shutil.copytree(sweep.path, copy, ignore=shutil.ignore_patterns("data_modeling_runs_*", "jobs"))
    wanted = [["train", 0, 42], ["train", 0, 43], ["train", 1, 42]]
    args = {**whole, "output_dir": str(copy), "runs": wanted}
    real = subset_block.run_once

    def run_once_but(given, *rest, **named):
        if given.data_order_seed == 43:
            raise NonFiniteLossError("the loss is nan")
        return real(given, *rest, **named)

    monkeypatch.setattr(subset_block, "run_once", run_once_but)
    with pytest.raises(NonFiniteLossError):
        run_block(args, Job())
    (experiment,) = find_experiments(copy)
    assert len(experiment.runs_of_subset("train", 0)) == 1
    assert len(experiment.runs_of_subset("train", 1)) == 1


def test_outcomes_can_be_read_while_the_sweep_goes_on(sweep, tmp_path):
    whole = subset_outcomes(sweep.path)
    expected = {p.name: p.read_bytes() for p in sweep.outcomes.iterdir()}
    copy = tmp_path / "outputs" / sweep.path.name
    shutil.copytree(sweep.path, copy)
    (experiment,) = find_experiments(copy)
    hidden = experiment.runs_of_subset("train", 1)
    for run in hidden:
        run.path.rename(tmp_path / run.name)
    partial = subset_outcomes(copy)
    assert partial.completed().tolist() == [[True, True], [False, False], [True, False]]
    assert np.isnan(partial.values("logprob")[1]).all()
    assert not partial.trained[1].any()
    assert [s["dataset_idx"] for s in partial.split("train").subsets] == [0]
    read = []
    real = outcomes_module._answers
    outcomes_module._answers = lambda run: read.append(run.name) or real(run)
    try:
        for run in hidden:
            (tmp_path / run.name).rename(run.path)
        again = subset_outcomes(copy)
    finally:
        outcomes_module._answers = real
    assert sorted(read) == sorted(run.name for run in hidden)  # what was read before is kept
    np.testing.assert_array_equal(again.values("logprob"), whole.values("logprob"))
    found = {p.name: p.read_bytes() for p in experiment.outcomes.iterdir()}
    without = {"sources.json"}
    assert {n: b for n, b in found.items() if n not in without} == {
        n: b for n, b in expected.items() if n not in without
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"docs_per_run": 500}, "documents can be drawn"),
        ({"docs_per_run": 1, "batch_size": 8, "n_pretraining_examples": 0}, "--batch_size 8"),
        ({"subset_eval_sets": ["nobody_*"]}, "is called nobody_"),
        ({"subset_eval_metrics": ["taste"]}, "no set asks for the metric taste"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_written(sample, tmp_path, changes, said):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UsageError, match=said):
            data_modeling.main(arguments(sample, tmp_path / "outputs", **changes))
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_datasets_train": 0, "n_datasets_test": 0}, "nothing to run"),
        ({"just_train_all_docs": True}, "leave one out"),
        ({"grid": [{"epochs": 1}, {"epochs": 2}]}, "on all documents alone"),
        ({"docs_per_run": 0}, "greater than or equal to 1"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(sample, tmp_path, changes, said):
    with pytest.raises(ValueError, match=said):
        arguments(sample, tmp_path, **changes)
