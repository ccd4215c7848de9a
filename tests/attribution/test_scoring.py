"""Methods beside each other: groups, intervals, and the LDS on outcomes with a planted truth."""

from dataclasses import replace

import numpy as np
import pytest
from linear_world import LinearWorld, fixed_size, half_of

from oocr_influence.attribution.lds import lds
from oocr_influence.attribution.scoring import (
    CHANCE,
    lds_of_methods,
    relevant_documents,
    retrieval_groups,
)
from oocr_influence.results.attributions import Attributions
from oocr_influence.results.intervals import mean_interval
from oocr_influence.results.outcomes import Outcomes

N_D, N_Q = 12, 6


def made_table(scores):
    """Twelve documents of three facts, one id twice; six questions, the last a control."""
    documents = [
        {
            "id": f"d{min(d, 10)}",
            "occurrence": int(d == 11),
            "type": "synthetic_document",
            "fact_id": f"f{d % 3}",
            "relation": "mayor",
            "entity": f"e{d % 3}",
            "times": 1.0,
        }
        for d in range(N_D)
    ]
    queries = [
        {
            "set": f"s{q % 2}",
            "index": q // 2,
            "entity": f"e{q % 3}",
            "relation": "mayor" if q < 3 else "spouse",
            "kind": "trained" if q < 3 else "control" if q == 5 else "reversed",
            "fact_ids": [] if q == 5 else [f"f{q % 3}"],
        }
        for q in range(N_Q)
    ]
    methods = {name: {"unit": "none"} for name in scores}
    arrays = {name: np.asarray(s, np.float32) for name, s in scores.items()}
    return Attributions(documents, queries, methods, arrays)


@pytest.fixture
def effects():
    return np.random.default_rng(5).normal(size=(N_Q, N_D))


def made_outcomes(table, effects, trained, draw, *, runs=3, extra=0, noise=0.3):
    values = LinearWorld(effects, noise).outcomes(trained, runs, draw)
    documents = [{"id": row["id"], "occurrence": row["occurrence"]} for row in table.documents]
    documents += [{"id": f"plain{n}", "occurrence": 0} for n in range(extra)]
    whole = np.concatenate([trained, np.ones((len(trained), extra))], axis=1)
    return Outcomes(
        subsets=[{"split": "test", "dataset_id": str(s)} for s in range(len(trained))],
        documents=documents[::-1],
        questions=[{"set": row["set"], "index": row["index"]} for row in table.queries][::-1],
        trained=whole[:, ::-1],
        seeds=np.arange(len(trained) * runs).reshape(-1, runs),
        metrics={"logprob": values[:, :, ::-1], "loss": -values[:, :, ::-1]},
    )


def test_relevant_are_the_documents_of_the_facts_that_answer(effects):
    relevant = relevant_documents(made_table({"a": effects}))
    for q in range(N_Q - 1):
        assert [d for d in range(N_D) if relevant[q, d]] == list(range(q % 3, N_D, 3))
    assert not relevant[5].any()


def test_groups_are_relations_and_kinds_with_intervals_over_entities(effects):
    table = made_table({"truth": effects, "flat": np.ones((N_Q, N_D))})
    groups = retrieval_groups(table, at=(2,))
    keys = {(g.relation, g.kind) for g in groups}
    assert keys == {
        ("all", "trained"),
        ("all", "reversed"),
        ("mayor", "trained"),
        ("spouse", "reversed"),
    }
    assert {g.method for g in groups} == {"truth", "flat", CHANCE}
    found = {(g.method, g.relation, g.kind): g for g in groups}
    flat, chance = (found[name, "mayor", "trained"] for name in ("flat", CHANCE))
    assert flat.mrr.mean == pytest.approx(chance.mrr.mean)
    assert flat.recall[2].mean == pytest.approx(2 / 12)
    assert flat.mean_relevant == 4
    reciprocal = []
    for q in range(3):
        order = np.argsort(-effects[q])
        reciprocal.append(1 / (1 + next(i for i, d in enumerate(order) if d % 3 == q)))
    expected = mean_interval(reciprocal, runs=[0] * 3, entities=["e0", "e1", "e2"])
    assert found["truth", "mayor", "trained"].mrr == expected


