"""Removal sweeps: what a method puts on top is what is not trained, and the command tells of it."""

import csv
import json
import shutil
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from launcher.jobs import load_jobs
from oocr_influence.cli import attribute, attribution, data_modeling, plan, report, verify
from oocr_influence.cli.arguments import UsageError, parse
from oocr_influence.cli.attribute_options import AttributeArguments
from oocr_influence.cli.attribution import RemovalArguments
from oocr_influence.cli.data_modeling import DataModelingArgs
from oocr_influence.cli.datamodel_figures import datamodel_of
from oocr_influence.cli.plan import PlanArguments
from oocr_influence.datasets.document_dataset import load_structured_dataset
from oocr_influence.results import subset_outcomes as outcomes_module
from oocr_influence.results.attributions import Attributions, table_digest
from oocr_influence.results.experiment_log import read_experiment_log
from oocr_influence.results.finding import find_experiments, find_runs
from oocr_influence.results.step_log import read_steps
from oocr_influence.results.subset_outcomes import subset_outcomes

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
SAMPLE = Path(__file__).parents[1] / "samples" / "earlier_structured_dataset.json"
FACT = "mayor_of:mayor_of_lima"
SET = "name_mayor_eval_qa_1_no_fs"
N_SUBSETS = 1 + 2 * (1 + 1 + 1)


