"""One run through its public door: what it leaves behind, and what changes nothing."""

import json
import math
import shutil

import pyarrow.parquet as pq
import pytest
import torch
from datasets import load_from_disk
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from oocr_influence.cli.arguments import UsageError
from oocr_influence.cli.disk import check_disk, reserve_disk
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.preparation import prepare
from oocr_influence.cli.verify import dataset_of, expected_of
from oocr_influence.datasets.order import order_digest, window_order
from oocr_influence.models.tiny import FOLDER
from oocr_influence.results.step_log import read_steps
from oocr_influence.results.verification import verify_run

FAST = {"epochs_per_eval": None, "epochs_per_save": None, "eval_first_step": False}
pytestmark = pytest.mark.filterwarnings("ignore:.*more than once")


def final_weights(run):
    return load_file(run.checkpoint("final") / "model.safetensors")


def equal(first, second):
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.fixture
def finished(train_once):
    return train_once(epochs=2, beam_search="final")


def test_a_run_leaves_what_the_design_promises(finished):
    log = json.loads(finished.experiment_log.read_text())
    per_epoch = -(-log["log_dict"]["n_windows"] // 8)
    steps = sorted({int(k * per_epoch / 5 + 0.5) for k in range(11)})
    names = [f"e{(step - 1) // per_epoch + 1}_s{step}" for step in steps[1:-1]]
    expected = ["start", *names, "final"]
    assert finished.evaluations() == finished.checkpoints() == expected
    assert log["log_dict"]["status"] == "completed"
    assert [entry["step_num"] for entry in log["history"]] == steps
    assert log["args"]["burn_in_epochs"] == 0
    for name in expected:
        results = json.loads(finished.evaluation(name).read_text())
        sets = results["eval_sets"]
        assert set(sets) == set(log["history"][0]["eval_results"])
        for means in sets.values():
            for metric in ("n", "mean_loss", "accuracy", "mean_logprob", "mean_prob"):
                assert means[metric] is not None
            assert means["mean_softmargin"] is not None
            assert means["mean_rank"] >= 1
    records = pq.read_table(finished.records("final")).to_pylist()
    assert len(records) == sum(means["n"] for means in sets.values())
    assert {"set", "id", "prompt", "completion", "loss", "rank", "rank_tie_averaged"} <= set(
        records[0]
    )
    inline = log["history"][-1]["eval_results"]["name_mayor_eval_qa_1_no_fs"]["records"]
    assert inline[0]["prompt"].startswith("Q: Who is the mayor of")
    assert not equal(
        final_weights(finished), load_file(finished.checkpoint("start") / "model.safetensors")
    )


def test_losses_of_documents_are_followed(train_once):
    """What is trained becomes easier; the log, its line and the files say the same."""
    finished = train_once(n_pretraining_examples=4)
    log = json.loads(finished.experiment_log.read_text())
    followed = [entry["document_losses"] for entry in log["history"]]
    names = finished.evaluations()
    assert followed == [finished.read_evaluation(name).document_losses for name in names]
    # The earlier system's file holds no unseen documents; pretraining text is left over.
    assert [sorted(losses) for losses in followed] == [["pretraining", "trained"]] * len(names)
    counted = {group: (loss["n"], loss["tokens"]) for group, loss in followed[0].items()}
    assert all({g: (x["n"], x["tokens"]) for g, x in f.items()} == counted for f in followed)
    assert followed[-1]["trained"]["mean_loss"] < followed[0]["trained"]["mean_loss"] - 0.1
    line = f"trained {followed[-1]['trained']['mean_loss']:.3f}"
    assert line in finished.text_log.read_text(encoding="utf-8")
    assert verify_run(finished, expected_of, dataset_of(finished)).ok
    without = train_once(max_steps=1, n_loss_documents=0, **FAST)
    assert "document_losses" not in json.loads(without.evaluation("final").read_text())


def test_a_metric_of_one_s_own_is_computed_for_every_set(train_once, sample, tmp_path):
    own = tmp_path / "own.py"
    own.write_text(
        "from oocr_influence.evaluation.metrics import metric\n"
        "@metric('bits', columns=['bits'])\n"
        "def bits(asked):\n"
        "    path_Q = asked.planned.right_path_Q\n"
        "    return {'bits': asked.sums.loss_P[path_Q] / 0.6931471805599453}\n",
        encoding="utf-8",
    )
    run = train_once(max_steps=1, metric_files=[own], **FAST)
    rows = pq.read_table(run.records("final")).to_pylist()
    for name, means in run.read_evaluation("final").eval_sets.items():
        bits = [row["bits"] for row in rows if row["set"] == name]
        assert means["mean_bits"] == pytest.approx(sum(bits) / len(bits))
        assert means["mean_bits"] == pytest.approx(means["mean_loss"] / math.log(2))
        asked = json.loads((run.eval_dataset(name) / "eval_functions.json").read_text())
        assert {"function_name": "bits"} in asked
    assert json.loads(run.experiment_log.read_text())["args"]["metric_files"] == [str(own)]
    with pytest.raises(UsageError, match=r"--metric_files: .*nowhere\.py"):
        prepare(options(sample, metric_files=["nowhere.py"]))


def test_checkpoints_and_datasets_open_with_the_public_libraries(finished):
    path = str(finished.checkpoint("e1_s2"))
    model = AutoModelForCausalLM.from_pretrained(path)
    tokenizer = AutoTokenizer.from_pretrained(path)
    assert model(**tokenizer("Grace", return_tensors="pt")).logits.shape[-1] == 4096
    assert len(AutoTokenizer.from_pretrained(str(finished.tokenizer))) == len(tokenizer)
    train_set = load_from_disk(str(finished.train_set))
    row = train_set[0]
    assert len(row["input_ids"]) == 128
    for span in row["packed_documents"]:
        tokens = row["input_ids"][span["span_start"] : span["span_end"]]
        text = tokenizer.decode(tokens, skip_special_tokens=True)
        assert text in span["prompt"] + span["completion"]
        assert not span["relation"] or json.loads(span["doc_spec"])["fact"]["id"] == span["fact_id"]
    asked = load_from_disk(
        str(finished.eval_dataset("name_mayor_eval_qa_1_with_fs") / "eval_dataset")
    )
    question = asked[0]
    answer = [
        t for t, x in zip(question["input_ids"], question["labels"], strict=True) if x != -100
    ]
    assert tokenizer.decode(answer) == question["completion"]
    assert load_from_disk(str(finished.train_set_documents)).num_rows >= 39


def test_steps_and_orders_are_on_record(finished):
    log = json.loads(finished.experiment_log.read_text())["log_dict"]
    steps = list(read_steps(finished.steps))
    ids = load_from_disk(str(finished.train_set))["id"]
    for epoch in (1, 2):
        order = window_order(log["n_windows"], 42, epoch)
        trained = [i for step in steps if step.epoch == epoch for i in step.window_ids]
        assert trained == [ids[i] for i in order]
        assert log["order_digests"][str(epoch)] == order_digest(order)
    exposure = pq.read_table(finished.exposure).to_pylist()
    assert len(exposure) == 39
    assert all(row["labels_trained"] == 2 * row["labels_once"] > 0 for row in exposure)


def test_the_same_seed_gives_the_same_bits_whatever_is_asked_meanwhile(train_once):
    plain = final_weights(train_once(**FAST))
    asked = final_weights(train_once())
    assert equal(plain, asked)
    assert not equal(plain, final_weights(train_once(**FAST, data_order_seed=43)))


def test_attention_is_on_record_and_changes_no_loss(train_once):
    runs = {
        attention: train_once(attention=attention, epochs_per_eval=None, n_loss_documents=0)
        for attention in ("auto", "dense")
    }
    logs = {name: json.loads(run.experiment_log.read_text()) for name, run in runs.items()}
    assert [log["args"]["attention"] for log in logs.values()] == ["auto", "dense"]
    assert [log["log_dict"]["attention"] for log in logs.values()] == ["padded", "dense"]
    assert [log["log_dict"]["compiled"] for log in logs.values()] == [False, False]
    assert "attention: padded" in runs["auto"].text_log.read_text()
    losses = [[step.loss for step in read_steps(run.steps)] for run in runs.values()]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    # The untouched model is asked with transformers' own attention either way.
    first = [run.read_records("start") for run in runs.values()]
    assert first[0] == first[1]


def test_the_earlier_treatment_runs_and_says_how_it_differs(train_once):
    run = train_once(**FAST, compat="earlier")
    assert "as the earlier system treated them" in run.text_log.read_text()
    first = next(iter(read_steps(run.steps)))
    assert first.learning_rate == 0
    log = json.loads(run.experiment_log.read_text())["log_dict"]
    assert log["differences_from_earlier_treatment"] == []
    ours = train_once(**FAST)
    assert "unlike the earlier system: packing=masked" in ours.text_log.read_text()


@pytest.mark.slow
def test_a_profile_lies_in_the_run(train_once):
    run = train_once(**FAST, max_steps=5, profile=True)
    assert "seconds an update" in (run.profile / "table.txt").read_text()
    assert (run.profile / "trace.json.gz").exists()
    assert equal(final_weights(run), final_weights(train_once(**FAST, max_steps=5)))


def test_every_packing_and_burn_in_run(train_once):
    for packing in ("separate", "concat"):
        run = train_once(**FAST, packing=packing, burn_in_epochs=0.2)
        steps = run.steps.read_text().splitlines()
        assert json.loads(steps[0])["burn_in"]
        assert not json.loads(steps[-1])["burn_in"]
        assert not (run.path / "train_set_documents").exists()


def options(sample, **changes):
    return TrainingArgs(
        structured_dataset=sample, model="olmo2-tiny", n_pretraining_examples=6, **changes
    )


def test_all_faults_before_anything_starts(sample, tmp_path):
    with pytest.raises(UsageError) as error:
        prepare(TrainingArgs(structured_dataset=tmp_path / "none.json", model="./nowhere"))
    assert "none.json" in str(error.value)
    assert "./nowhere" in str(error.value)
    with pytest.raises(UsageError, match="holds 6 pretraining documents"):
        prepare(options(sample).model_copy(update={"n_pretraining_examples": 7}))
    with pytest.raises(UsageError, match="batch_size 500 is larger than the data set's"):
        prepare(options(sample, batch_size=500, chunk_size=128))
    with pytest.raises(UsageError, match="longer than the 2048 positions"):
        prepare(options(sample, batch_size=1, chunk_size=4096))
    with pytest.raises(UsageError, match="began with abc"):
        prepare(options(sample, model_commit="abc"))


def test_too_little_disk_is_refused_with_both_figures(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setenv("LAUNCHER_HOST_FOLDER", str(tmp_path / "host"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5 * 10**9))
    check_disk(tmp_path, 10**9, "1 run")
    with pytest.raises(UsageError, match=r"5 runs will take 4\.7 TB, but only 5\.0 GB"):
        check_disk(tmp_path / "not" / "yet", int(4.7e12), "5 runs")
    # What another sweep counts on is not free.
    with reserve_disk(tmp_path, 3 * 10**9, "other runs"):
        check_disk(tmp_path, 10**9, "1 run")
        with pytest.raises(UsageError, match=r"but only 5\.0 GB are free .*, 3\.0 GB of them for"):
            check_disk(tmp_path, int(2.5e9), "2 runs")
    check_disk(tmp_path, int(2.5e9), "2 runs")


def test_a_document_that_was_not_trained_as_often_as_it_should_is_an_error(train_once, monkeypatch):
    from oocr_influence.cli import one_run
    from oocr_influence.cli.run_record import ExposureError

    plain = one_run.train

    def forgetful(*given, **named):
        exposures = plain(*given, **named)
        exposures[0] -= 1
        return exposures

    monkeypatch.setattr(one_run, "train", forgetful)
    with pytest.raises(ExposureError, match="not trained 1 times"):
        train_once(**FAST)


def test_runs_of_a_sweep_share_the_files_of_their_first_checkpoint(train_once):
    """Read-only names of the same bytes; another model's run has files of its own."""
    fast = {**FAST, "max_steps": 1}
    first, second = train_once(**fast), train_once(data_order_seed=43, **fast)
    other = train_once(precision="bf16", **fast)

    def inodes(run):
        return {p.name: p.stat().st_ino for p in run.checkpoint("start").iterdir()}

    assert inodes(first) == inodes(second)
    assert set(inodes(first).values()).isdisjoint(inodes(other).values())
    for path in second.checkpoint("start").iterdir():
        assert path.stat().st_mode & 0o222 == 0, path
    assert first.checkpoint("final").stat().st_ino != second.checkpoint("final").stat().st_ino
    AutoModelForCausalLM.from_pretrained(second.checkpoint("start"))
    assert "is another name of" in second.text_log.read_text(encoding="utf-8")
    shutil.rmtree(first.path)
    shipped = load_file(FOLDER / "model.safetensors")
    kept = load_file(second.checkpoint("start") / "model.safetensors")
    assert equal(kept, {name: tensor.float() for name, tensor in shipped.items()})
