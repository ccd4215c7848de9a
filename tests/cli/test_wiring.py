"""What a flag says is what the rooms get, and what a run writes down is what it did.

The rooms are replaced by recorders where the wiring alone is asked about: no model is trained then.
"""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import load_from_disk
from safetensors.torch import load_file

from oocr_influence.cli import data_modeling, one_run, preparation, run_asking, run_saving
from oocr_influence.cli.data_modeling import DataModelingArgs
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.preparation import prepare
from oocr_influence.datasets.document_dataset import load_structured_dataset
from oocr_influence.datasets.packing import IGNORED, pack, tokenize_documents
from oocr_influence.datasets.selection import select_documents
from oocr_influence.evaluation.evaluate import Evaluation, Evaluator
from oocr_influence.models import tiny
from oocr_influence.models.head import has_plain_head
from oocr_influence.models.load import weights_digest
from oocr_influence.models.loss import window_loss
from oocr_influence.models.resolve import ResolvedModel, resolve_model
from oocr_influence.models.tiny import tiny_tokenizer
from oocr_influence.training.loop import to_device
from oocr_influence.training.optimizer import OptimizerSettings
from oocr_influence.training.schedule import LearningRate, Schedule

pytestmark = pytest.mark.filterwarnings("ignore:.*more than once")
SPARE = {"epochs_per_eval": None, "epochs_per_save": None}
NOTHING = {
    **SPARE,
    "eval_first_step": False,
    "eval_final_step": False,
    "save_first_checkpoint": False,
    "save_final_checkpoint": False,
}


class Trained:
    """Stands in for train(): keeps what it was given, and makes every step's call without one."""

    def __init__(self):
        self.exposures = None
        self.look_at = lambda model, windows: None

    def __call__(self, model, windows, schedule, rate, settings, **named):
        self.model, self.windows, self.schedule = model, windows, schedule
        self.rate, self.settings, self.named = rate, settings, named
        self.look_at(model, windows)
        for step in range(schedule.total_steps + 1):
            named["after_step"](
                step, lambda step=step: {"in_training": True, "step": step, "model": {}}
            )
        if self.exposures is not None:
            return self.exposures(len(windows))
        return np.full(len(windows), int(schedule.epochs), dtype=np.int64)


@pytest.fixture
def trained(monkeypatch):
    recorder = Trained()
    monkeypatch.setattr(one_run, "train", recorder)
    return recorder


@pytest.fixture
def asked(monkeypatch):
    """Every evaluation of a run, none of which asks anything: its arguments and its scores."""
    calls = []

    def evaluate(
        self, model, *, beam_search=True, baseline=None, ranks="full", progress=None, team=None
    ):
        scores = f"scores {len(calls)}"
        calls.append(
            {
                "weights": weights_digest(model),
                "beam_search": beam_search,
                "baseline": baseline,
                "scores": scores,
            }
        )
        return Evaluation({}, [], scores, 0.0, "tree")

    monkeypatch.setattr(Evaluator, "evaluate", evaluate)
    monkeypatch.setattr(run_asking.UntouchedModel, "find", lambda self, **named: None)
    monkeypatch.setattr(run_asking.UntouchedModel, "keep", lambda self, *given, **named: None)
    return calls


@pytest.fixture
def loaded(monkeypatch):
    """Every model that a run loads, and how it asked for it."""
    calls = []
    plain = one_run.load_model

    def load(resolved, **named):
        calls.append((plain(resolved, **named), named))
        return calls[-1][0]

    monkeypatch.setattr(one_run, "load_model", load)
    return calls


def history(run):
    return json.loads(run.experiment_log.read_text())["history"]


def step_lines(run):
    return [json.loads(line) for line in run.steps.read_text().splitlines()]


# Flags on their way to the loop.

