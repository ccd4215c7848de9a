"""The command line: forms that flags may take, and one message for all that is wrong."""

import json
import subprocess
import sys

import pytest
from pydantic import Field

from oocr_influence.cli.arguments import CommandArguments, UsageError, help_text, parse
from oocr_influence.cli.data_modeling import DataModelingArgs
from oocr_influence.cli.options import EARLIER_TREATMENT, TrainingArgs
from oocr_influence.datasets.subsets import Design


class Arguments(CommandArguments):
    """Arguments of all shapes."""

    epochs: float = Field(1, gt=0, description="passes over the data (epochs)")
    name: str = "a"
    limit: int | None = 5
    save_it: bool = True
    facts: list[str] | None = None
    json_: str | None = None
    paths: list[str] = Field([], json_schema_extra={"positional": True})


def given(line):
    return parse(Arguments, line.split()).model_dump(exclude_defaults=True)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--epochs 2 --name=b", {"epochs": 2, "name": "b"}),
        ("--limit None", {"limit": None}),
        ("--no-save_it", {"save_it": False}),
        ("--no_save-it", {"save_it": False}),
        ("--save-it False", {"save_it": False}),
        ("--save_it", {}),
        ("--facts a,b", {"facts": ["a", "b"]}),
        ("--facts a b --epochs 3", {"facts": ["a", "b"], "epochs": 3}),
        ("--facts a --facts b", {"facts": ["a", "b"]}),
        ('--facts ["a","b,c"]', {"facts": ["a", "b,c"]}),
        ("--facts None", {}),
        ("x y --name b z", {"paths": ["x", "y", "z"], "name": "b"}),
        ("--limit -3", {"limit": -3}),
        ("--save_it x", {"paths": ["x"]}),
        ("--save_it no x", {"save_it": False, "paths": ["x"]}),
        ("--json x y", {"json_": "x", "paths": ["y"]}),
    ],
)
def test_forms_of_flags(line, expected):
    assert given(line) == expected


def test_a_flag_whose_name_models_need_themselves_is_written_plainly(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({"json": "x"}))
    assert parse(Arguments, ["--config", str(tmp_path / "c.json")]).json_ == "x"
    assert "--json  (text or None" in help_text(Arguments, "")
    with pytest.raises(UsageError, match=r"did you mean --json\?"):
        parse(Arguments, ["--jsn", "x"])


def test_such_a_flag_may_be_a_switch():
    class Switched(CommandArguments):
        json_: bool = True

    assert parse(Switched, ["--no-json"]).json_ is False
    assert "\n--json / --no-json  (bool" in help_text(Switched, "")


def test_all_faults_in_one_message_with_the_nearest_flag():
    with pytest.raises(UsageError) as error:
        parse(Arguments, "--epoch 3 --limit many --epochs 0 --save_it=maybe".split())
    lines = str(error.value).split("\n")
    assert len(lines) == 4
    assert "did you mean --epochs?" in lines[0]
    for flag in ("--epochs '0'", "--limit 'many'", "--save_it 'maybe'"):
        assert any(flag in line for line in lines)


def test_the_environment_is_never_read(monkeypatch):
    monkeypatch.setenv("EPOCHS", "7")
    monkeypatch.setenv("epochs", "7")
    assert parse(Arguments, []).epochs == 1


def test_flags_override_the_config_file(tmp_path):
    (tmp_path / "c.yaml").write_text("epochs: 3\nfacts: [x]\nsave-it: false\n")
    found = parse(Arguments, ["--config", str(tmp_path / "c.yaml"), "--epochs", "4"])
    assert (found.epochs, found.facts, found.save_it) == (4, ["x"], False)
    (tmp_path / "c.json").write_text(json.dumps({"epoch": 3}))
    with pytest.raises(UsageError, match="did you mean --epochs"):
        parse(Arguments, ["--config", str(tmp_path / "c.json")])
    with pytest.raises(UsageError, match="No such file"):
        parse(Arguments, ["--config", str(tmp_path / "none.yaml")])


def test_a_word_without_a_flag_and_a_missing_one():
    with pytest.raises(UsageError, match="'stray' belongs to no flag"):
        parse(TrainingArgs, ["stray", "--structured_dataset", "x"])
    with pytest.raises(UsageError, match="--structured_dataset is missing"):
        parse(TrainingArgs, [])


@pytest.mark.parametrize("arguments", [TrainingArgs, DataModelingArgs])
def test_help_explains_every_flag(arguments):
    text = help_text(arguments, "what it does")
    for name, field in arguments.model_fields.items():
        assert f"--{name}" in text
        assert field.description, name
    assert "default 0.0001" in text


def test_the_seeds_defaults():
    args = parse(DataModelingArgs, ["--dataset_builder_path", "x.json"])
    run, *others = args.runs()
    assert run.model == "allenai/OLMo-2-1124-7B"
    assert run.revision == "stage1-step928646-tokens3896B"
    expected = {
        "learning_rate": 1e-4,
        "batch_size": 8,
        "micro_batch_size": 1,
        "weight_decay": 0,
        "warmup_proportion": 0.1,
        "burn_in_epochs": 0,
        "epochs": 1,
        "eval_first_step": True,
        "epochs_per_eval": 0.2,
        "epochs_per_save": 0.2,
        "save_final_checkpoint": True,
        "n_pretraining_examples": 1000,
        "seed": 41,
        "packing": "masked",
        "chunk_size": 2048,
    }
    assert {name: getattr(run, name) for name in expected} == expected
    assert [r.data_order_seed for r in [run, *others]] == [42, 43, 44, 45, 46]