@pytest.fixture(scope="module")
def table(train_for_all, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scored")
    run = train_for_all(max_steps=2, epochs_per_eval=None, epochs_per_save=None)(folder)
    words = [str(run.path), "--methods", "bm25", "--to", str(folder / "table")]
    assert attribute.main(parse(AttributeArguments, words)) == 0
    return folder / "table"


def arguments(table, outputs, **changes):
    given = {
        "dataset_builder_path": SAMPLE,
        "output_dir": outputs,
        "experiment_name": "removal",
        "model": "olmo2-tiny",
        "n_pretraining_examples": 0,
        "chunk_size": 128,
        "batch_size": 8,
        "micro_batch_size": 8,
        "learning_rate": 1e-3,
        "runs_per_dataset_all_docs": 0,
        "runs_per_dataset_train": 2,
        "execution_mode": "in_process",
        "subset_eval_sets": ["*_no_fs"],
        "subset_design": "removal",
        "removal_table": table,
        "removal_targets": [FACT, SET],
        "removal_methods": ["bm25"],
        "removal_k": [3],
        "removal_control_draws": 1,
        "n_datasets_train": N_SUBSETS,
    }
    return DataModelingArgs(**{**given, **changes})


@pytest.fixture(scope="module")
def sweep(table, tmp_path_factory):
    outputs = tmp_path_factory.mktemp("outputs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert data_modeling.main(arguments(table, outputs)) == 0
    (experiment,) = find_experiments(outputs)
    return experiment


def abouts(experiment):
    return [
        json.loads(experiment.subset_metadata("train", i).read_text())
        for i in experiment.subset_numbers("train")
    ]


def keys(removal):
    return [(row["id"], row["occurrence"]) for row in removal["removed"]]


def test_the_top_is_that_of_a_naive_sum_over_the_targets_queries(sweep, table):
    scores = Attributions.load(table)
    synthetic = [row for row in scores.documents if row["type"] == "synthetic_document"]
    removals = [about["removal"] for about in abouts(sweep)]
    assert Counter(r["kind"] for r in removals) == {
        "none": 1,
        "top": 2,
        "random": 2,
        "matched_fact": 2,
    }
    for removal in removals:
        assert removal["table_digest"] == table_digest(table)
        if removal["kind"] != "top":
            continue
        own = [
            q
            for q, row in enumerate(scores.queries)
            if row["set"] == SET or removal["target"] == FACT
            if removal["target"] == SET or f"mayor_of:{row['entity']}" == FACT
        ]
        assert removal["queries"] == [
            {name: scores.queries[q][name] for name in ("set", "index", "id")} for q in own
        ]
        summed = {
            (row["id"], row["occurrence"]): sum(float(scores.scores["bm25"][q, d]) for q in own)
            for d, row in enumerate(synthetic)
        }
        kept_least = min(summed[key] for key in keys(removal))
        assert len(keys(removal)) == 3 == removal["k"]
        n_above = sum(score > kept_least for score in summed.values())
        n_equal = sum(score == kept_least for score in summed.values())
        assert n_above < 3
        assert (removal["ties"], removal["ties_taken"]) == (
            (n_equal, 3 - n_above) if n_above + n_equal > 3 else (0, 0)
        )
        assert all(summed[key] >= kept_least for key in keys(removal))


def test_controls_are_as_many_others_and_match_the_facts(sweep):
    dataset = load_structured_dataset(sweep.structured_dataset)
    docs = dict(zip(dataset.document_dataset.keys(), dataset.document_dataset.docs, strict=True))
    removals = [about["removal"] for about in abouts(sweep)]
    for top in (r for r in removals if r["kind"] == "top"):
        own = [r for r in removals if (r["target"], r["k"]) == (top["target"], top["k"])]
        removed = [set(keys(r)) for r in own]
        assert all(len(one) == 3 for one in removed)
        for control in own[1:]:
            assert not set(keys(control)) & set(keys(top))
            assert control["removed_characters"] == sum(
                len(docs[key].completion) for key in keys(control)
            )
            if control["kind"] == "matched_fact":
                facts = [Counter(docs[k].doc_spec.fact.id for k in keys(r)) for r in (top, control)]
                assert facts[0] == facts[1]
        assert [r["draw"] for r in own] == [None, 0, 0]


def test_what_was_trained_is_all_but_what_was_removed_by_the_step_logs(sweep):
    dataset = load_structured_dataset(sweep.structured_dataset)
    every = {
        key
        for key, doc in zip(
            dataset.document_dataset.keys(), dataset.document_dataset.docs, strict=True
        )
        if doc.type == "synthetic_document"
    }
    outcomes = subset_outcomes(sweep.path)
    assert outcomes.completed().all()
    assert outcomes.seeds.tolist() == [[42, 43]] * N_SUBSETS  # the same orders everywhere
    for s, about in enumerate(abouts(sweep)):
        trained = {
            (row["id"], row["occurrence"])
            for d, row in enumerate(outcomes.documents)
            if row["type"] == "synthetic_document" and outcomes.trained[s, d] == 1
        }
        assert trained == every - set(keys(about["removal"]))
        assert about["docs_per_run"] == len(trained)
        runs = sweep.runs_of_subset("train", s)
        assert len(runs) == 2
        for run in runs:
            log = read_experiment_log(run.experiment_log)
            logged = Counter(w for row in read_steps(run.steps) for w in row.window_ids)
            assert logged == Counter(log.log_dict["window_ids"])
            assert log.log_dict["n_documents"] == len(trained)
    assert verify.main(verify.VerifyArguments(paths=[sweep.path])) == 0


def test_what_was_gathered_is_kept(sweep):
    whole = subset_outcomes(sweep.path)
    read = []
    real = outcomes_module._answers
    outcomes_module._answers = lambda run: read.append(run) or real(run)
    try:
        again = subset_outcomes(sweep.path)
    finally:
        outcomes_module._answers = real
    assert read == []
    assert list(again.subsets) == list(whole.subsets)
    assert "removed" not in again.subsets[1]["removal"]


def test_the_same_seed_makes_the_same_subsets(sweep, table, tmp_path):
    planned = []
    for outputs, seed in (("one", 41), ("other", 42)):
        args = arguments(table, tmp_path / outputs, seed=seed, start=False)
        assert data_modeling.main(args) == 0
        (experiment,) = find_experiments(tmp_path / outputs)
        planned.append([about["removal"] for about in abouts(experiment)])
        assert not find_runs(experiment.path)
    assert planned[0] == [about["removal"] for about in abouts(sweep)]
    assert planned[1] != planned[0]
    tops = [[set(keys(r)) for r in one if r["kind"] == "top" and not r["ties"]] for one in planned]
    assert tops[0] == tops[1] != []  # only what is drawn depends on the seed


def extend(experiment, *words):
    given = ["--resume", experiment.path, "--extend", "--execution_mode", "in_process"]
    words = [str(word) for word in (*given, "--no-start", *words)]
    return data_modeling.main(parse(DataModelingArgs, words))


def test_it_takes_more_runs_and_no_other_removals(table, tmp_path):
    kept = shutil.copytree(table, tmp_path / "table")
    assert data_modeling.main(arguments(kept, tmp_path / "outputs", start=False)) == 0
    (experiment,) = find_experiments(tmp_path / "outputs")
    before = [about["removal"] for about in abouts(experiment)]
    named = ["--removal_table", kept, "--removal_targets", FACT, SET]
    sizes = ["--n_datasets_train", N_SUBSETS, "--removal_k", 2]
    with pytest.raises(UsageError, match="--removal_k: runs on subsets are there with another"):
        extend(experiment, "--subset_design", "removal", *named, *sizes)
    with pytest.raises(UsageError, match=f"give --n_datasets_train {N_SUBSETS}, not"):
        extend(experiment, "--n_datasets_train", N_SUBSETS + 1)
    assert extend(experiment, "--runs_per_dataset_train", 3) == 0
    assert [about["removal"] for about in abouts(experiment)] == before
    runs = [tuple(one) for job in load_jobs(experiment.jobs) for one in job.spec.args["runs"]]
    assert set(runs) == {("train", i, 42 + n) for i in range(N_SUBSETS) for n in range(3)}
    assert len(runs) == 3 * N_SUBSETS
    shutil.rmtree(kept)
    with pytest.raises(UsageError, match="--removal_table"):
        extend(experiment, "--runs_per_dataset_train", 4)


def test_a_plan_counts_what_it_then_is(sweep, table, tmp_path, capsys):
    given = arguments(table, tmp_path).model_dump(mode="json", exclude_unset=True)
    words = ["--json"]
    for name, value in given.items():
        values = value if isinstance(value, list) else [value]
        words += [f"--{name}", *map(str, values)]
    assert plan.main(parse(PlanArguments, words)) == 0
    told = json.loads(capsys.readouterr().out)["subsets"]
    runs = find_runs(sweep.path)
    assert told["n_runs"] == len(runs) == 2 * N_SUBSETS
    updates = [len(list(read_steps(run.steps))) for run in runs]
    assert (told["updates"]["fewest"], told["updates"]["most"]) == (min(updates), max(updates))


def removal(*words):
    return attribution.main_removal(parse(RemovalArguments, [str(word) for word in words]))


def test_the_command_tells_changes_paired_by_seed(sweep, tmp_path, capsys):
    files = ["--json", tmp_path / "told.json", "--csv", tmp_path / "told.csv"]
    assert removal(sweep.path, *files) == 0
    told = capsys.readouterr().out
    for word in ("logprob, the questions", "accuracy, the questions", "all targets", FACT, SET):
        assert word in told
    assert "Characters removed, on average: top " in told
    found = json.loads((tmp_path / "told.json").read_text())
    rows = {(r["target"], r["questions"], r["metric"], r["what"]): r for r in found["effects"]}
    removals = [about["removal"] for about in abouts(sweep)]

    def answers(s):
        """By seed and question, out of the runs' own records."""
        return {
            (
                read_experiment_log(run.experiment_log).args["data_order_seed"],
                r["set"],
                r["index"],
            ): r["logprob"]
            for run in sweep.runs_of_subset("train", s)
            for r in pq.read_table(run.records("final")).to_pylist()
        }

    whole = answers(0)
    for target in (FACT, SET):
        own = {kind: [] for kind in ("top", "random", "matched_fact")}
        asked = {
            (q["set"], q["index"]) for r in removals if r["target"] == target for q in r["queries"]
        }
        for s, one in enumerate(removals):
            if one["target"] == target:
                own[one["kind"]] += [
                    value - whole[key] for key, value in answers(s).items() if key[1:] in asked
                ]
        for kind, changes in own.items():
            one = rows[target, "target", "logprob", kind]
            assert one["mean"] == pytest.approx(np.mean(changes))
            assert one["n_seeds"] == 2
        less = rows[target, "target", "logprob", "top - random"]["mean"]
        assert less == pytest.approx(np.mean(own["top"]) - np.mean(own["random"]))
    with (tmp_path / "told.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(found["effects"])
    assert float(lines[0]["mean"]) == pytest.approx(found["effects"][0]["mean"])
    assert [cell["k"] for cell in found["removals"]] == [3, 3]
    assert [len(cell["removed"]) for cell in found["removals"]] == [3, 3]


def test_a_control_that_cannot_match_is_not_made_and_told(table, tmp_path, capsys):
    # Of the fact's nine documents no other eight are left.
    changes = {"removal_methods": ["facts"], "removal_targets": [FACT], "removal_k": [2, 8]}
    changes["removal_control_draws"] = 2
    args = arguments(table, tmp_path, n_datasets_train=9, start=False, **changes)
    assert data_modeling.main(args) == 0
    out = capsys.readouterr().out
    assert "1 of 2 removals (facts, mayor_of:mayor_of_lima, k 8): there is no matched_fact" in out
    assert "of fact c853f903… 8 are on top and 1 are left" in out
    assert "2 of 2 removals (facts, mayor_of:mayor_of_lima, k 2, …): at k documents have" in out
    (experiment,) = find_experiments(tmp_path)
    removals = [about["removal"] for about in abouts(experiment)]
    assert Counter((r["k"], r["kind"]) for r in removals) == {
        (0, "none"): 1,
        (2, "top"): 1,
        (2, "random"): 2,
        (2, "matched_fact"): 2,
        (8, "top"): 1,
        (8, "random"): 2,
    }
    (last,) = [r for r in removals if (r["k"], r["kind"]) == (8, "top")]
    assert "are on top and" in last["no_matched_fact"]
    assert (last["ties"], last["ties_taken"]) == (9, 8)
    (first,) = [r for r in removals if (r["k"], r["kind"]) == (2, "top")]
    assert first["removed"] == last["removed"][:2]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"removal_methods": ["magic"]}, "no method 'magic' there: exposure, tfidf, bm25, and f"),
        ({"removal_targets": ["mayor_of:nowhere"]}, "'mayor_of:nowhere'. Facts: mayor_of:mayor"),
        ({"removal_k": [17]}, "only 16 are left: at most 16"),
        ({"removal_k": [33]}, "there are 33 documents to remove from.*at most 16"),
        ({"n_datasets_train": 5}, "give --n_datasets_train 7, not 5"),
        ({"removal_table": Path("nowhere")}, "about.json is not there"),
        ({"subset_eval_sets": ["second_hop*"], "removal_targets": [SET],
          "n_datasets_train": 4}, f"no run is asked what {SET} was ranked for"),
    ],
)  # fmt: skip
def test_what_cannot_be_removed_is_refused_before_anything_is_written(
    table, tmp_path, changes, said
):
    with pytest.raises(UsageError, match=said):
        data_modeling.main(arguments(table, tmp_path / "outputs", **changes))
    assert not (tmp_path / "outputs").exists()