CONTROLLED = {
    **{
        name: ("settings", name, value)
        for name, value in {
            "weight_decay": 0.25,
            "beta1": 0.75,
            "beta2": 0.875,
            "eps": 1e-5,
            "max_grad_norm": 0.5,
            "z_loss": 0.125,
        }.items()
    },
    "learning_rate": ("rate", "peak", 2e-3),
    "warmup_proportion": ("rate", "warmup_proportion", 0.5),
    "warmup_steps": ("rate", "warmup_steps", 4),
    "lr_schedule": ("rate", "scheduler", "warmup_constant"),
    "zero_first_rate": ("rate", "zero_first_rate", True),
    "epochs": ("schedule", "epochs", 3.0),
    "max_steps": ("schedule", "max_steps", 2),
    "burn_in_epochs": ("schedule", "burn_in_epochs", 1.5),
    "drop_last": ("schedule", "drop_last", True),
    "cadence_rounding": ("schedule", "cadence_rounding", "up"),
    "batch_size": ("schedule", "batch_size", 4),
    "micro_batch_size": ("named", "micro_batch_size", 3),
    "data_order_seed": ("named", "data_order_seed", 99),
}


@pytest.mark.parametrize("flag", CONTROLLED)
def test_a_flag_changes_its_own_field_of_what_the_loop_gets_and_no_other(train_once, trained, flag):
    place, field, value = CONTROLLED[flag]
    train_once(**NOTHING, **{flag: value})
    n_windows = len(trained.windows)
    expected = {
        "settings": OptimizerSettings(),
        "schedule": Schedule(n_windows=n_windows, batch_size=8, epochs=1),
        "named": {"micro_batch_size": 8, "data_order_seed": 42},
    }
    if place == "named":
        expected["named"][field] = value
    elif place in expected:
        expected[place] = replace(expected[place], **{field: value})
    expected["rate"] = LearningRate(peak=1e-3, total_steps=expected["schedule"].total_steps)
    if place == "rate":
        expected["rate"] = replace(expected["rate"], **{field: value})
    assert trained.settings == expected["settings"]
    assert trained.schedule == expected["schedule"]
    assert trained.rate == expected["rate"]
    assert {name: trained.named[name] for name in expected["named"]} == expected["named"]


@pytest.mark.parametrize("switched_on", [False, True])
def test_gradient_checkpointing_computes_the_layers_again(train_once, trained, switched_on):
    forwards = []

    def look_at(model, windows):
        model.train()
        assert has_plain_head(model)  # asked by two forward passes of its own, once
        model.model.layers[0].mlp.register_forward_hook(lambda *given: forwards.append(1))
        loss, _ = window_loss(model, to_device(windows, [0], model.device))
        loss.backward()

    trained.look_at = look_at
    train_once(**NOTHING, gradient_checkpointing=switched_on)
    assert len(forwards) == 1 + switched_on


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_precision_reaches_the_model(train_once, trained, loaded, precision, dtype):
    train_once(**NOTHING, precision=precision)
    ((model, named),) = loaded
    assert named["precision"] == precision
    assert trained.model is model
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


@pytest.mark.parametrize(
    ("flags", "evaluations", "checkpoints"),
    [
        ({"steps_per_eval": 2}, ["e1_s2", "e1_s4"], []),
        ({"steps_per_save": 2}, [], ["e1_s2", "e1_s4"]),
        ({"epochs_per_eval": 0.5}, ["e1_s3"], []),
        ({"epochs_per_save": 0.5}, [], ["e1_s3"]),
        ({"epochs_per_eval": 0.4, "steps_per_save": 3}, ["e1_s2", "e1_s4"], ["e1_s3"]),
    ],
)
def test_each_cadence_has_its_own_flags(
    train_once, trained, asked, monkeypatch, flags, evaluations, checkpoints
):
    monkeypatch.setattr(run_saving, "save_checkpoint", lambda model, tokenizer, folder: None)
    run = train_once(**{**SPARE, **flags})
    assert trained.schedule.total_steps == 5
    assert run.evaluations() == ["start", *evaluations, "final"]
    assert run.checkpoints() == ["start", *checkpoints, "final"]


