"""What a page says of sweeps over subsets and of scores of documents, against the planted truth
and numbers computed naively from the runs' own files."""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import spearmanr, t

sys.path.append(str(Path(__file__).parents[1] / "reports"))
from page_subsets import ENTITIES, HOP, OWN, SETS, make_sweep, make_table

from oocr_influence.attribution.features import features_of
from oocr_influence.attribution.own_facts import own_features
from oocr_influence.cli import subset_figures
from oocr_influence.cli.arguments import parse
from oocr_influence.cli.report import ReportArguments, main
from oocr_influence.cli.subset_figures import figures_of
from oocr_influence.reports.page.data import page_data
from oocr_influence.results import collect
from oocr_influence.results.atomic import write_json
from oocr_influence.results.subset_outcomes import subset_outcomes

CLOSE = pytest.approx


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs")
    make_sweep(folder)
    make_table(folder / "scored" / "final")
    return folder


@pytest.fixture(scope="module")
def figures(outputs):
    return figures_of([outputs])


@pytest.fixture(scope="module")
def runs(outputs):
    """By split: of every run its subset, what it trained, and its answers in the sets' order."""
    found = {"train": [], "test": []}
    for path in sorted(outputs.glob("*_made/data_modeling_runs_*/*")):
        split = path.parent.name.rpartition("_")[2]
        trained = {
            row["id"]
            for row in pq.read_table(path / "saved_objects/exposure.parquet").to_pylist()
            if row["labels_trained"]
        }
        records = pq.read_table(path / "eval_results/records_final.parquet").to_pylist()
        answers = {(r["set"], r["index"]): r["logprob"] for r in records}
        subset = path.name.partition("_dataset_")[2].partition("_")[0]
        seed = json.loads((path / "experiment_log.json").read_text())["args"]["data_order_seed"]
        found[split].append((seed, int(subset), trained, answers))
    return {
        split: [one[1:] for one in sorted(own, key=lambda one: one[:2])]
        for split, own in found.items()
    }


def by_subset(runs):
    """(subsets) of documents, and of mean answers by question."""
    documents, answers = {}, {}
    for subset, trained, own in runs:
        documents[subset] = trained
        answers.setdefault(subset, []).append(own)
    order = sorted(documents)
    means = [{q: np.mean([one[q] for one in answers[s]]) for q in answers[s][0]} for s in order]
    return [documents[s] for s in order], means


def counts(documents, facts):
    return np.array([[sum(d.startswith(f"{f}-") for d in own) for f in facts] for own in documents])


def test_effects_are_least_squares_of_the_runs_own_files(figures, runs):
    (told,), _ = figures
    effects = told["effects"]
    assert (effects["method"], effects["rows"], effects["fixed_total"]) == (
        "least_squares",
        "subsets",
        True,
    )
    documents, means = by_subset(runs["train"])
    facts = [f"{relation}-{e}" for relation in ("mayor", "spouse") for e in range(ENTITIES)]
    x = counts(documents, facts).astype(float)
    x -= x.mean(axis=0)

    def effect(question):
        y = np.array([one[question] for one in means])
        return np.linalg.pinv(x) @ (y - y.mean())

    def beside(question, entity):
        """Beside the mean of facts about other entities."""
        found = effect(question)
        return found - np.mean(
            [one for one, f in zip(found, facts, strict=True) if f[-1] != str(entity)]
        )

    own = {
        f: beside((f"{f[:-2]}_eval_qa_1_no_fs", int(f[-1])), f[-1])[i] for i, f in enumerate(facts)
    }
    for fact in effects["facts"]:
        name = f"{fact['relation']}-{fact['entity'][-1]}"
        assert fact["own"][0] == CLOSE(own[name], rel=1e-4)
        assert fact["own"][1] < fact["own"][0] < fact["own"][2]
    kinds = {one["kind"]: one for one in effects["kinds"]}
    assert set(kinds) == {"trained", "two_hop", "control: unmentioned"}
    assert kinds["trained"]["own"][0] == CLOSE(np.mean(list(own.values())), rel=1e-4)
    hops = [
        beside(("mayor_by_landmark_eval_qa_1_no_fs", e), e)[facts.index(f"{relation}-{e}")]
        for e in range(ENTITIES)
        for relation in ("mayor", "spouse")
    ]
    assert kinds["two_hop"]["entity"][0] == CLOSE(np.mean(hops), rel=1e-4)
    assert kinds["two_hop"]["own"] is None


