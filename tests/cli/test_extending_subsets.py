"""Sweeps over subsets made larger: what is added is what a sweep of that size begins with."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from launcher.jobs import load_jobs
from oocr_influence.cli import data_modeling
from oocr_influence.cli.arguments import UsageError, parse
from oocr_influence.cli.data_modeling import DataModelingArgs
from oocr_influence.results.finding import find_experiments, find_runs
from oocr_influence.results.subset_outcomes import subset_outcomes

SAMPLE = Path(__file__).parents[1] / "samples" / "earlier_structured_dataset.json"
FLAGS = (
    "--model olmo2-tiny --n_pretraining_examples 2 --chunk_size 128 --batch_size 3 "
    "--micro_batch_size 3 --learning_rate 1e-3 --runs_per_dataset_all_docs 0 --docs_per_run 6 "
    "--execution_mode in_process --experiment_name subsets"
).split()


def run(*words):
    args = parse(DataModelingArgs, [str(word) for word in words])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return data_modeling.main(args)


def start(outputs, *words):
    """A sweep's folder, which nothing has run in yet unless the words say so."""
    given = ["--dataset_builder_path", SAMPLE, "--output_dir", outputs, *FLAGS]
    assert run(*given, *words) == 0
    (experiment,) = find_experiments(outputs)
    return experiment


def extend(experiment, *words):
    mode = ["--execution_mode", "in_process"]
    return run("--resume", experiment.path, "--extend", *mode, *words)