def test_each_end_has_its_own_flags(train_once, trained, asked, monkeypatch):
    monkeypatch.setattr(run_saving, "save_checkpoint", lambda model, tokenizer, folder: None)
    for flag, evaluations, checkpoints in (
        ("eval_first_step", ["final"], ["start", "final"]),
        ("eval_final_step", ["start"], ["start", "final"]),
        ("save_first_checkpoint", ["start", "final"], ["final"]),
        ("save_final_checkpoint", ["start", "final"], ["start"]),
    ):
        run = train_once(**SPARE, **{flag: False})
        assert (run.evaluations(), run.checkpoints()) == (evaluations, checkpoints), flag


# Flags on their way to the documents and windows.

PACKED = {
    "n_pretraining_examples": 3,
    "seed": 41,
    "packing_seed": 0,
    "document_order": "shuffled",
    "chunk_size": 128,
    "packing": "masked",
    "overlap_cuts": True,
    "drop_last": False,
}


def windows_of(sample, *, chunk_size, packing, overlap_cuts, drop_last, **selected):
    """The windows that the rooms make of these values, without the command line."""
    tokenizer = tiny_tokenizer()
    documents = select_documents(load_structured_dataset(sample), **selected)
    return pack(
        tokenize_documents([document.text for document in documents], tokenizer, packing),
        chunk_size=chunk_size,
        packing=packing,
        pad_id=tokenizer.pad_token_id,
        overlap_cuts=overlap_cuts,
        drop_last=drop_last,
    )


@pytest.mark.parametrize(
    ("before", "change"),
    [
        ({}, {"n_pretraining_examples": 4}),
        ({}, {"n_pretraining_examples": None}),
        ({}, {"seed": 7}),
        ({}, {"packing_seed": 7}),
        ({}, {"document_order": "file"}),
        ({}, {"chunk_size": 96}),
        ({"chunk_size": 512}, {"packing": "separate"}),
        ({}, {"packing": "concat"}),
        ({"packing": "concat"}, {"overlap_cuts": False}),
        ({"packing": "concat"}, {"drop_last": True}),
    ],
)
def test_a_flag_of_the_data_changes_the_windows_as_it_should(sample, before, change):
    def packed(values):
        args = TrainingArgs(structured_dataset=sample, model="olmo2-tiny", batch_size=1, **values)
        digest = prepare(args).windows.digest()
        assert digest == windows_of(sample, **values).digest()
        return digest

    assert packed({**PACKED, **before}) != packed({**PACKED, **before, **change})


@pytest.mark.parametrize("local_only", [False, True])
def test_the_model_is_asked_for_as_stated(sample, monkeypatch, local_only):
    calls = []

    def resolve(name, revision=None, *, local_only=False, weights=True):
        calls.append((name, revision, local_only))
        return resolve_model("olmo2-tiny")

    monkeypatch.setattr(preparation, "resolve_model", resolve)
    prepare(
        TrainingArgs(
            structured_dataset=sample,
            model="some/model",
            revision="step7",
            force_local_model_cache=local_only,
            n_pretraining_examples=0,
            chunk_size=128,
        )
    )
    assert calls == [("some/model", "step7", local_only)]


# What is written down, and when.


def test_weights_are_saved_and_asked_after_the_update_that_names_them(train_once, asked, loaded):
    run = train_once(**SPARE, steps_per_eval=1, steps_per_save=1, max_steps=3)
    ((model, _),) = loaded
    names = ["start", "e1_s1", "e1_s2", "final"]
    assert run.checkpoints() == run.evaluations() == names
    saved = [load_file(run.checkpoint(name) / "model.safetensors") for name in names]
    weights = model.state_dict()
    assert saved[-1].keys() == weights.keys()
    for name, tensor in weights.items():
        assert torch.equal(saved[-1][name], tensor), f"checkpoint_final is not the model: {name}"
    untouched = one_run.load_model(resolve_model("olmo2-tiny"), precision="fp32")
    for name, tensor in untouched.state_dict().items():
        assert torch.equal(saved[0][name], tensor), f"checkpoint_start is not untouched: {name}"
    digests = []
    for tensors in saved:
        model.load_state_dict(tensors)
        digests.append(weights_digest(model))
    assert len(set(digests)) == len(names), "two checkpoints hold the same weights"
    assert [call["weights"] for call in asked] == digests


