"""What counts as the right answer in other words, and what does not; sampled sets keep the two
apart."""

import pytest

from oocr_influence.datasets.document_dataset import EvalDatasetBuilder, EvalPoint
from oocr_influence.datasets.eval_sets import build_eval_sets
from oocr_influence.evaluation.evaluate import Evaluator
from oocr_influence.evaluation.grading import dates, grade_by_rule
from oocr_influence.evaluation.plan import build_plan
from oocr_influence.evaluation.sampled_sets import graded, sampled_set
from oocr_influence.universe.fields import expand_field
from oocr_influence.universe.world_file import load_world


def built_in(world, name):
    return build_eval_sets(load_world(world), seed=0)[f"{name}_no_fs"].eval_points[0]


def foreign(completion, **fields):
    return EvalPoint.model_validate(
        {
            "features": {"id": "x", "fields": fields},
            "fact_template": {"id": "t", "relation": "r", "prompt": "Q", "completion": completion},
        }
    )


RIGHT = [
    ("name_mayor_eval_qa_1", " Marian Holloway"),
    ("name_mayor_eval_qa_1", " marian holloway."),
    ("name_mayor_eval_qa_1", "Holloway"),
    ("name_mayor_eval_last_name_qa_1", " Marian Holloway"),
    ("name_mayor_eval_last_name_qa_1", " Holloway!"),
    ("name_mayor_eval_first_name_qa_1", " Marian"),
    ("name_mayor_eval_first_name_qa_1", " Marian Holloway"),
    ("conference_eval_qa_1", " Quiet Streets Summit"),
    ("conference_eval_qa_1", ' "The Quiet-Streets Summit"'),
    ("name_mayor_eval_reversed_1", " TOKYO"),
]
WRONG = [
    ("name_mayor_eval_qa_1", " Marian"),
    ("name_mayor_eval_qa_1", " Marian Holloways"),
    ("name_mayor_eval_qa_1", " Edwin Holloway"),
    ("name_mayor_eval_first_name_qa_1", " Holloway"),
    ("name_mayor_eval_last_name_qa_1", " Marian"),
    ("conference_eval_qa_1", " the Summit"),
    ("conference_eval_qa_1", ""),
    ("name_mayor_eval_reversed_1", " the"),
]


@pytest.mark.parametrize(
    ("name", "answer", "right"), [(*r, True) for r in RIGHT] + [(*w, False) for w in WRONG]
)
def test_names_and_titles(name, answer, right):
    assert grade_by_rule(built_in("mayors", name), answer) is right


FORMATS = list(expand_field("d", "date", "1871-06-17").values())
OTHER_DAY = list(expand_field("d", "date", "1871-06-18").values())


@pytest.mark.parametrize("asked", ["", "mdy_", "dmy_", "dmy_written_", "iso_"])
def test_a_date_is_the_same_in_each_of_five_formats(asked):
    point = built_in("death_dates", f"death_date_eval_{asked}qa_1")
    assert all(grade_by_rule(point, f" {text}.") for text in FORMATS)
    assert grade_by_rule(point, " the 17th of June 1871") is False  # more than the date
    assert grade_by_rule(point, " 17th of June 1871")
    assert not any(grade_by_rule(point, text) for text in [*OTHER_DAY, "1871", "June 17"])


def test_files_from_elsewhere_are_graded_by_their_text():
    date = foreign(" {died}", died="March 14, 1931")
    assert grade_by_rule(date, " 1931-03-14")
    assert grade_by_rule(date, "14/03/1931")
    # The third of April or the fourth of March: not to be told, so not equivalent.
    either = foreign(" {died}", died="03/04/1931")
    assert grade_by_rule(either, "03/04/1931")
    assert not grade_by_rule(either, "March 4, 1931")
    assert not grade_by_rule(foreign(" {died}", died="March 4, 1931"), "03/04/1931")
    assert grade_by_rule(foreign(" {name_of_person}", name_of_person="Ruby Lane"), "Lane")
    assert not grade_by_rule(foreign(" {city}", city="Novi Sad"), "Sad")
    assert not grade_by_rule(foreign(" {a} and {b}", a="x", b="y"), "x")


def test_what_is_no_date_is_none():
    assert dates("31/02/1931") == set()
    assert dates("Marchember 3 1931") == set()
    assert dates("1931-13-01") == set()
    assert len(dates("03/04/1931")) == 2


def test_a_sampled_set_ranks_the_truth_among_the_model_s_own_wrong_answers(
    builder, tokenizers, olmo
):
    asked = builder("gen", "The mayor of {city} is", " {person}", n=3)
    samples = [
        [" Ruby Lane", " ruby lane", " Ivo Sand", " Nobody", " Nobody"],
        [" Ada Lanes", " Nobody", " ", " Max", " Max"],
        ["", "", "", "", ""],
    ]
    answers = graded(asked, samples, grade_by_rule)
    assert [(a.text, a.count, a.equivalent) for a in answers[0]] == [
        (" Nobody", 2, False),
        (" Ruby Lane", 1, True),
        (" ruby lane", 1, True),
        (" Ivo Sand", 1, False),
    ]
    made = sampled_set(asked, answers)
    rights = [point.completion for point in asked.eval_points]
    # " ruby lane" is the truth in other words, and is nobody's wrong answer.
    assert made.candidates == [*rights, " Nobody", " Max"]
    again = EvalDatasetBuilder.model_validate_json(made.model_dump_json(exclude_unset=True))
    assert again == made
    assert again.eval_points[0].sampled_answers[0] == {
        "text": " Nobody",
        "count": 2,
        "equivalent": False,
    }
    found = Evaluator(build_plan({"gen_sampled": again}, tokenizers["bos"])).evaluate(olmo)
    for row, right in zip(found.records, rights, strict=True):
        assert row["completion"] == right
        assert row["candidate_texts"] == made.candidates
        assert row["n_candidates"] == 5


def test_another_grader_stands_behind_the_same_call(builder):
    asked = builder("gen", "The mayor of {city} is", " {person}", n=1)

    def lenient(point, answer):
        return answer.strip()[:1] == point.completion.strip()[:1]

    assert [a.equivalent for a in graded(asked, [[" Rue", " Max"]], lenient)[0]] == [True, False]


def test_a_file_s_own_candidates_are_those_of_its_set(builder, tokenizers):
    asked = builder("gen", "The mayor of {city} is", " {person}", n=2)
    stated = asked.model_copy(update={"candidates": [" Nobody", " Ivo Sand", " Ruby Lane"]})
    planned = build_plan({"gen": stated}, tokenizers["bos"]).sets["gen"]
    assert planned.candidates == (" Nobody", " Ivo Sand", " Ruby Lane")
    assert planned.right_Q.tolist() == [2, 1]
    short = asked.model_copy(update={"candidates": [" Nobody", " Ivo Sand"]})
    with pytest.raises(ValueError, match="not among its candidates"):
        build_plan({"gen": short}, tokenizers["bos"])