def test_intervals_hold_the_planted_truth(figures):
    (told,), _ = figures
    kinds = {one["kind"]: one for one in told["effects"]["kinds"]}
    _, low, high = kinds["trained"]["own"]
    assert low < OWN < high
    _, low, high = kinds["two_hop"]["entity"]
    assert low < HOP / 2 < high
    assert kinds["control: unmentioned"]["others"] is None  # zero by construction
    assert kinds["trained"]["beyond"]["own"] > 0.9
    assert kinds["control: unmentioned"]["beyond"]["others"] < 0.2


def test_reliability_is_the_analysis_of_variance(figures, runs):
    (told,), _ = figures
    trained = next(one for one in told["effects"]["kinds"] if one["kind"] == "trained")
    found = []
    for question in [(name, e) for name in list(SETS)[:2] for e in range(ENTITIES)]:
        rows = {}
        for subset, _, answers in runs["train"]:
            rows.setdefault(subset, []).append(answers[question])
        y = np.array(list(rows.values()))
        residual = y - y.mean(axis=1, keepdims=True)
        residual -= residual.mean(axis=0)  # every subset has the same seeds
        noise = (residual**2).sum() / ((len(y) - 1) * (y.shape[1] - 1))
        between = y.mean(axis=1).var(ddof=1)
        signal = max(between - noise / y.shape[1], 0)
        found.append(signal / (signal + noise / y.shape[1]))
    assert trained["reliable"] == CLOSE(np.median(found), rel=1e-4)


def spearman_of(scores_of, runs, questions):
    documents, means = by_subset(runs["test"])
    each = []
    for question in questions:
        predicted = [sum(scores_of(question, d) for d in sorted(own)) for own in documents]
        each.append(spearmanr(predicted, [one[question] for one in means]).statistic)
    return np.mean(each)


def test_the_lds_of_a_method_is_computed_from_its_table(figures, runs, outputs):
    _, (table,) = figures
    from oocr_influence.results.attributions import Attributions

    saved = Attributions.load(outputs / "scored" / "final")
    place = {d["id"]: i for i, d in enumerate(saved.documents)}
    query = {(q["set"], q["index"]): i for i, q in enumerate(saved.queries)}
    scores = saved.scores["gradient_dot"].astype(float)
    trained = [(name, e) for name in list(SETS)[:2] for e in range(ENTITIES)]
    (lds,) = table["lds"]
    found = {(one["name"], one["kind"]): one for one in lds["scores"]}
    expected = spearman_of(lambda q, d: scores[query[q], place[d]], runs, trained)
    assert found["gradient_dot", "trained"]["interval"][0] == CLOSE(expected, rel=1e-4)
    assert {name for name, _ in found} == {
        *saved.scores,
        "datamodel by fact",
        "datamodel by document",
    }
    assert {kind for _, kind in found} == {"all", "trained", "two_hop", "control"}
    of_fact = found["datamodel by fact", "trained"]
    assert of_fact["interval"][0] > of_fact["chance"]
    assert 0 < of_fact["ceiling"] <= 1
    assert found["exposure", "trained"]["interval"][0] == 0


def test_datamodels_stand_by_themselves_too(figures):
    (told,), _ = figures
    rows = {(one["name"], one["kind"]): one for one in told["lds"]["scores"]}
    assert rows["datamodel by fact", "all"]["n_questions"] == len(SETS) * ENTITIES
    assert rows["datamodel by document", "trained"]["interval"][0] > 0.3