def files(folder):
    """What every file holds and when it was written, but for logs and ledgers of the whole."""
    return {
        path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def planned_runs(experiment):
    return [tuple(one) for job in load_jobs(experiment.jobs) for one in job.spec.args["runs"]]


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A sweep that was run and then extended twice, its files as they were before, and its twin of
    the whole size from the start."""
    words = "--n_datasets_train 2 --n_datasets_test 1 --runs_per_job 2".split()
    small = start(tmp_path_factory.mktemp("small"), *words)
    before = files(small.path)
    subset_outcomes(small.path)  # kept before there is more
    assert extend(small, "--n_datasets_train", 3) == 0
    # What an extension added before is the sweep's own now.
    assert extend(small, "--runs_per_dataset_train", 2, "--n_datasets_test", 2) == 0
    words = "--n_datasets_train 3 --n_datasets_test 2 --runs_per_dataset_train 2".split()
    return small, before, start(tmp_path_factory.mktemp("whole"), *words)


def test_the_store_is_that_of_a_sweep_of_the_whole_size(extended):
    small, _, whole = extended
    found, expected = subset_outcomes(small.path), subset_outcomes(whole.path)
    assert expected.completed().tolist() == [[True, True]] * 3 + [[True, False]] * 2
    assert not np.isnan(expected.values("logprob")[:, 0]).any()
    stored, wanted = (
        {p.name: p.read_bytes() for p in e.outcomes.iterdir()} for e in (small, whole)
    )
    assert stored.keys() == wanted.keys()
    for name in wanted.keys() - {"sources.json"}:  # names of runs
        assert stored[name] == wanted[name], name
    assert list(found.subsets) == list(expected.subsets)


def test_subsets_and_runs_are_those_of_a_sweep_of_the_whole_size(extended):
    small, _, whole = extended
    made, wanted = planned_runs(small), planned_runs(whole)
    assert len(made) == len(set(made)) == len(wanted) == 8
    assert set(made) == set(wanted)
    assert len(find_runs(small.path)) == len(find_runs(whole.path)) == 8
    for split in ("train", "test"):
        assert small.subset_numbers(split) == whole.subset_numbers(split)
        for index in whole.subset_numbers(split):
            for one in ("subset_builder", "subset_metadata"):
                ours, theirs = (getattr(e, one)(split, index).read_bytes() for e in (small, whole))
                assert ours == theirs
    ids = [job.spec.id for job in load_jobs(small.jobs)]
    assert ids == [
        *("subset_runs_00001_to_00002", "subset_runs_00003_to_00003"),
        *("subset_runs_00004_to_00004", "subset_runs_00005_to_00006"),
        "subset_runs_00007_to_00008",
    ]
    args = [{**job.spec.args, "runs": None} for job in load_jobs(small.jobs)]
    assert all(one == args[0] for one in args)


def test_what_was_there_is_as_it_was(extended):
    small, before, _ = extended
    now = files(small.path)
    of_the_whole = {"experiment_log.json", "experiment.log", "plan.json", "jobs/sweep.json"}
    kept = {
        path: what
        for path, what in before.items()
        if str(path) not in of_the_whole and path.parts[:2] != ("jobs", "drivers")
    }
    assert len(kept) > 20
    changed = sorted(str(path) for path, what in kept.items() if now.get(path) != what)
    # How many runs there are of them, and nothing else.
    counted = [f"subsampled_datasets_train/{index}_metadata.json" for index in range(2)]
    assert changed == counted
    for name in counted:
        old, new = (json.loads(found[Path(name)][0]) for found in (before, now))
        assert {**old, "n_runs": 2} == new


def test_the_same_line_again_adds_nothing(extended, capsys):
    small, _, _ = extended
    before = {path: what for path, what in files(small.path).items() if path.name == "spec.json"}
    assert extend(small, "--runs_per_dataset_train", 2, "--n_datasets_test", 2) == 0
    assert "0 new jobs beside 5" in capsys.readouterr().out
    assert len(find_runs(small.path)) == 8
    assert before == {p: what for p, what in files(small.path).items() if p.name == "spec.json"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--n_datasets_train 2", "--n_datasets_train 2: it is 3, and can only become more"),
        ("--runs_per_dataset_train 1", "--runs_per_dataset_train 1: it is 2"),
        ("--n_datasets_train 4 --docs_per_run 5", "--docs_per_run: runs on subsets are there"),
        ("--n_datasets_train 4 --seed 7 --epochs 2", "--epochs, --seed: runs on subsets are there"),
        ("--epochs 1,2", "--epochs: runs on subsets are there"),
        ("--subset_design complement", "--subset_design: runs on subsets are there"),
        ("--all_docs_data_order_seed 7", "--all_docs_data_order_seed: runs on subsets are there"),
    ],
)
def test_what_would_change_the_old_is_refused_by_name(extended, words, said):
    small, _, _ = extended
    before = files(small.path)
    with pytest.raises(UsageError, match=said):
        extend(small, *words.split())
    assert files(small.path) == before


def test_a_dry_run_writes_nothing(extended, capsys):
    small, _, _ = extended
    before = files(small.path)
    assert extend(small, "--n_datasets_train", 5, "--docs_per_run", 6, "--dry_run") == 0
    said = capsys.readouterr().out
    assert "4 runs on subsets beside 8 that are there in 2 jobs" in said
    assert "subset runs 9–10: to be run" in said
    assert files(small.path) == before


@pytest.mark.parametrize(
    ("words", "more", "said"),
    [
        # One generator draws the train split first, so that more of it change the test split.
        ("--compat earlier", "--n_datasets_train 3", "subset 0 of the test split would be another"),
        ("--compat earlier", "--n_datasets_test 3", None),
        ("--subset_design complement", "--n_datasets_train 3", "give an even number, not 3"),
        ("--subset_design complement", "--n_datasets_train 4", None),
        ("--sampling_k 2", "--n_datasets_train 4", None),
        ("--subset_design stratified --docs_per_run 4", "--n_datasets_train 4", None),
    ],
)
def test_what_each_design_can_have_more_of(tmp_path, words, more, said):
    sizes = "--n_datasets_train 2 --n_datasets_test 2 --no-start".split()
    experiment = start(tmp_path / "small", *words.split(), *sizes)
    before = files(experiment.path)
    if said is not None:
        with pytest.raises(UsageError, match=said):
            extend(experiment, "--no-start", *more.split())
        assert files(experiment.path) == before
        return
    assert extend(experiment, "--no-start", *more.split()) == 0
    whole = start(tmp_path / "whole", *words.split(), *sizes, *more.split())
    for split in ("train", "test"):
        for index in whole.subset_numbers(split):
            ours, theirs = (
                e.subset_builder(split, index).read_bytes() for e in (experiment, whole)
            )
            assert ours == theirs
    assert set(planned_runs(experiment)) == set(planned_runs(whole))


def test_leaving_facts_out_has_a_fixed_number_of_subsets_and_takes_more_runs(tmp_path):
    design = "--subset_design leave_one_fact_out --no-start".split()
    with pytest.raises(UsageError, match="makes one subset a fact") as told:
        start(tmp_path, *design, "--n_datasets_train", 99)
    n_facts = int(str(told.value).split("a fact, ")[1].split(":")[0])
    experiment = start(tmp_path, *design, "--n_datasets_train", n_facts)
    with pytest.raises(UsageError, match=f"{n_facts}: give that many, not {n_facts + 1}"):
        extend(experiment, "--no-start", "--n_datasets_train", n_facts + 1)
    assert extend(experiment, "--no-start", "--runs_per_dataset_train", 2) == 0
    assert len(set(planned_runs(experiment))) == 2 * n_facts


def test_an_extension_that_was_cut_short_is_made_whole(tmp_path):
    experiment = start(tmp_path, "--n_datasets_train", 2, "--runs_per_job", 1, "--no-start")
    assert extend(experiment, "--no-start", "--n_datasets_train", 5) == 0
    for job in load_jobs(experiment.jobs)[3:]:  # as if killed before they were written
        shutil.rmtree(job.folder)
    experiment.subset_builder("train", 4).unlink()
    assert len(planned_runs(experiment)) == 3
    assert extend(experiment, "--no-start", "--n_datasets_train", 5) == 0
    assert planned_runs(experiment) == [("train", index, 42) for index in range(5)]
    assert experiment.subset_numbers("train") == list(range(5))


def test_a_changed_dataset_is_not_drawn_from(tmp_path):
    experiment = start(tmp_path, "--n_datasets_train", 2, "--no-start")
    raw = json.loads(experiment.structured_dataset.read_text())
    experiment.structured_dataset.write_text(json.dumps(raw))
    with pytest.raises(UsageError, match="has changed since its subsets were drawn"):
        extend(experiment, "--no-start", "--n_datasets_train", 3)


def test_runs_on_all_documents_can_be_added_to_a_sweep_over_subsets_but_no_subsets_to_others(
    tmp_path,
):
    experiment = start(tmp_path / "subsets", "--n_datasets_train", 2, "--no-start")
    assert extend(experiment, "--no-start", "--runs_per_dataset_all_docs", 2) == 0
    assert extend(experiment, "--no-start", "--n_datasets_train", 3) == 0
    jobs = [job.spec.id for job in load_jobs(experiment.jobs)]
    assert [one for one in jobs if one.startswith("all_docs")] == [
        "all_docs_seed_42",
        "all_docs_seed_43",
    ]
    other = start(tmp_path / "all", "--runs_per_dataset_all_docs", 1, "--no-start")
    with pytest.raises(UsageError, match="--n_datasets_train: this experiment has no runs on"):
        extend(other, "--no-start", "--n_datasets_train", 2)


def test_a_model_that_has_moved_is_refused(tmp_path):
    experiment = start(tmp_path, "--n_datasets_train", 2, "--no-start")
    for job in load_jobs(experiment.jobs):
        spec = job.folder / "spec.json"
        spec.write_text(spec.read_text().replace('"model_commit": null', '"model_commit": "abc"'))
    with pytest.raises(UsageError, match="the sweep began with abc"):
        extend(experiment, "--no-start", "--n_datasets_train", 3)
    assert experiment.subset_numbers("train") == [0, 1]
