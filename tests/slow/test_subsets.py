"""Sweeps over subsets with real processes: kills change nothing, and facts move their answers."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from scipy.stats import ttest_1samp

from oocr_influence.attribution.datamodels import fit
from oocr_influence.attribution.features import features_of
from oocr_influence.attribution.noise import crossed_seeds, variances
from oocr_influence.attribution.own_facts import own_features
from oocr_influence.results.finding import find_experiments, find_runs
from oocr_influence.results.subset_outcomes import subset_outcomes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tests" / "samples" / "earlier_structured_dataset.json"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
SMALL = (
    "--model olmo2-tiny --n_pretraining_examples 2 --chunk_size 128 --batch_size 3 "
    "--micro_batch_size 3 --learning_rate 1e-3 --runs_per_dataset_all_docs 0 --n_datasets_train 5 "
    "--n_datasets_test 1 --runs_per_dataset_train 2 --docs_per_run 6 --runs_per_job 5"
).split()


def oocr(*words):
    return subprocess.Popen(
        [sys.executable, "-m", "oocr_influence.cli.main", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=ENVIRONMENT,
        cwd=ROOT,
    )


def finished(process):
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


def start(outputs, dataset, *flags):
    words = ["--dataset_builder_path", dataset, "--output_dir", outputs, *flags]
    return oocr("data_modeling", "--experiment_name", "subsets", *words)


def store(experiment):
    subset_outcomes(experiment.path)
    return {
        file.name: file.read_bytes()
        for file in experiment.outcomes.iterdir()
        if file.name != "sources.json"  # names of run folders, by time
    }


def test_a_sweep_that_was_killed_at_random_leaves_the_same_store(tmp_path):
    finished(start(tmp_path / "whole", SAMPLE, *SMALL))
    (whole,) = find_experiments(tmp_path / "whole")
    seed = time.time_ns()
    print("seed", seed)
    chance = random.Random(seed)
    process = start(tmp_path / "killed", SAMPLE, *SMALL)
    for _ in range(2):
        while not (tmp_path / "killed").is_dir() or not find_runs(tmp_path / "killed"):
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.1)
        time.sleep(chance.uniform(0, 6))
        family = psutil.Process(process.pid).children(recursive=True)
        chance.shuffle(family)
        for victim in [*family, psutil.Process(process.pid)]:
            if victim.is_running():
                victim.send_signal(signal.SIGKILL)
        process.communicate()
        (killed,) = find_experiments(tmp_path / "killed")
        process = oocr("data_modeling", "--resume", killed.path)
    finished(process)
    assert store(killed) == store(whole)
    finished(oocr("verify", killed.path))


def test_leaving_a_fact_out_moves_its_own_questions_and_no_others(tmp_path):
    dataset = tmp_path / "mayors.json"
    flags = "--docs_per_fact 12 --length short --untold_docs 0 --output"
    finished(oocr("generate", "--world", "mayors", *flags.split(), dataset))
    flags = (
        "--model olmo2-tiny --n_pretraining_examples 0 --chunk_size 256 --batch_size 4 "
        "--micro_batch_size 4 --learning_rate 1.5e-3 --runs_per_dataset_all_docs 0 "
        "--active_facts name_mayor --subset_design leave_one_fact_out --n_datasets_train 10 "
        "--runs_per_dataset_train 2 --runs_per_job 10 "
        "--subset_eval_sets name_mayor_eval_gen_*_no_fs,name_mayor_eval_qa_*_no_fs"
    ).split()
    finished(start(tmp_path / "outputs", dataset, *flags))
    outcomes = subset_outcomes(tmp_path / "outputs").split("train")
    trained = [q for q, one in enumerate(outcomes.questions) if one["kind"] == "trained"]
    outcomes = outcomes.where(questions=trained)
    values = outcomes.values("logprob")
    assert np.isfinite(values).all()
    assert crossed_seeds(outcomes.seeds, values)
    features = features_of(outcomes, "fact")
    active = features.varied()
    assert active.sum() == 10
    own = own_features(outcomes, features)[:, active]  # (Q, F)
    # What each question loses without each fact, beside the subsets that have that one and its own.
    without_SF = features.values[:, active] == 0
    means, entity = outcomes.means("logprob"), own.argmax(axis=1)
    lost_QF = np.array(
        [
            [
                means[~without_SF[:, f] & ~without_SF[:, entity[q]], q].mean()
                - means[without_SF[:, f], q][0]
                for f in range(10)
            ]
            for q in range(len(entity))
        ]
    )
    own_loss = np.array([lost_QF[entity == f, f].mean() for f in range(10)])
    other_loss = np.array([lost_QF[entity != f, f].mean() for f in range(10)])
    assert (own_loss > 1).all()
    assert ttest_1samp(own_loss, 0, alternative="greater").pvalue < 1e-4
    # Others lose nothing beyond the noise of two seeds, as if an entity's questions were one.
    noise = np.nanmean(variances(values, crossed=True).noise) / values.shape[1]
    deviation = np.sqrt(noise * (1 + 1 / 8) / 9)
    assert np.abs(other_loss).max() < 4 * deviation
    assert np.abs(other_loss).max() < 0.05 * own_loss.min()
    # By a datamodel: the documents of the fact that is asked for come out on top.
    model = fit(features, values, method="ridge")
    assert (model.effects[:, active].argmax(axis=1) == entity).mean() > 0.9
