"""The untouched model is asked once; a run that takes its answers over is as if it had asked."""

import json
import shutil
import subprocess
import sys
import textwrap

import pyarrow.parquet as pq
import pytest
import torch

from oocr_influence.cli import run_asking
from oocr_influence.cli.untouched import UntouchedModel
from oocr_influence.cli.verify import dataset_of, expected_of
from oocr_influence.evaluation.scores import Scores
from oocr_influence.models.load import load_model, weights_digest
from oocr_influence.models.resolve import resolve_model
from oocr_influence.results.cache import Cache
from oocr_influence.results.experiment_log import read_experiment_log
from oocr_influence.results.verification import verify_run

pytestmark = pytest.mark.filterwarnings("ignore:.*more than once")
BRIEF = {"max_steps": 2, "epochs_per_eval": None, "epochs_per_save": None, "beam_search": "every"}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """An empty cache for each test."""
    monkeypatch.setenv("OOCR_CACHE", str(tmp_path / "cache"))
    return Cache.default()


@pytest.fixture
def passes(monkeypatch):
    """Forward passes of the model at step 0 of each run that was made."""
    counts = []
    plain = run_asking.RunAsking.after_step

    def evaluate(self, step):
        seen = []
        hook = self._model.get_decoder().register_forward_hook(lambda *_: seen.append(1))
        plain(self, step)
        hook.remove()
        counts.extend([] if step else [len(seen)])

    monkeypatch.setattr(run_asking.RunAsking, "after_step", evaluate)
    return counts


def told(run):
    return read_experiment_log(run.experiment_log).log_dict.get("evaluation_from_cache")


def history(run):
    return json.loads(run.experiment_log.read_text())["history"]


def test_a_second_run_asks_nothing_and_has_what_it_would_have_had(train_once, passes):
    first = train_once(**BRIEF)
    second = train_once(**BRIEF, data_order_seed=7)
    asked = train_once(**BRIEF, data_order_seed=7, eval_cache=False)
    assert passes[0] == passes[2] > 0
    assert passes[1] == 0
    assert told(first) is told(asked) is None
    own, taken = asked.read_evaluation("start"), second.read_evaluation("start")
    assert taken.eval_sets == own.eval_sets
    assert taken.document_losses == own.document_losses
    for name in ("start", "final"):  # the baseline of later ones too
        assert second.read_records(name).equals(asked.read_records(name))
    assert second.read_evaluation("final").eval_sets == asked.read_evaluation("final").eval_sets
    one, other = history(second)[0], history(asked)[0]
    for name, means in one["eval_results"].items():
        for record, expected in zip(
            means["records"], other["eval_results"][name]["records"], strict=True
        ):
            assert expected.items() <= record.items()
            assert type(record["accuracy"]) is type(expected["accuracy"])


def test_the_record_says_where_it_came_from_and_how_long_it_took_then(train_once):
    first, second = train_once(**BRIEF), train_once(**BRIEF, data_order_seed=7)
    assert told(second)["name"] == "start"
    assert told(second)["run"] == str(first.path)
    assert told(second)["seconds"] == first.read_evaluation("start").eval_seconds
    assert second.read_evaluation("start").eval_seconds == told(second)["seconds"]
    assert history(second)[0]["eval_time"] == history(first)[0]["eval_time"]


def test_runs_share_the_bytes_and_each_may_go(train_once, cache):
    first, second = train_once(**BRIEF), train_once(**BRIEF, data_order_seed=7)
    assert second.records("start").samefile(first.records("start"))
    assert second.evaluation("start").samefile(first.evaluation("start"))
    shutil.rmtree(first.path)
    report = verify_run(second, expected_of, dataset_of(second))
    assert [f.what for f in report.findings if f.severity == "error"] == []
    third = train_once(**BRIEF, data_order_seed=8)
    assert told(third) is not None
    # Replacing a run's file leaves the others'.
    content = second.evaluation("start").read_bytes()
    third.write_evaluation(
        "start",
        step_num=0,
        epoch_num=0.0,
        eval_seconds=0.0,
        eval_sets={"s": {"n": 1}},
        records=[{"set": "s"}],
    )
    assert second.evaluation("start").read_bytes() == content
    assert cache.find("evaluations", next(cache.root.glob("evaluations/*/")).name) is not None


@pytest.mark.slow
@pytest.mark.parametrize("what", ["means.json", "records.parquet", "scores.npz"])
def test_a_tampered_entry_is_asked_anew(train_once, passes, cache, what):
    train_once(**BRIEF)
    [path] = cache.root.glob(f"*/*/{what}")
    content = bytearray(path.read_bytes())
    path.unlink()  # a run's file is another name of it
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    again = train_once(**BRIEF, data_order_seed=7)
    assert passes[0] == passes[1] > 0
    assert told(again) is None
    assert told(train_once(**BRIEF, data_order_seed=8)) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bf16"},
        {"beam_search": "never"},
        {"n_loss_documents": 1},
    ],
)
def test_another_question_is_asked(train_once, passes, changes):
    train_once(**BRIEF)
    assert told(train_once(**{**BRIEF, **changes})) is None
    assert all(passes)


def test_scores_are_those_of_one_model_suite_and_precision_alone(cache):
    def kept(model, **changes):
        return UntouchedModel(
            cache, model, **{"weights": weights_digest(model), "suite": "suite", **changes}
        ).scores()

    resolved = resolve_model("olmo2-tiny")
    model = load_model(resolved, precision="fp32", device=torch.device("cpu"))
    numbers = torch.zeros(3).numpy()
    scores = Scores("plan", numbers, numbers.astype(bool), numbers)
    UntouchedModel(cache, model, weights=weights_digest(model), suite="suite").keep_scores(scores)
    assert kept(model).plan_digest == "plan"
    assert kept(model, suite="another") is None
    assert kept(load_model(resolved, precision="bf16", device=torch.device("cpu"))) is None
    model.config.rms_norm_eps = 1e-3
    assert kept(model) is None
    model = load_model(resolved, precision="fp32", device=torch.device("cpu"))
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)
    assert kept(model) is None


@pytest.mark.slow
def test_two_runs_at_once_ask_once(tmp_path, sample):
    code = textwrap.dedent("""
        import sys, warnings
        from pathlib import Path
        import torch
        from oocr_influence.cli import one_run, run_asking
        from oocr_influence.cli.options import TrainingArgs
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        plain = run_asking.RunAsking._ask
        def ask(self, step, name):
            if not step:
                with open(sys.argv[2], "a") as file:
                    file.write("asked\\n")
            return plain(self, step, name)
        run_asking.RunAsking._ask = ask
        print(one_run.run_once(TrainingArgs(
            structured_dataset=sys.argv[1], output_dir=sys.argv[3], model="olmo2-tiny",
            n_pretraining_examples=6, chunk_size=128, micro_batch_size=8, max_steps=1,
            epochs_per_save=None, epochs_per_eval=None, data_order_seed=int(sys.argv[4]),
        ))["run"])
    """)
    paths = [str(sample), str(tmp_path / "log"), str(tmp_path / "runs")]
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", code, *paths, str(seed)], stdout=subprocess.PIPE, text=True
        )
        for seed in (1, 2)
    ]
    runs = [job.communicate(timeout=240)[0].strip() for job in jobs]
    assert all(runs)
    assert (tmp_path / "log").read_text() == "asked\n"
    tables = [pq.read_table(f"{run}/eval_results/records_start.parquet") for run in runs]
    assert tables[0].equals(tables[1])