def test_retrieval_agreement_and_tops_of_a_table(figures):
    _, (table,) = figures
    assert [one["name"] for one in table["methods"] if one["baseline"]] == ["exposure", "bm25"]
    groups = {(g["method"], g["kind"], g["relation"]): g for g in table["retrieval"]["groups"]}
    assert groups["gradient_dot", "trained", "all"]["mrr"][0] == 1
    assert groups["bm25", "trained", "all"]["mrr"][0] < 1
    chance = next(g for g in table["retrieval"]["groups"] if g["is_chance"])
    assert groups["exposure", "trained", "all"]["mrr"][0] == CLOSE(chance["mrr"][0])
    agreement = table["agreement"]
    assert agreement["rows"][0] == [None, None, None]
    assert agreement["rows"][1][2] == agreement["rows"][2][1]
    tops = table["tops"]
    assert (tops["relations"], tops["among_all"]) == (["mayor", "spouse"], [0.5, 0.5])
    rows = {(r["method"], r["kind"], r["relation"]): r["shares"] for r in tops["rows"]}
    assert rows["exposure", "trained", "mayor"] == [0.5, 0.5]
    assert rows["gradient_dot", "trained", "mayor"][0] > 0.5
    assert ("bm25", "control: unmentioned", "spouse") in rows


def test_a_page_tells_subsets_from_seeds(outputs):
    with collect(outputs) as collected:
        data = page_data(collected)
    train = next(group for group in data.head["groups"] if group["name"] == "made (train subsets)")
    assert [one["n_runs"] for one in train["evaluations"]] == [60]
    assert train["evaluations"][0]["steps"] == [5, 7]
    words = " ".join(train["sentences"])
    assert "30 subsets of the train split × 2 runs" in words
    assert "24 documents drawn at random" in words
    assert "5 to 7 updates" in words
    assert "seeds 42, 43" in words
    assert "so far" not in words
    assert "unknown" not in words
    kinds = {kind["asked"]: kind for kind in train["ending"]["kinds"]}
    assert kinds["trained"]["accuracy"]["n_runs"] == 30
    assert kinds["trained"]["accuracy"]["n_questions"] == 60 * 2 * ENTITIES
    place = data.head["groups"].index(train)
    subsets = [run["subset"] for run in data.head["runs"] if run["group"] == place]
    assert sorted(map(int, subsets)) == [s for s in range(30) for _ in range(2)]


def test_evaluations_in_between_stand_beside_each_other_by_order(tmp_path):
    make_sweep(tmp_path, n_train=4, n_test=0, evals=3)
    with collect(tmp_path) as collected:
        data = page_data(collected)
    (group,) = data.head["groups"]
    assert [one["name"] for one in group["evaluations"]] == ["e1_s1", "e1_s2", "final"]
    assert [one["n_runs"] for one in group["evaluations"]] == [8, 8, 8]
    line = next(one for one in group["lines"] if one["split"] == "asked")
    assert None not in line["series"]["logprob"]["mean"]


def test_without_one_fact_the_intervals_are_over_runs(tmp_path):
    make_sweep(tmp_path, n_train=2 * ENTITIES, n_test=0, runs_train=3, design="leave_one_fact_out")
    ((told,), _) = figures_of([tmp_path])
    effects = told["effects"]
    assert (effects["rows"], effects["n_rows"]) == ("runs", 6 * ENTITIES)
    trained = next(one for one in effects["kinds"] if one["kind"] == "trained")
    _, low, high = trained["own"]
    assert low < OWN < high
    assert trained["beyond"]["own"] > 0.5
    assert trained["beyond"]["others"] < 0.12  # beside noise, no fact moves another's questions
    assert trained["explained"] is None
    assert told["lds"]["unavailable"].startswith("0 held-out subsets")