def test_controls_alone_leave_nothing_to_find(effects):
    table = made_table({"a": effects})
    queries = [{**row, "fact_ids": []} for row in table.queries]
    with pytest.raises(ValueError, match="nothing to find"):
        retrieval_groups(replace(table, queries=queries))


def test_the_lds_is_of_the_same_documents_and_questions_in_whatever_order(effects):
    draw = np.random.default_rng(0)
    table = made_table({"truth": effects, "wrong": -effects})
    trained = half_of(40, N_D, draw)
    outcomes = made_outcomes(table, effects, trained, draw, extra=2)
    found = {(s.method, s.kind): s.score for s in lds_of_methods(table, outcomes)}
    values = outcomes.values("logprob")[:, :, ::-1]
    entities = [row["entity"] for row in table.queries]
    direct = lds(effects.astype(np.float32), trained, values, entities=entities)
    assert found["truth", "all"].spearman.mean == pytest.approx(direct.spearman.mean)
    assert found["truth", "all"].spearman.mean > 0.9
    assert found["wrong", "all"].spearman.mean == pytest.approx(-direct.spearman.mean)
    assert found["truth", "reversed"].n_questions == 2


def test_exposure_predicts_nothing_where_subsets_are_of_one_size(effects):
    draw = np.random.default_rng(1)
    table = made_table({"exposure": np.full((N_Q, N_D), 3.0)})
    outcomes = made_outcomes(table, effects, fixed_size(20, N_D, 6, draw), draw)
    score = next(s.score for s in lds_of_methods(table, outcomes) if s.kind == "all")
    assert score.spearman.mean == 0
    assert score.n_constant_predictions == N_Q


def test_questions_that_only_one_of_them_has_are_left_out(effects):
    draw = np.random.default_rng(2)
    table = made_table({"truth": effects})
    outcomes = made_outcomes(table, effects, half_of(20, N_D, draw), draw)
    fewer = outcomes.where(questions=[0, 1, 2])
    score = next(s.score for s in lds_of_methods(table, fewer) if s.kind == "all")
    assert score.n_questions == 3
    none = replace(fewer, questions=[{"set": "other", "index": q} for q in range(3)])
    with pytest.raises(ValueError, match="no question in common"):
        lds_of_methods(table, none)


def test_another_question_at_the_same_place_is_not_the_same(effects):
    draw = np.random.default_rng(6)
    table = made_table({"truth": effects})
    queries = [{**row, "id": f"q{q}"} for q, row in enumerate(table.queries)]
    outcomes = made_outcomes(table, effects, half_of(20, N_D, draw), draw)
    asked = [{**row, "id": f"q{N_Q - 1 - o}"} for o, row in enumerate(outcomes.questions)]
    asked[2]["id"] = "another file's"
    score = lds_of_methods(replace(table, queries=queries), replace(outcomes, questions=asked))
    assert score[0].score.n_questions == N_Q - 1
    none = [{**row, "id": "new"} for row in asked]
    with pytest.raises(ValueError, match="no question in common"):
        lds_of_methods(replace(table, queries=queries), replace(outcomes, questions=none))


def test_questions_that_some_runs_did_not_answer_are_left_out(effects):
    draw = np.random.default_rng(4)
    table = made_table({"truth": effects})
    outcomes = made_outcomes(table, effects, half_of(20, N_D, draw), draw)
    values = outcomes.values("logprob").copy()
    values[3, 1, 2] = np.nan  # one question of one run
    values[5, 0] = np.nan  # a run that has not completed: nothing of its subset's others is lost
    holed = replace(outcomes, metrics={"logprob": values})
    score = next(s.score for s in lds_of_methods(table, holed) if s.kind == "all")
    assert score.n_questions == N_Q - 1
    assert score.spearman.mean > 0.9


def test_what_would_mislead_is_refused(effects):
    draw = np.random.default_rng(3)
    table = made_table({"truth": effects})
    outcomes = made_outcomes(table, effects, half_of(20, N_D, draw), draw)
    with pytest.raises(ValueError, match="'loss' falls"):
        lds_of_methods(table, outcomes, "loss")
    renamed = [{**row, "id": row["id"] + "x"} for row in outcomes.documents]
    with pytest.raises(ValueError, match="12 documents that the subsets differ in"):
        lds_of_methods(table, replace(outcomes, documents=renamed))
