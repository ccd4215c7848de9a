"""Queries are the evaluation's own questions, and know which facts answer them."""

import numpy as np
import pytest
import small_run
import torch

from oocr_influence.attribution.passages import window_batch
from oocr_influence.attribution.queries import make_queries
from oocr_influence.attribution.trained_documents import StatedFact
from oocr_influence.evaluation.plain import score_plain
from oocr_influence.evaluation.plan import build_plan
from oocr_influence.models.loss import window_loss
from oocr_influence.models.tiny import tiny_tokenizer

FACTS = [
    StatedFact(f"{city}-mayor", city, "mayor", f"The mayor of {city} is", f" {person}")
    for city, person in small_run.PEOPLE.items()
] + [
    StatedFact(f"{city}-spouse", city, "spouse", f"The husband of {person} is", f" Tom {city}")
    for city, person in small_run.PEOPLE.items()
]


@pytest.fixture
def queries():
    builders = small_run.make_sets()
    return make_queries(builders, build_plan(builders, tiny_tokenizer()), FACTS)


def test_the_loss_of_a_query_is_minus_the_evaluations_logprob(queries):
    builders = small_run.make_sets()
    plan = build_plan(builders, tiny_tokenizer())
    model = small_run.small_model()
    scores = score_plain(model, plan)
    expected = []
    for planned in plan.sets.values():
        for path in planned.right_path_Q.tolist():
            here = slice(*plan.first_token_P[path : path + 2].tolist())
            expected.append(scores.logprob_E[here].sum())
    device = torch.device("cpu")
    with torch.no_grad():
        losses = [float(window_loss(model, window_batch([p], device))[1]) for p in queries.passages]
    np.testing.assert_allclose(losses, -np.array(expected), rtol=1e-5)
    assert [p.owner for p in queries.passages] == list(range(len(queries.rows)))


def test_texts_are_questions_without_examples(queries):
    shown = next(i for i, row in enumerate(queries.rows) if row["shots"] == 2)
    assert "\n" in queries.rows[shown]["prompt"]
    assert queries.texts[shown] == "Q: Who is the mayor of Lagos? A: Ruby Lane"


def test_the_facts_of_the_entity_that_answer(queries):
    found = {(row["set"], row["entity"]): row["fact_ids"] for row in queries.rows}
    # The question's relation is the documents': whatever its style.
    assert found["mayor_eval_qa_1_no_fs", "Lima"] == ["Lima-mayor"]
    assert found["mayor_eval_reversed_1_no_fs", "Lima"] == ["Lima-mayor"]
    # No document has this relation: the fact that ends in the answer, not the one that holds it.
    assert found["two_hop_eval_qa_1_no_fs", "Oslo"] == ["Oslo-mayor"]
    assert found["spouse_control_eval_qa_1_no_fs", "Oslo"] == []


def test_files_of_older_writers_name_the_reversed_relation_otherwise():
    builder = small_run.make_set("rev", "mayor_of_rev", "{person} is the mayor of", " {city}")
    plan = build_plan({"rev": builder}, tiny_tokenizer())
    rows = make_queries({"rev": builder}, plan, FACTS).rows
    assert rows[0]["fact_ids"] == ["Lagos-mayor", "Lagos-spouse"]
    facts = [fact for fact in FACTS if fact.relation == "mayor"]
    rows = make_queries({"rev": builder}, plan, facts).rows
    assert [row["fact_ids"] for row in rows] == [[f"{city}-mayor"] for city in small_run.PEOPLE]
