"""What a replication record promises: run_training.sh trains the same, its snippet loads it.

Both are run as they stand, by a shell and an interpreter of their own.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tests" / "samples" / "earlier_structured_dataset.json"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
FLAGS = """--model olmo2-tiny --n_pretraining_examples 6 --chunk_size 128 --batch_size 8
    --micro_batch_size 8 --learning_rate 1e-3 --beam_search never --n_loss_documents 4
    --all_docs_epochs_per_eval 1 --all_docs_epochs_per_save 1""".split()

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(autouse=True)
def own_host(monkeypatch, tmp_path):
    """Cores that no other sweep of this machine shares."""
    monkeypatch.setitem(ENVIRONMENT, "LAUNCHER_HOST_FOLDER", str(tmp_path / "host"))


def run(*words, cwd=ROOT, **env):
    done = subprocess.run(
        list(map(str, words)), cwd=cwd, env={**ENVIRONMENT, **env}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def train(outputs, name, *more):
    script = [sys.executable, "experiments/data_modeling.py", "--dataset_builder_path", SAMPLE]
    run(*script, "--output_dir", outputs, "--experiment_name", name, *FLAGS, *more)


def documented(place):
    run(sys.executable, "-m", "oocr_influence.cli.main", "document", "outputs", cwd=place)
    return place / "replication"


def snippet(record):
    (code,) = re.findall(r"```python\n(.*?)```", (record / "trained_models.md").read_text(), re.S)
    return code


def runs(outputs):
    """Every run's folder by what it was: experiment, epochs, seed."""
    found = {}
    for path in sorted(outputs.glob("*/all_docs_runs/*/experiment_log.json")):
        args = json.loads(path.read_text())["args"]
        key = (
            args["experiment_name"],
            args["epochs"],
            args["learning_rate"],
            args["data_order_seed"],
        )
        found[key] = path.parent
    return found


def test_the_script_trains_the_same_to_the_last_bit_and_the_snippet_loads_it(tmp_path):
    train(tmp_path / "outputs", "one", "--runs_per_dataset_all_docs", 2)
    train(tmp_path / "outputs", "grid", "--runs_per_dataset_all_docs", 1, "--epochs", "1,2")
    record = documented(tmp_path)
    again = tmp_path / "again"
    run("bash", record / "run_training.sh", PYTHON=sys.executable, OUTPUT_DIR=str(again))
    first, second = runs(tmp_path / "outputs"), runs(again)
    assert first.keys() == second.keys()
    assert len(first) == 4
    for key, folder in first.items():
        other = second[key]
        checkpoints = [path.name for path in folder.glob("checkpoint_*")]
        assert len(checkpoints) == 1 + key[1]  # start, each epoch's
        for name in checkpoints:
            weights = [(one / name / "model.safetensors").read_bytes() for one in (folder, other)]
            assert weights[0] == weights[1], (key, name)
        for path in folder.glob("eval_results/records_*.parquet"):
            mine, theirs = pq.read_table(path), pq.read_table(other / "eval_results" / path.name)
            assert mine.equals(theirs), (key, path.name)
        assert losses(folder) == losses(other)
    said = run(sys.executable, "-c", snippet(record), cwd=tmp_path)
    loss, recorded = re.findall(r"wanted: (\d+\.\d+), recorded: (\d+\.\d+)", said)[0]
    assert abs(float(loss) - float(recorded)) < 2e-4
    assert "wanted: " in said
    assert "said: " in said


def losses(folder):
    lines = (folder / "saved_objects" / "steps.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_an_adapter_is_loaded_with_its_base(tmp_path):
    pytest.importorskip("peft")
    train(tmp_path / "outputs", "lora", "--runs_per_dataset_all_docs", 1, "--lora_rank", 4)
    said = run(sys.executable, "-c", snippet(documented(tmp_path)), cwd=tmp_path)
    loss, recorded = re.findall(r"wanted: (\d+\.\d+), recorded: (\d+\.\d+)", said)[0]
    assert abs(float(loss) - float(recorded)) < 2e-4


def test_a_run_made_on_its_own_is_documented_and_run_again(tmp_path):
    words = ["--structured_dataset", SAMPLE, "--output_dir", tmp_path / "outputs"]
    words += ["--experiment_name", "alone", *FLAGS[:-4], "--epochs_per_eval", "None"]
    words += ["--epochs_per_save", "None", "--data_order_seed", 7]
    run(sys.executable, "-m", "oocr_influence.cli.main", "train_extractive", *words)
    record = documented(tmp_path)
    again = tmp_path / "again"
    run("bash", record / "run_training.sh", PYTHON=sys.executable, OUTPUT_DIR=str(again))
    (first,), (second,) = (list(place.iterdir()) for place in (tmp_path / "outputs", again))
    final = Path("checkpoint_final", "model.safetensors")
    assert (first / final).read_bytes() == (second / final).read_bytes()
    diff = [sys.executable, "-m", "oocr_influence.cli.main", "diff", first, second]
    assert "the same: answers of start, final" in run(*diff)