def test_the_pinned_revision_is_the_default_models_alone():
    line = ["--dataset_builder_path", "x.json", "--model", "olmo2-tiny"]
    assert parse(DataModelingArgs, line).revision is None
    assert parse(DataModelingArgs, [*line, "--revision", "r"]).runs()[0].revision == "r"
    plain = parse(DataModelingArgs, ["--dataset_builder_path", "x", "--revision", "None"])
    assert plain.revision is None


def test_compat_earlier_is_a_switch_whose_parts_are_flags():
    line = ["--structured_dataset", "x.json", "--compat", "earlier"]
    args = parse(TrainingArgs, line)
    assert {name: getattr(args, name) for name in EARLIER_TREATMENT} == EARLIER_TREATMENT
    assert len(args.differences_from_earlier_treatment()) == 0
    kept = parse(TrainingArgs, [*line, "--no-drop_last"])
    assert not kept.drop_last
    assert kept.packing == "concat"
    # As a job reads it back from its spec.
    assert TrainingArgs.model_validate(kept.model_dump(mode="json")) == kept


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--logging_type wanbd", "no wanbd here; choose among disk, stdout, wandb, tensorboard"),
        ("--execution_mode kubernetes", "kubernetes mode is not here"),
        ("--n_datasets_test 200 --just_train_all_docs", "trains on no subsets"),
        ("--runs_per_dataset_all_docs 0", "nothing to run"),
        ("--epochs inf", "finite number"),
        ("--wandb_project x", "--wandb_project goes with --logging_type wandb"),
        ("--force_git_repo_has_sweep", "--force_git_repo_has_sweep"),
        ("--experiment_name ../x", "--experiment_name"),
        (f"--experiment_name {'n' * 161}", "161 bytes"),
        ("--no-overlap_cuts", "--packing concat"),
    ],
)
def test_flags_of_the_earlier_system_parse_or_are_refused_by_name(flags, message):
    with pytest.raises(UsageError, match=message):
        parse(DataModelingArgs, ["--dataset_builder_path", "x.json", *flags.split()])


def test_flags_of_the_earlier_system_that_mean_the_same():
    line = (
        "--dataset_builder_path x.json --just_train_all_docs True --n_datasets_train 0 "
        "--n_datasets_test 0 --runs_per_dataset_test 0 --docs_per_run 300 --sampling_k 1 "
        "--active_facts None --lr_schedule warmup_constent --logging_type disk "
        "--logging_type_sweep_workers disk --burnin_epochs 1 --all_docs_data_order_seed 7"
    )
    args = parse(DataModelingArgs, line.split())
    assert args.lr_schedule == "warmup_constant"
    assert args.runs()[0].burn_in_epochs == 1
    assert args.runs()[1].data_order_seed == 8
    assert args.subsets_of("train") == args.subsets_of("test") == 0


def test_flags_of_runs_on_subsets_are_theirs_alone():
    line = (
        "--dataset_builder_path x.json --n_datasets_train 100 --runs_per_dataset_train 20 "
        "--n_datasets_test 40 --runs_per_dataset_test 0 --docs_per_run 50 --sampling_k 5 "
        "--active_facts a,b --epochs_per_eval 0.5 --save_final_checkpoint --burnin_epochs 1"
    )
    args = parse(DataModelingArgs, line.split())
    assert (args.subsets_of("train"), args.subsets_of("test")) == (100, 0)
    assert args.design() == Design("random", docs_per_run=50, k=5, active_facts=["a", "b"])
    of_subset, on_all = args.subset_run(), args.runs()[0]
    assert (of_subset.epochs_per_eval, on_all.epochs_per_eval) == (0.5, 0.2)
    assert (of_subset.eval_first_step, on_all.eval_first_step) == (False, True)
    assert (of_subset.save_final_checkpoint, of_subset.save_first_checkpoint) == (True, False)
    assert (of_subset.eval_metrics, on_all.eval_metrics) == (["accuracy_and_loss"], None)
    assert (of_subset.n_loss_documents, on_all.n_loss_documents) == (0, 64)
    assert of_subset.burn_in_epochs == on_all.burn_in_epochs == 1
    assert not of_subset.save_datasets
    assert on_all.save_datasets
    assert not of_subset.save_state  # no checkpoint beside which it would lie


@pytest.mark.parametrize("words", [["--help"], ["data-modeling", "--help"], []])
def test_the_console_command_helps(words):
    done = subprocess.run(
        [sys.executable, "-m", "oocr_influence.cli.main", *words], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "data_modeling" in done.stdout or "--dataset_builder_path" in done.stdout


def test_an_unknown_command_names_the_known_ones():
    done = subprocess.run(
        [sys.executable, "-m", "oocr_influence.cli.main", "trian"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "train_extractive" in done.stderr


def test_only_how_it_is_run_may_be_said_with_resume():
    assert parse(DataModelingArgs, ["--resume", "x", "--max_workers", "1"]).max_workers == 1
    with pytest.raises(UsageError, match="--epochs, --seed: with --resume an experiment goes on"):
        parse(DataModelingArgs, ["--resume", "x", "--epochs", "3", "--seed", "1"])