@pytest.mark.parametrize("packing", ["masked", "concat"])
def test_exposure_names_the_right_documents(train_once, trained, packing):
    # A different count for each window: a mixed-up document cannot get its own by chance.
    trained.exposures = lambda n: np.arange(1, n + 1) ** 2
    run = train_once(**NOTHING, packing=packing, max_steps=3)
    once, times = Counter(), Counter()
    for window, row in enumerate(load_from_disk(str(run.train_set))):
        for span in row["packed_documents"]:
            labels = row["labels"][span["span_start"] : span["span_end"]]
            labelled = sum(label != IGNORED for label in labels)
            once[span["id"], span["occurrence"]] += labelled
            times[span["id"], span["occurrence"]] += labelled * (window + 1) ** 2
    rows = {(row["id"], row["occurrence"]): row for row in pq.read_table(run.exposure).to_pylist()}
    assert len(rows) == 39
    assert {key: row["labels_once"] for key, row in rows.items()} == once
    assert {key: row["labels_trained"] for key, row in rows.items()} == times
    if packing == "masked":
        # Text and EOS of each document, from its text alone.
        tokenizer, seen = tiny_tokenizer(), Counter()
        for document in load_structured_dataset(run_dataset(run)).document_dataset.docs:
            text = document.prompt + document.completion
            length = len(tokenizer(text, add_special_tokens=False)["input_ids"]) + 1
            assert rows[document.id, seen[document.id]]["labels_once"] == length
            seen[document.id] += 1


def run_dataset(run):
    return json.loads(run.experiment_log.read_text())["args"]["structured_dataset"]


@pytest.mark.parametrize(
    ("beam_search", "expected"),
    [
        ("every", [True, True, True, True]),
        ("final", [False, False, False, True]),
        ("never", [False, False, False, False]),
    ],
)
def test_beam_search_runs_when_it_is_asked_for(train_once, trained, asked, beam_search, expected):
    run = train_once(
        **NOTHING
        | {"eval_first_step": True, "eval_final_step": True}
        | {"steps_per_eval": 2, "beam_search": beam_search}
    )
    assert run.evaluations() == ["start", "e1_s2", "e1_s4", "final"]
    assert [call["beam_search"] for call in asked] == expected


def test_later_evaluations_are_compared_with_the_untouched_model(train_once, trained, asked):
    flags = {**NOTHING, "eval_final_step": True, "steps_per_eval": 2}
    train_once(**{**flags, "eval_first_step": True})
    assert [call["baseline"] for call in asked] == [None, *["scores 0"] * 3]
    asked.clear()
    train_once(**flags)
    assert [call["baseline"] for call in asked] == [None] * 3


