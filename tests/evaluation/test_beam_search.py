"""Beam search over all sets at once finds what transformers' `generate` finds prompt by prompt."""

import logging

import pytest
import torch

from oocr_influence.evaluation import beam_search
from oocr_influence.evaluation.beam_search import BeamQuery, gives_answer, search, set_queries
from oocr_influence.evaluation.plain import answer_logprobs
from oocr_influence.evaluation.tokens import encode

BUDGET = 300
PROMPTS = ["The mayor of Lagos is", "Q: Who leads Novi Sad? A:", "Ada", "Ruby Sand is the mayor of"]


def transformers_beams(model, query):
    """(tokens without what follows EOS, score per token) of each returned sequence."""
    output = model.generate(
        input_ids=torch.tensor([query.prompt]),
        attention_mask=torch.ones(1, len(query.prompt), dtype=torch.int64),
        num_beams=query.num_beams,
        num_return_sequences=query.num_return_sequences,
        max_new_tokens=query.max_new_tokens,
        do_sample=False,
        pad_token_id=1,
        return_dict_in_generate=True,
        output_scores=True,
    )
    eos = model.generation_config.eos_token_id
    eos = eos if isinstance(eos, list) else [eos]
    beams = []
    for row, score in zip(output.sequences, output.sequences_scores, strict=True):
        tokens = row[len(query.prompt) :].tolist()
        ends = [place for place, token in enumerate(tokens) if token in eos]
        beams.append((tuple(tokens[: ends[0] + 1] if ends else tokens), float(score)))
    return beams


def queries_for(tokenizer, *, steps, beams, returned):
    return [BeamQuery(steps, beams, returned, tokens) for tokens in encode(tokenizer, PROMPTS)]


def refuse(*args, **kwargs):
    raise AssertionError("fell back to transformers, which is what we compare with")


def assert_same_beams(model, queries):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beam_search, "search_plain", refuse)
        found = search(model, queries, token_budget=BUDGET)
    for query in queries:
        expected = transformers_beams(model, query)
        assert [beam.tokens for beam in found[query]] == [tokens for tokens, _ in expected]
        for beam, (_, score) in zip(found[query], expected, strict=True):
            assert beam.logprob / len(beam.tokens) == pytest.approx(score, abs=1e-5)
    return found


@pytest.mark.parametrize("family", ["olmo2", "llama", "qwen3", "gpt2"])
@pytest.mark.parametrize(("steps", "beams", "returned"), [(1, 4, 4), (5, 4, 3), (6, 12, 10)])
def test_equal_to_transformers(family, steps, beams, returned, tokenizers, make_model):
    model = make_model(family).eval()
    queries = queries_for(tokenizers["bos"], steps=steps, beams=beams, returned=returned)
    assert_same_beams(model, queries)


@pytest.mark.parametrize(("n_eos", "spread"), [(1, 0.3), (2, 0.3), (40, 0.3), (5, 0.1)])
def test_equal_to_transformers_where_completions_end_early(n_eos, spread, tokenizers, make_model):
    model = make_model("olmo2", initializer_range=spread).eval()
    queries = queries_for(tokenizers["bos"], steps=7, beams=4, returned=4)
    probable = search(model, queries, token_budget=BUDGET)
    often = [token for beams in probable.values() for beam in beams for token in beam.tokens]
    eos = sorted(dict.fromkeys(often), key=often.count, reverse=True)[:n_eos]
    model.generation_config.eos_token_id = eos if n_eos > 1 else eos[0]
    found = assert_same_beams(model, queries)
    lengths = {len(beam.tokens) for beams in found.values() for beam in beams}
    assert min(lengths) < 7
    assert any(beam.tokens[-1] in eos for beams in found.values() for beam in beams)


def test_equal_to_transformers_without_an_eos(tokenizers, make_model):
    model = make_model("olmo2", eos_token_id=None).eval()
    model.generation_config.eos_token_id = None
    queries = queries_for(tokenizers["bos"], steps=4, beams=3, returned=2)
    assert all(
        len(b.tokens) == 4 for beams in assert_same_beams(model, queries).values() for b in beams
    )


def test_scores_are_the_model_s_own(tokenizers, olmo):
    queries = queries_for(tokenizers["bos"], steps=5, beams=4, returned=4)
    for query, beams in search(olmo, queries, token_budget=BUDGET).items():
        for beam in beams:
            plain = answer_logprobs(olmo, query.prompt, beam.tokens)
            assert beam.logprob == pytest.approx(float(plain.detach().sum()), abs=1e-4)


def test_batching_changes_nothing(tokenizers, olmo):
    queries = [
        query
        for steps, beams in ((3, 4), (5, 4), (5, 2))
        for query in queries_for(tokenizers["bos"], steps=steps, beams=beams, returned=2)
    ]
    together = search(olmo, queries + queries[:3], token_budget=100_000)
    for query in queries:
        alone = search(olmo, [query], token_budget=1)[query]
        assert [beam.tokens for beam in alone] == [beam.tokens for beam in together[query]]
        for one, other in zip(alone, together[query], strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-5)


def test_equal_prompts_of_equal_settings_are_searched_once(plan, olmo):
    progress = []
    queries = [q for name in ("gen", "gen", "qa_fs") for q in set_queries(plan, plan.sets[name])]
    found = search(olmo, queries, token_budget=BUDGET, progress=progress.append)
    assert sum(progress) == len(found) == len(set(queries)) == 14


def test_as_many_tokens_as_the_longest_candidate(plan):
    planned = plan.sets["gen"]
    longest = max(len(plan.answer(path)) for path in planned.path_QC.ravel())
    queries = set_queries(plan, planned)
    assert {query.max_new_tokens for query in queries} == {longest}
    assert {(query.num_beams, query.num_return_sequences) for query in queries} == {(4, 3)}


def test_a_fault_in_the_branches_is_noticed_and_transformers_takes_over(
    tokenizers, olmo, monkeypatch, caplog
):
    """The planted fault: every beam sees every other one."""
    queries = queries_for(tokenizers["bos"], steps=5, beams=4, returned=3)
    right = search(olmo, queries, token_budget=BUDGET)
    monkeypatch.setattr(
        beam_search.BeamState,
        "seen",
        lambda state: torch.ones(
            len(state._open_B), state._n_beams, state.step * state._n_beams, dtype=torch.bool
        ),
    )
    with caplog.at_level(logging.WARNING):
        found = search(olmo, queries, token_budget=BUDGET)
    assert "through transformers" in caplog.text
    for query in queries:
        assert [beam.tokens for beam in found[query]] == [beam.tokens for beam in right[query]]


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        (" Ada Lane", " Ada Lane", True),
        ("Ada Lane", " Ada Lane", True),
        (" Ada Lane. She", " Ada Lane", True),
        (" Ada Lane\nQ", " Ada Lane", True),
        (" Ada Laneham", " Ada Lane", False),
        (" Ada", " Ada Lane", False),
        (" 12 May 19", " 12 May 1", False),
        (" the Ada Lane", " Ada Lane", False),
    ],
)
def test_what_counts_as_giving_the_answer(text, answer, expected):
    assert gives_answer(text, answer) is expected