def test_of_pairs_the_intervals_are_over_pairs(tmp_path):
    experiment = make_sweep(tmp_path, n_train=40, n_test=8, runs_train=1, design="complement")
    ((told,), _) = figures_of([tmp_path])
    effects = told["effects"]
    assert (effects["method"], effects["n_rows"]) == ("least_squares", 40)
    outcomes = subset_outcomes(experiment.path).split("train")
    facts = features_of(outcomes, "fact")
    y = outcomes.means("logprob")
    asked = [q for q, one in enumerate(outcomes.questions) if one["kind"] == "trained"]
    own = own_features(outcomes, facts)
    entities = [name[-1] for name in facts.names]

    def mean_of(kept):
        x = facts.values[kept] - facts.values[kept].mean(axis=0)
        found = []
        for q in asked:
            effect = np.linalg.pinv(x) @ (y[kept, q] - y[kept, q].mean())
            others = [e != outcomes.questions[q]["entity"][-1] for e in entities]
            found.append(effect[own[q]][0] - effect[others].mean())
        return np.mean(found)

    pairs = np.repeat(range(20), 2)
    left = np.array([mean_of(pairs != pair) for pair in range(20)])
    half = t.ppf(0.975, 19) * np.sqrt(19 / 20 * ((left - left.mean()) ** 2).sum())
    trained = next(one for one in effects["kinds"] if one["kind"] == "trained")
    mean = mean_of(pairs >= 0)
    assert trained["own"] == CLOSE([mean, mean - half, mean + half], rel=1e-3)


def test_what_was_fitted_to_is_not_held_out(tmp_path):
    experiment = make_sweep(tmp_path, n_train=12, n_test=6)
    for s in range(2):
        file = experiment.subset_metadata("test", s)
        write_json(file, json.loads(file.read_text()) | {"dataset_id": f"train{s}"})
    ((told,), _) = figures_of([tmp_path])
    assert told["n_subsets"] == {"train": 12, "test": 4}


def test_few_subsets_say_so(tmp_path):
    make_sweep(tmp_path, n_train=3, n_test=1, runs_test=1)
    ((told,), _) = figures_of([tmp_path])
    assert "need at least 4" in told["effects"]["unavailable"]
    assert "needs at least 3" in told["lds"]["unavailable"]


def test_more_facts_than_subsets_are_looked_at_one_by_one(tmp_path):
    make_sweep(tmp_path, n_train=8, n_test=0)
    ((told,), _) = figures_of([tmp_path])
    assert told["effects"]["method"] == "marginal"


def test_what_is_missing_is_named(outputs, monkeypatch):
    monkeypatch.setattr(subset_figures, "_known", {})
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    (told,), (table,) = figures_of([outputs])
    for part in (told["effects"], told["lds"], *(table[p] for p in ("retrieval", "agreement"))):
        assert 'pip install "oocr-influence[attribution]"' in part["unavailable"]


def test_equal_records_are_computed_once(outputs, figures, monkeypatch):
    def refused(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(subset_figures, "datamodel_of", refused)
    monkeypatch.setattr(subset_figures, "attribution_of", refused)
    assert figures_of([outputs]) == figures
    (one, *_) = outputs.glob("*_made/data_modeling_runs_train/*/experiment_log.json")
    text = one.read_text()
    one.write_text(text + " ")
    with pytest.raises(AssertionError, match="computed again"):
        figures_of([outputs])
    one.write_text(text)


def test_a_single_run_has_no_such_part(outputs):
    (run, *_) = sorted(outputs.glob("*_made/data_modeling_runs_train/*"))
    assert figures_of([run]) == ([], [])


def test_a_report_can_leave_them_out(outputs, tmp_path, capsys):
    page = tmp_path / "page.html"
    words = [str(outputs), "--out", str(page), "--no-questions", "--no-datamodels"]
    assert main(parse(ReportArguments, words)) == 0
    assert '"datamodels":[],"attributions":[]' in page.read_text()