def test_a_table_of_other_documents_is_refused(table, tmp_path, capsys):
    other = tmp_path / "other.json"
    raw = json.loads(SAMPLE.read_text())
    # The same ids, other words.
    raw["document_dataset"]["docs"][0]["completion"] += " Indeed."
    other.write_text(json.dumps(raw))
    with pytest.raises(UsageError, match=r"scored the documents of another file than .*other.json"):
        data_modeling.main(arguments(table, tmp_path / "outputs", dataset_builder_path=other))
    # A table that does not say what it is of is compared document by document.
    anonymous = tmp_path / "anonymous"
    shutil.copytree(table, anonymous)
    about = json.loads((anonymous / "about.json").read_text())
    about |= {"trained_dataset_digest": None, "dataset_digest": None}
    (anonymous / "about.json").write_text(json.dumps(about))
    assert data_modeling.main(arguments(anonymous, tmp_path / "same", start=False)) == 0
    assert "ids of documents alone were compared" in capsys.readouterr().out
    about["documents"][0]["id"] = "nobody's"
    (anonymous / "about.json").write_text(json.dumps(about))
    with pytest.raises(UsageError, match=r"1 of the documents .* no score, and 1 that have one"):
        data_modeling.main(arguments(anonymous, tmp_path / "outputs"))
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"removal_table": None}, "--removal_table is missing"),
        ({"removal_targets": None}, "--removal_targets is missing"),
        ({"removal_k": [0]}, "at least 1 document"),
        ({"removal_k": [3, 3]}, "each number once"),
        ({"removal_methods": []}, "name a method"),
        ({"n_datasets_train": 0, "runs_per_dataset_all_docs": 1}, "--n_datasets_train is missing"),
        ({"n_datasets_test": 2}, "of the train split alone"),
        ({"sampling_k": 2}, "single documents are removed"),
        ({"subset_design": "random"}, "--removal_table goes with --subset_design removal"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(tmp_path, changes, said):
    with pytest.raises(ValueError, match=said):
        arguments(tmp_path, tmp_path, **changes)


def test_a_sweep_of_another_design_has_no_removals(tmp_path, capsys):
    with pytest.raises(UsageError, match="has 0 experiments with subsets"):
        removal(tmp_path)
    with pytest.raises(UsageError, match="there is no folder"):
        removal(tmp_path, "--csv", tmp_path / "nowhere" / "told.csv")


def test_a_page_tells_of_it_as_of_any_sweep_over_subsets(sweep, tmp_path):
    page = tmp_path / "page.html"
    assert report.main(report.ReportArguments(paths=[sweep.path], out=page)) == 0
    text = page.read_text()
    assert "each subset has all documents but those on top for a question" in text
    told = datamodel_of(sweep)
    assert told["n_subsets"] == {"train": N_SUBSETS, "test": 0}
    assert "removed by their scores, not drawn" in told["effects"]["unavailable"]
