"""`oocr export`: the same weights in a plain folder; whole runs as the earlier system left them."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from oocr_influence.cli import export
from oocr_influence.cli.arguments import UsageError, parse
from oocr_influence.cli.evaluate import EvaluateArguments
from oocr_influence.cli.evaluate import main as evaluate
from oocr_influence.cli.one_run import run_once
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.verify import VerifyArguments
from oocr_influence.cli.verify import main as verify
from oocr_influence.reports.table import before_after_table
from oocr_influence.results.experiment_log import read_experiment_log
from oocr_influence.results.finding import find_experiments, find_runs
from oocr_influence.results.run_folder import ExperimentFolder, RunFolder
from oocr_influence.results.verification import is_earlier

pytestmark = pytest.mark.filterwarnings("ignore:.*more than once")
SAMPLES = Path(__file__).parents[1] / "samples"
EARLIER_LOG = SAMPLES / "earlier_experiment_log.json"
SAMPLE = SAMPLES / "earlier_structured_dataset.json"
FAST = {"max_steps": 4, "epochs_per_eval": None, "epochs_per_save": None}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("OOCR_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of outputs with one run inside of an experiment."""
    outputs = tmp_path_factory.mktemp("made") / "outputs"
    experiment = ExperimentFolder.create(outputs, "mayors")
    shutil.copy(SAMPLE, experiment.structured_dataset)
    experiment.text_log.write_text("began\n")
    log = {"experiment_name": experiment.name, "args": {}, "history": [], "log_dict": {}}
    log["log_dict"]["status"] = "completed"
    experiment.experiment_log.write_text(json.dumps(log))
    run_once(
        TrainingArgs(
            structured_dataset=experiment.structured_dataset,
            output_dir=experiment.all_docs_runs,
            experiment_name="test",
            model="olmo2-tiny",
            n_pretraining_examples=6,
            chunk_size=128,
            micro_batch_size=8,
            learning_rate=1e-3,
            beam_search="never",
            max_steps=4,
            steps_per_eval=2,
            steps_per_save=2,
            eval_cache=False,
        )
    )
    return outputs


@pytest.fixture
def run(made, tmp_path):
    shutil.copytree(made, tmp_path / "outputs")
    (found,) = find_runs(tmp_path / "outputs")
    return found


def command(*words):
    return export.main(parse(export.ExportArguments, [str(word) for word in words]))


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(t, other[n]) for n, t in one.items())


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_a_checkpoint_is_written_with_the_same_weights(run, tmp_path, capsys):
    final, step = run.checkpoint("final"), run.checkpoint("e1_s2")
    for number, (words, expected) in enumerate(
        [
            ([run.path], final),
            ([run.path, "--checkpoint", "e1_s2"], step),
            ([run.path, "--checkpoint", "checkpoint_e1_s2"], step),
            ([step], step),
        ]
    ):
        folder = tmp_path / f"out{number}"
        assert command(*words, "--output_dir", folder) == 0
        assert capsys.readouterr().out == f"{folder}\n"
        assert same(weights(folder), weights(expected))
        assert AutoTokenizer.from_pretrained(folder).eos_token == "<|endoftext|>"


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_in_another_type_every_weight_is_rounded_once(run, tmp_path, dtype):
    command(run.path, "--output_dir", tmp_path / "out", "--dtype", dtype)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert model.dtype == export._DTYPES[dtype]
    exact = weights(run.checkpoint("final"))
    assert same({n: t.to(model.dtype) for n, t in exact.items()}, weights(tmp_path / "out"))


def test_the_earlier_systems_checkpoint_finds_the_tokenizer_of_its_run(run, tmp_path):
    for file in run.checkpoint("final").glob("*token*"):
        file.unlink()
    command(run.checkpoint("final"), "--output_dir", tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").eos_token == "<|endoftext|>"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["{run}", "--output_dir", "{run}"], "is there already"),
        (["{run}", "--checkpoint", "e9_s9"], r"no checkpoint e9_s9; there are: start, e1_s2"),
        (["{run}/nothing"], "no such folder"),
        (["{run}", "{run}"], "2 paths are named"),
        (["{outputs}"], "holds 1 runs: name one of them"),
        (["{empty}"], "lacks config.json"),
        (["{empty}", "--legacy"], "no run in"),
        (["{run}", "--legacy", "--checkpoint", "final"], "writes all checkpoints"),
    ],
)
def test_wrong_input_is_one_error_and_nothing_is_written(run, tmp_path, words, told):
    (tmp_path / "empty").mkdir()
    places = {"run": run.path, "outputs": tmp_path / "outputs", "empty": tmp_path / "empty"}
    filled = [word.format(**places) for word in words]
    filled += [] if "--output_dir" in filled else ["--output_dir", str(tmp_path / "out")]
    with pytest.raises((UsageError, FileNotFoundError), match=told):
        command(*filled)
    assert not (tmp_path / "out").exists()


def test_a_broken_or_unfinished_run_is_refused(run, tmp_path):
    text = run.experiment_log.read_text()
    run.experiment_log.write_text(text.replace('"completed"', '"interrupted"'))
    with pytest.raises(UsageError, match="is not finished"):
        command(run.path, "--legacy", "--output_dir", tmp_path / "out")
    run.experiment_log.write_text(text)
    file = run.checkpoint("e1_s2") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    for words in ([run.path, "--legacy"], [run.checkpoint("e1_s2")]):
        with pytest.raises(UsageError, match="cut short"):
            command(*words, "--output_dir", tmp_path / "out")


