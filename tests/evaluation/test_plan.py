"""A plan reads each prompt behind one BOS, scores each completion in full, and repeats nothing."""

import json

import numpy as np
import pytest

from oocr_influence.datasets.document_dataset import eval_point_id
from oocr_influence.evaluation.plan import build_plan
from oocr_influence.evaluation.tokens import encode, split_pair


class Wrapped:
    """A tokenizer seen through a window that counts, or that adds a BOS whatever it is told."""

    def __init__(self, tokenizer, *, adds=0):
        self.tokenizer, self.adds, self.seen = tokenizer, adds, []
        self.bos_token_id = tokenizer.bos_token_id

    def __call__(self, texts, **options):
        self.seen += texts
        rows = self.tokenizer(texts, **options)["input_ids"]
        return {"input_ids": [[self.bos_token_id] * self.adds + row for row in rows]}


@pytest.mark.parametrize("name", ["bos", "adds_bos", "merging"])
def test_one_bos_stands_before_every_prompt(name, builders, tokenizers):
    tokenizer = tokenizers[name]
    plan = build_plan(builders, tokenizer)
    for prefix in plan.prefixes:
        assert prefix[0] == tokenizer.bos_token_id
        assert prefix.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("adds", [0, 1, 2])
def test_never_two_bos_even_if_the_tokenizer_or_the_text_adds_one(adds, tokenizers):
    rows = encode(Wrapped(tokenizers["bos"], adds=adds), ["<s>Lima is", "Lima is", ""])
    assert [row.count(0) for row in rows] == [1, 1, 1]
    assert rows[0] == rows[1]


def test_no_bos_where_the_tokenizer_has_none(builders, tokenizers):
    assert tokenizers["no_bos"].bos_token_id is None
    plan = build_plan(builders, tokenizers["no_bos"])
    assert all(0 not in prefix for prefix in plan.prefixes)


@pytest.mark.parametrize("name", ["bos", "no_bos", "merging"])
def test_prefix_and_answer_are_the_joint_tokens(name, builders, tokenizers):
    tokenizer = tokenizers[name]
    plan = build_plan(builders, tokenizer)
    group_P = plan.path_group_P
    for planned in plan.sets.values():
        for question, prompt in enumerate(planned.prompts):
            for column, path in enumerate(planned.path_QC[question]):
                text = prompt + planned.candidate(question, column)
                joint = [*plan.prefixes[group_P[path]], *plan.answer(path)]
                assert joint == list(encode(tokenizer, [text])[0])
                assert len(plan.answer(path)) >= 1
                # The whole completion is scored, whatever the tokenizer merges.
                answer = tokenizer.decode(plan.answer(path))
                assert answer.endswith(planned.candidate(question, column))


def test_merged_pairs_are_flagged_where_the_boundary_merges(builders, tokenizers):
    plain = build_plan(builders, tokenizers["bos"])
    assert not any(planned.merged_QC.any() for planned in plain.sets.values())
    merging = build_plan(builders, tokenizers["merging"])
    merged = np.concatenate([planned.merged_QC.ravel() for planned in merging.sets.values()])
    assert merged.any()
    assert not merged.all()


def test_split_pair():
    assert vars(split_pair((0, 5, 6), (0, 5, 6, 7))) == {
        "prefix": (0, 5, 6),
        "answer": (7,),
        "merged": False,
    }
    merged = split_pair((0, 5, 6), (0, 5, 9, 7))
    assert (merged.prefix, merged.answer, merged.merged) == ((0, 5), (9, 7), True)
    swallowed = split_pair((0, 5, 6), (0, 5, 6))  # a tokenizer that drops the completion's space
    assert (swallowed.prefix, swallowed.answer, swallowed.merged) == ((0, 5), (6,), True)
    assert split_pair((), (7, 8)) is None  # nothing to read
    assert split_pair((5,), (9,)) is None  # nothing left to read once merged


def test_a_pair_that_cannot_be_scored_is_refused(builder, tokenizers):
    one = {"one": builder("one", "", " {city}")}
    with pytest.raises(ValueError, match="no token to read"):
        build_plan(one, tokenizers["no_bos"])


def test_prompts_shared_by_sets_are_read_once(plan):
    group_P = plan.path_group_P
    gen, first = plan.sets["gen"], plan.sets["first"]
    assert gen.prompts == first.prompts
    assert (group_P[gen.path_QC[:, 0]] == group_P[first.path_QC[:, 0]]).all()
    assert len(set(plan.prefixes)) == len(plan.prefixes)
    paths = [(group_P[path], plan.answer(path)) for path in range(plan.n_paths)]
    assert len(set(paths)) == len(paths)
    assert (np.diff(group_P) >= 0).all()


def test_each_distinct_text_is_tokenised_once(builders, tokenizers):
    counting = Wrapped(tokenizers["bos"])
    build_plan(builders, counting)
    assert len(counting.seen) == len(set(counting.seen))


