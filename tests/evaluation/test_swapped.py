"""Swapped answers: a derangement of right answers, the same for all wordings of a relation."""

import math

import pytest

from oocr_influence.datasets.eval_sets import build_eval_sets, describe_set
from oocr_influence.evaluation.evaluate import Evaluator
from oocr_influence.evaluation.metrics import SWAPPED_METRICS
from oocr_influence.evaluation.metrics.swapped import swapped_answers
from oocr_influence.evaluation.plan import build_plan
from oocr_influence.models.tiny import tiny_tokenizer
from oocr_influence.universe.world_file import load_world


@pytest.fixture(scope="module")
def world_plan():
    sets = build_eval_sets(load_world("mayors"), seed=42, controls=True)
    few = {name: builder for name, builder in sets.items() if "_1_no_fs" in name}
    return few, build_plan(few, tiny_tokenizer())


def test_every_question_gets_another_one_s_answer_and_each_answer_goes_once(world_plan):
    _, plan = world_plan
    for planned in plan.sets.values():
        swapped = swapped_answers(planned).tolist()
        assert sorted(swapped) == list(range(10))
        assert all(a != b for a, b in zip(swapped, planned.right_Q.tolist(), strict=True))


def test_all_wordings_of_a_relation_swap_the_same_entities(world_plan):
    builders, plan = world_plan
    owner_of = {}
    for name, planned in plan.sets.items():
        owners = {
            text: point.features.id
            for text, point in zip(planned.completions, planned.points, strict=True)
        }
        for point, column in zip(planned.points, swapped_answers(planned), strict=True):
            relation = describe_set(name, builders[name]).relation
            other = owners[planned.candidates[column]]
            assert owner_of.setdefault((relation, point.features.id), other) == other
    by_relation = {}
    for (relation, own), other in owner_of.items():
        by_relation.setdefault(relation, {})[own] = other
    assert by_relation["name_mayor"] != by_relation["spouse"]
    planned = plan.sets["spouse_eval_qa_1_no_fs"]
    assert swapped_answers(planned, 1).tolist() != swapped_answers(planned).tolist()


def test_the_order_of_the_questions_changes_nothing(builder, tokenizers):
    forward = builder("gen", "The mayor of {city} is", " {person}")
    backward = forward.model_copy(update={"eval_points": forward.eval_points[::-1]})
    plan = build_plan({"f": forward, "b": backward}, tokenizers["bos"])

    def answers(planned):
        texts = [planned.candidates[column] for column in swapped_answers(planned)]
        return dict(zip(planned.completions, texts, strict=True))

    assert answers(plan.sets["f"]) == answers(plan.sets["b"])


def test_equal_answers_are_no_swap(builder, tokenizers):
    bank = build_plan({"b": builder("b", "{city} lies", " {bank}")}, tokenizers["bos"]).sets["b"]
    assert all(a != b for a, b in zip(swapped_answers(bank), bank.right_Q, strict=True))
    same = build_plan({"s": builder("s", "{city} is", " big")}, tokenizers["bos"]).sets["s"]
    assert swapped_answers(same).tolist() == [-1] * 7


def test_records_grade_by_the_other_answer(plan, olmo, builder, tokenizers):
    found = Evaluator(plan).evaluate(olmo, beam_search=False)
    for row in found.records:
        if row["rank"] is None:
            assert row["completion_swapped"] is None
            continue
        place = row["candidate_texts"].index(row["completion_swapped"])
        assert row["completion_swapped"] != row["completion"]
        lengths, sums = row["candidate_n_tokens"], row["candidate_logprobs"]
        losses = [-total / n for total, n in zip(sums, lengths, strict=True)]
        assert row["logprob_swapped"] == sums[place]
        assert row["loss_swapped"] == pytest.approx(losses[place])
        assert row["prob_swapped"] == pytest.approx(math.exp(sums[place]))
        lower = sum(loss < losses[place] for loss in losses)
        ties = sum(loss == losses[place] for loss in losses) - 1
        assert row["rank_swapped"] == 1 + lower + ties / 2
    means = found.eval_sets["gen"]
    rows = [row for row in found.records if row["set"] == "gen"]
    for name in SWAPPED_METRICS:
        assert means[f"mean_{name}"] == pytest.approx(sum(row[name] for row in rows) / len(rows))
    same = build_plan({"s": builder("s", "{city} is", " big")}, tokenizers["bos"])
    alone = Evaluator(same).evaluate(olmo, beam_search=False)
    assert alone.eval_sets["s"]["mean_rank_swapped"] is None
    assert alone.records[0]["rank_swapped"] is None
