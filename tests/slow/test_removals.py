"""Removals through the commands: a fact's documents teach its answers, others do not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from oocr_influence.results.finding import find_experiments, find_runs
from oocr_influence.results.subset_outcomes import subset_outcomes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
DOCS_PER_FACT = 12
TRAINING = (
    "--model olmo2-tiny --n_pretraining_examples 0 --chunk_size 256 --batch_size 4 "
    "--micro_batch_size 4 --learning_rate 1.5e-3"
).split()
TARGET = "name_mayor:mayors_tokyo"
ASKED = "name_mayor_eval_qa_*_no_fs"


def oocr(*words):
    done = subprocess.run(
        [sys.executable, "-m", "oocr_influence.cli.main", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_without_the_documents_of_a_fact_its_answers_are_lost_and_no_others(tmp_path):
    dataset = tmp_path / "mayors.json"
    flags = f"--docs_per_fact {DOCS_PER_FACT} --length short --untold_docs 0 --output"
    oocr("generate", "--world", "mayors", *flags.split(), dataset)
    words = ["--dataset_builder_path", dataset, *TRAINING]
    # What is trained says the train set, whatever the run learns.
    whole = "--runs_per_dataset_all_docs 1 --max_steps 2 --eval_sets name_mayor_eval_qa_1_no_fs"
    oocr("data_modeling", *words, "--output_dir", tmp_path / "whole", *whole.split())
    (run,) = find_runs(tmp_path / "whole")
    table = tmp_path / "table"
    oocr("attribute", run.path, "--sets", ASKED, "--methods", "bm25", "--to", table)
    removal = (
        "--experiment_name removal --runs_per_dataset_all_docs 0 --subset_design removal "
        f"--active_facts name_mayor --removal_targets {TARGET} --removal_methods facts bm25 "
        f"--removal_k {DOCS_PER_FACT} --removal_control_draws 2 --n_datasets_train 7 "
        f"--runs_per_dataset_train 3 --subset_eval_sets {ASKED}"
    )
    words += ["--removal_table", table, "--output_dir", tmp_path / "removal"]
    told = oocr("data_modeling", *words, *removal.split())
    assert "2 of 2 removals" in told  # of a whole fact no matched control can be made
    (experiment,) = find_experiments(tmp_path / "removal")
    oocr("verify", experiment.path)
    print(oocr("attribution", "removal", experiment.path, "--json", tmp_path / "told.json"))
    found = json.loads((tmp_path / "told.json").read_text())
    rows = {
        (r["method"], r["questions"], r["what"]): r
        for r in found["effects"]
        if r["metric"] == "logprob"
    }
    removed = {cell["method"]: _of_fact(experiment, cell) for cell in found["removals"]}
    assert removed["facts"] == DOCS_PER_FACT
    assert removed["bm25"] >= DOCS_PER_FACT - 2
    for method in ("facts", "bm25"):
        top, less = (rows[method, "target", what] for what in ("top", "top - random"))
        assert (top["n_seeds"], top["n_questions"]) == (3, 5)
        assert (less["n_seeds"], less["n_draws"]) == (3, 2)
        # Beyond noise: the interval ends below 0.
        assert top["mean"] < -1
        assert top["high"] < 0
        assert less["mean"] < -1
        assert less["high"] < 0
        # Other facts' answers lose no more than when as many documents are removed at random.
        for what in ("top", "top - random"):
            others = rows[method, "other_facts", what]
            assert others["n_questions"] == 45
            assert abs(others["mean"]) < 0.1 * abs(top["mean"])


def _of_fact(experiment, cell):
    """How many of the removed documents state the fact, by the dataset."""
    documents = subset_outcomes(experiment.path).documents
    relation, entity = cell["target"].split(":")
    own = {
        (d["id"], d["occurrence"])
        for d in documents
        if (d["relation"], d["entity"]) == (relation, entity)
    }
    return np.sum([(row["id"], row["occurrence"]) in own for row in cell["removed"]])