@pytest.mark.parametrize("name", ["bos", "no_bos", "adds_bos"])
def test_last_words_stand_for_the_whole_text(name, builders, tokenizers):
    """The short way around gives the tokens of the long one, from fewer texts."""
    tokenizer = tokenizers[name]
    short, long = Wrapped(tokenizer), Wrapped(tokenizer)
    short.backend_tokenizer = tokenizer.backend_tokenizer
    plans = [build_plan(builders, one) for one in (short, long)]
    assert plans[0].digest == plans[1].digest
    texts = {p + c for name in builders if name != "loss_only" for p, c in pairs(builders[name])}
    assert set(long.seen) >= texts
    assert len(texts & set(short.seen)) < len(texts) / 2


def pairs(builder):
    answers = [point.completion for point in builder.eval_points]
    return [(point.prompt, answer) for point in builder.eval_points for answer in answers]


@pytest.mark.parametrize("lies", [False, True])
def test_a_tokenizer_without_words_is_asked_for_every_pair(lies, builders, tokenizers):
    """Also one whose backend claims words that it does not keep to."""
    tokenizer = Wrapped(tokenizers["merging"])
    backend = tokenizers["bos" if lies else "merging"].backend_tokenizer
    expected = build_plan(builders, tokenizer)
    tokenizer.backend_tokenizer = backend
    assert build_plan(builders, tokenizer).digest == expected.digest


def test_candidates_are_the_distinct_completions_in_order(plan, builder, tokenizers):
    planned = plan.sets["gen"]
    assert planned.candidates == planned.completions
    doubled = builder("d", "Of {city}:", " Yes", n=3)
    doubled.eval_points[1].fact_template = doubled.eval_points[1].fact_template.model_copy(
        update={"completion": " No"}
    )
    both = build_plan({"d": doubled}, tokenizers["bos"]).sets["d"]
    assert both.candidates == (" Yes", " No")
    assert both.right_Q.tolist() == [0, 1, 0]


def test_a_subset_is_ranked_among_the_full_file(builder, tokenizers):
    full = builder("gen", "The mayor of {city} is", " {person}")
    part = full.model_copy(update={"eval_points": full.eval_points[2:4]})
    everyone = [point.completion for point in full.eval_points]
    planned = build_plan({"g": part}, tokenizers["bos"], candidates={"g": everyone}).sets["g"]
    assert planned.candidates == tuple(everyone)
    assert planned.right_Q.tolist() == [2, 3]
    with pytest.raises(ValueError, match=r"set 'g'.* is not among its candidates"):
        build_plan({"g": part}, tokenizers["bos"], candidates={"g": everyone[:3]})


def test_shown_marks_the_answers_of_the_examples(plan):
    planned = plan.sets["qa_fs"]
    assert planned.shown_QC.sum(1).tolist() == [2] * 7
    assert planned.shown_QC[0].tolist() == [False, True, True, False, False, False, False]
    assert not plan.sets["gen"].shown_QC.any()


def test_digest_follows_content(builders, builder, tokenizers):
    digest = build_plan(builders, tokenizers["bos"]).digest
    assert build_plan(builders, tokenizers["bos"]).digest == digest
    assert build_plan(builders, tokenizers["no_bos"]).digest != digest
    changed = {**builders, "gen": builder("gen", "The mayor of {city} was", " {person}")}
    assert build_plan(changed, tokenizers["bos"]).digest != digest
    renamed = {("g" if name == "gen" else name): value for name, value in builders.items()}
    assert build_plan(renamed, tokenizers["bos"]).digest != digest


def test_rows_of_the_stored_eval_dataset(plan):
    rows = plan.eval_dataset_rows("qa_fs")
    planned = plan.sets["qa_fs"]
    for index, row in enumerate(rows):
        assert row["id"] == eval_point_id(index, row["prompt"], row["completion"])
        assert len(row["input_ids"]) == len(row["labels"]) == len(row["attention_mask"])
        labelled = [token for token in row["labels"] if token != -100]
        assert tuple(labelled) == plan.answer(planned.right_path_Q[index])
        assert row["labels"][-len(labelled) :] == row["input_ids"][-len(labelled) :]
        assert json.loads(row["features"])["fields"]["city"] in row["prompt"]
        assert json.loads(row["fact_template"])["id"] == "qa_fs"
        shown = json.loads(row["few_shot_examples"])
        lines = [example["prompt"] + example["completion"] for example in shown]
        assert row["prompt"].startswith("\n".join(lines) + "\n")


def test_a_set_without_questions_is_planned(builder, tokenizers):
    empty = builder("e", "{city}", " x", n=0)
    plan = build_plan({"e": empty}, tokenizers["bos"])
    assert (plan.n_paths, plan.prefixes, plan.eval_dataset_rows("e")) == (0, (), [])
