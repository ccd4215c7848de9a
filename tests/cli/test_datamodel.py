"""`oocr datamodel` on outcomes with a planted truth: whose facts are on top, what is held out."""

from dataclasses import replace

import numpy as np
import pytest

from oocr_influence.cli import datamodel
from oocr_influence.cli.arguments import UsageError, parse
from oocr_influence.results.outcomes import Outcomes

N_FACTS, COPIES, RUNS = 6, 3, 2


def made_outcomes(n_train=30, n_test=12, seed=0):
    """A question a fact, which its three documents raise; odd questions by ten times as much."""
    draw = np.random.default_rng(seed)
    documents = [
        {"id": f"d{d}", "occurrence": 0, "fact_id": f"f{d % N_FACTS}", "relation": "mayor",
         "entity": f"e{d % N_FACTS}"}
        for d in range(N_FACTS * COPIES)
    ]  # fmt: skip
    questions = [
        {"set": "s", "index": q, "id": f"q{q}", "kind": "trained", "relation": "mayor",
         "entity": f"e{q}"}
        for q in range(N_FACTS)
    ]  # fmt: skip
    n = n_train + n_test
    trained = (draw.random((n, N_FACTS * COPIES)) < 0.5).astype(np.float32)
    subsets = [
        {"split": split, "design": "random", "dataset_idx": s, "dataset_id": f"{split}{s}"}
        for split, count in (("train", n_train), ("test", n_test))
        for s in range(count)
    ]
    facts = trained.reshape(n, COPIES, N_FACTS).sum(axis=1)
    values = np.repeat((facts * (1 + 9 * (np.arange(N_FACTS) % 2)) - 9)[:, None], RUNS, axis=1)
    values += 0.1 * draw.normal(size=values.shape)
    seeds = np.tile(np.arange(RUNS), (n, 1))
    metrics = {"logprob": values, "loss": -values}
    return Outcomes(subsets, documents, questions, trained, seeds, metrics)


@pytest.fixture
def told(monkeypatch, tmp_path, capsys):
    """What a command prints of some outcomes, as lists of words."""

    def run(outcomes, *words):
        monkeypatch.setattr(datamodel, "subset_outcomes", lambda path: outcomes)
        kind, mains = words[0], {
            "fit": (datamodel.FitArguments, datamodel.main_fit),
            "lds": (datamodel.LdsArguments, datamodel.main_lds),
            "plan": (datamodel.PlanArguments, datamodel.main_plan),
        }  # fmt: skip
        arguments, main = mains[kind]
        assert main(parse(arguments, [str(tmp_path), *words[1:]])) == 0
        return [line.split() for line in capsys.readouterr().out.splitlines()]

    return run


def row_of(lines, first):
    return next(line for line in lines if line and line[0] == first)


@pytest.mark.parametrize("metric", ["logprob", "loss"])
def test_on_top_is_what_helps_most_whichever_way_the_outcome_goes(told, metric):
    row = row_of(told(made_outcomes(), "fit", "--metric", metric), "trained")
    assert row[4] == "100%"
    assert (float(row[2]) > 0) == (metric == "logprob")


def test_what_helps_as_much_is_on_top_by_its_share():
    equal = np.zeros((2, 4))
    equal[1, 2] = np.nan
    own = np.eye(4, dtype=bool)[[0, 1]]
    np.testing.assert_allclose(datamodel._own_on_top(equal, own), [1 / 4, 1 / 3])
    one = np.array([[1.0, 1, 0, 0], [2, 1, 0, 0]])
    np.testing.assert_allclose(datamodel._own_on_top(one, own), [1 / 2, 0])
    assert datamodel._own_on_top(one, np.zeros_like(own)).size == 0


def test_both_splits_are_of_the_same_questions(told):
    outcomes = made_outcomes()
    values = np.array(outcomes.metrics["logprob"])
    values[3, 1, 0] = np.nan  # a run of the train split did not answer the first question,
    values[33, 0, 4] = np.nan  # one of the test split not another
    holed = replace(outcomes, metrics={"logprob": values})
    lines = told(holed, "lds", "--method", "least_squares", "--by", "fact")
    row = row_of(lines, "trained")
    assert row[1] == "4"
    assert float(row[2]) > 0.75  # of other questions' predictions about 0


def test_a_subset_that_was_fitted_to_is_not_held_out(told):
    outcomes = made_outcomes()
    subsets = [dict(row) for row in outcomes.subsets]
    for place in (30, 31):
        subsets[place]["dataset_id"] = subsets[place - 20]["dataset_id"]
    lines = told(replace(outcomes, subsets=subsets), "lds", "--method", "ridge")
    assert " ".join(lines[0]).endswith("scored on 10; logprob")
    assert any(line[:4] == ["2", "subsets", "of", "the"] for line in lines)
    for place in range(30, 42):
        subsets[place]["dataset_id"] = subsets[place - 20]["dataset_id"]
    with pytest.raises(UsageError, match="0 subsets of the test split are held out, and 12 are"):
        told(replace(outcomes, subsets=subsets), "lds")


def test_pairs_are_told_to_the_score_and_to_the_plan(told, monkeypatch):
    outcomes = made_outcomes()
    subsets = [{**row, "design": "complement"} for row in outcomes.subsets]
    trained = np.array(outcomes.trained)
    trained[1::2] = 1 - trained[::2]
    pairs = replace(outcomes, subsets=subsets, trained=trained)
    seen = []
    real = datamodel.lds_of_predictions
    monkeypatch.setattr(
        datamodel,
        "lds_of_predictions",
        lambda *given, **named: seen.append(named) or real(*given, **named),
    )
    told(pairs, "lds", "--by", "document")
    (one,) = seen
    assert one["draws_S"].tolist() == np.repeat(range(6), 2).tolist()
    assert one["crossed"]
    lines = told(pairs, "plan", "--half_width", "0.1")
    asked = [line for line in lines if line and line[0].isdigit()]
    assert int(asked[-1][0]) % 2 == 0