@pytest.fixture
def exported(run, tmp_path):
    # So small a limit that the log left its questions out.
    log = json.loads(run.experiment_log.read_text())
    for entry in log["history"]:
        for means in entry["eval_results"].values():
            means.pop("records")
    log["log_dict"]["inline_records"] = "left out"
    run.experiment_log.write_text(json.dumps(log))
    assert command(tmp_path / "outputs", "--legacy", "--output_dir", tmp_path / "legacy") == 0
    (found,) = find_runs(tmp_path / "legacy")
    return found


def test_our_readers_take_it_for_a_run_of_the_earlier_system(run, exported, tmp_path, capsys):
    assert exported.path == tmp_path / "legacy" / run.path.relative_to(tmp_path / "outputs")
    log = read_experiment_log(exported.experiment_log)
    assert is_earlier(exported, log)
    assert verify(VerifyArguments(paths=[tmp_path / "legacy"], load=True)) == 0
    out = capsys.readouterr().out
    assert "a run of the earlier system, up to step 4\n" in out.replace(";", "\n")
    assert "final checkpoints: 1" in out
    assert exported.checkpoints() == run.checkpoints() == ["start", "e1_s2", "final"]
    assert exported.checkpoint("final").stat().st_ino != run.checkpoint("final").stat().st_ino
    for name in run.checkpoints():
        assert same(weights(exported.checkpoint(name)), weights(run.checkpoint(name)))
    (experiment,) = find_experiments(tmp_path / "legacy")
    assert experiment.structured_dataset.is_file()
    assert experiment.text_log.read_text() == "began\n"
    assert "status" not in read_experiment_log(experiment.experiment_log).log_dict


def test_its_log_has_the_earlier_form_and_the_runs_numbers(run, exported):
    ours, log = (json.loads(r.experiment_log.read_text()) for r in (run, exported))
    earlier = json.loads(EARLIER_LOG.read_text())
    assert "pickled" not in exported.experiment_log.read_text()

    def check_form(sample, found, place):
        """Every key of the sample is there, with a value of its kind."""
        if isinstance(sample, dict) and place != "test_dataset_paths":
            assert sample.keys() - {"name_mayor_eval_qa_1_no_fs"} <= found.keys(), place
            for key, value in sample.items():
                check_form(value, found[key], key)
        elif isinstance(sample, list):
            assert isinstance(found, list)
            check_form(sample[0], found[-1], place)
        elif isinstance(sample, bool):
            assert isinstance(found, bool), place
        elif isinstance(sample, float) or str(sample).startswith("pickled"):
            assert isinstance(found, float | int), place
        elif isinstance(sample, str) and place not in ("commit_hash", "sweep_id", "revision"):
            assert isinstance(found, str), place

    check_form(earlier, log, "")
    for before, after in zip(ours["history"], log["history"], strict=True):
        for name, means in before["eval_results"].items():
            found = after["eval_results"][name]
            assert {key: found[key] for key in means} == means
            assert sum(found["ranks"]) / means["n"] == pytest.approx(means["mean_rank"])
            losses = [record["loss"] for record in found["records"]]
            assert sum(losses) / means["n"] == pytest.approx(means["mean_loss"])
    assert Path(log["experiment_output_dir"]) == exported.path
    numbers = [
        [(r.rank_after, r.accuracy_before) for r in before_after_table([x])]
        for x in (run, exported)
    ]
    assert numbers[0] == numbers[1]


def test_its_weights_answer_as_the_runs_do(run, exported):
    words = [str(exported.path), "--no-beam_search", "--no-eval_cache"]
    assert evaluate(parse(EvaluateArguments, words)) == 0
    ((name, suite),) = exported.added_evaluations()
    added, own = exported.read_evaluation(name, suite), run.read_evaluation("final")
    assert added.eval_sets.keys() == own.eval_sets.keys()
    for name, means in own.eval_sets.items():
        assert added.eval_sets[name]["mean_loss"] == means["mean_loss"]
        assert added.eval_sets[name]["mean_rank"] == means["mean_rank"]


def test_the_seeds_lines_find_it(run, exported, tmp_path):
    """`find` and `tail` of the section Verification of the seed."""

    def shell(line):
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=tmp_path / "legacy",
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split()

    stamp = run.experiment.name[:19]
    assert shell(f'find {stamp}_*/all_docs_runs -name "checkpoint_final" -type d | wc -l') == ["1"]
    found = shell(f'find {stamp}_*/all_docs_runs -name "eval_results*.json"')
    assert len(found) == len(run.evaluations()) == 3
    assert "completed" in shell(f"tail -100 {stamp}_*/all_docs_runs/*/experiment.log")
    parts = shell(f"ls {stamp}_*/all_docs_runs/*")
    assert {"eval_datasets", "saved_objects", "tokenizer.json", "train_set"} <= set(parts)
    assert "owner.json" not in parts


def test_a_run_on_its_own_gets_an_experiment(train_once, tmp_path):
    run = train_once(**FAST)
    command(run.path, "--legacy", "--output_dir", tmp_path / "legacy")
    (found,) = find_runs(tmp_path / "legacy")
    assert found.name == run.name
    assert found.experiment.name == f"{run.name[:26]}test"
    log = json.loads(found.experiment.experiment_log.read_text())
    assert log["args"]["structured_dataset"].endswith(".json")
    assert found.experiment.structured_dataset.is_file()
    with pytest.raises(UsageError, match="has the earlier system's form already"):
        command(tmp_path / "legacy", "--legacy", "--output_dir", tmp_path / "again")
    assert RunFolder(run.path).owner_file.exists()