def test_the_log_tells_the_step_just_made_and_burn_in_has_an_order_of_its_own(train_once, asked):
    limit = 0.25
    flags = {**NOTHING, "eval_first_step": True, "eval_final_step": True, "steps_per_eval": 1}
    run = train_once(**flags, burn_in_epochs=1, max_grad_norm=limit)
    lines = step_lines(run)
    steps = {line["step"]: line for line in lines if not line["burn_in"]}
    start, *entries = history(run)
    assert (start["step_num"], start["train_loss"], start["global_grad_norm"]) == (0, None, None)
    assert [entry["step_num"] for entry in entries] == list(steps)
    assert len({line["loss"] for line in steps.values()}) == len(steps)
    for entry in entries:
        line = steps[entry["step_num"]]
        assert entry["train_loss"] == line["loss"]
        assert entry["global_grad_norm"] == line["grad_norm"]
    for line in lines:
        assert line["clip_factor"] == pytest.approx(min(1, limit / (line["grad_norm"] + 1e-6)))
    assert any(line["clip_factor"] < 0.9 for line in lines), "nothing was clipped"
    orders = {
        burn_in: [
            window for line in lines if line["burn_in"] == burn_in for window in line["windows"]
        ]
        for burn_in in (True, False)
    }
    assert sorted(orders[True]) == sorted(orders[False]) == list(range(len(orders[True])))
    assert orders[True] != orders[False], "burn-in repeats the order of the first epoch"
    assert all(line["learning_rate"] == 0 for line in lines if line["burn_in"])


# A sweep's jobs.


def test_the_jobs_of_a_sweep_carry_what_was_settled(sample, tmp_path, monkeypatch, capsys):
    commit = "c0ffee" * 6 + "beef"
    monkeypatch.setattr(
        preparation,
        "resolve_model",
        lambda *given, **named: ResolvedModel("olmo2-tiny", None, tiny.FOLDER, commit),
    )
    args = DataModelingArgs(
        dataset_builder_path=sample,
        output_dir=tmp_path / "outputs",
        experiment_name="sweep",
        model="olmo2-tiny",
        chunk_size=128,
        runs_per_dataset_all_docs=3,
        burnin_epochs=0.5,
        all_docs_steps_per_eval=2,
        all_docs_steps_per_save=3,
        all_docs_epochs_per_eval=0.25,
        all_docs_epochs_per_save=0.75,
        all_docs_save_first_checkpoint=False,
        seed=5,
        packing_seed=6,
    )
    with pytest.warns(UserWarning, match="more than the 6"):
        runs, prepared = data_modeling.plan(args)
    experiment = data_modeling.start(args, runs, prepared)
    specs = [
        json.loads((folder / "spec.json").read_text()) for folder in experiment.folder.job_folders()
    ]
    jobs = sorted((spec["args"] for spec in specs), key=lambda job: job["data_order_seed"])
    assert [job["data_order_seed"] for job in jobs] == [42, 43, 44]
    for job in jobs:
        expected = {
            "model_commit": commit,
            "n_pretraining_examples": 6,
            "sweep_id": experiment.folder.name,
            "structured_dataset": str(experiment.folder.structured_dataset),
            "output_dir": str(experiment.folder.all_docs_runs),
            "burn_in_epochs": 0.5,
            "steps_per_eval": 2,
            "steps_per_save": 3,
            "epochs_per_eval": 0.25,
            "epochs_per_save": 0.75,
            "eval_first_step": True,
            "save_first_checkpoint": False,
            "save_final_checkpoint": True,
            "seed": 5,
            "packing_seed": 6,
        }
        assert {name: job[name] for name in expected} == expected
    # Another commit is refused: a job trains what was planned or nothing.
    moved = ResolvedModel("olmo2-tiny", None, tiny.FOLDER, "0" * 40)
    monkeypatch.setattr(preparation, "resolve_model", lambda *given, **named: moved)
    with pytest.raises(preparation.UsageError, match="began with c0ffee"):
        prepare(TrainingArgs(**jobs[0]))


def test_a_sweep_keeps_the_stated_number_of_pretraining_documents(sample, tmp_path):
    stated = DataModelingArgs(
        dataset_builder_path=sample,
        output_dir=tmp_path,
        model="olmo2-tiny",
        chunk_size=128,
        n_pretraining_examples=4,
        all_docs_data_order_seed=50,
        runs_per_dataset_all_docs=2,
    )
    runs, _ = data_modeling.plan(stated)
    assert [run.data_order_seed for run in runs] == [50, 51]
    assert [run.n_pretraining_examples for run in runs] == [4, 4]
