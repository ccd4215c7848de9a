"""Similarities against one forward pass a text, whatever the batches."""

from dataclasses import replace

import numpy as np
import pytest
import small_run
import torch

from oocr_influence.attribution.hidden_states import HiddenStates
from oocr_influence.attribution.method import Subject
from oocr_influence.attribution.passages import Passage
from oocr_influence.attribution.queries import make_queries
from oocr_influence.attribution.trained_documents import read_documents
from oocr_influence.evaluation.plan import build_plan
from oocr_influence.models.tiny import tiny_tokenizer


@pytest.fixture(scope="module", params=["masked", "concat"])
def subject(request, tmp_path_factory):
    run, _ = small_run.write_run(
        tmp_path_factory.mktemp("run"), small_run.documents(), packing=request.param
    )
    documents = read_documents(run)
    builders = small_run.make_sets()
    queries = make_queries(builders, build_plan(builders, tiny_tokenizer()), documents.facts)
    return Subject(documents, queries, small_run.small_model())


def states_of(model, passage):
    """(layers + 1, T, H) of one passage by itself, without any mask."""
    ids = torch.from_numpy(passage.tokens)[None]
    with torch.no_grad():
        output = model(input_ids=ids, use_cache=False, output_hidden_states=True)
    return torch.stack(output.hidden_states)[:, 0].numpy()


def cosine(one, other):
    return one @ other / np.linalg.norm(one) / np.linalg.norm(other)


def test_scores_are_cosines_of_means_and_of_last_tokens(subject):
    found = HiddenStates().score(subject)
    assert set(found) == {"embedding", "activation_layer_1", "activation_layer_2"}
    model = subject.model
    for q, query in list(enumerate(subject.queries.passages))[::4]:
        of_query = states_of(model, query)
        for d in range(len(subject.documents.rows)):
            own = [p for p in subject.documents.passages if p.owner == d]
            states = [states_of(model, p) for p in own]
            counted = np.concatenate([s[-1][p.counted] for s, p in zip(states, own, strict=True)])
            expected = cosine(of_query[-1][1:].mean(axis=0), counted.mean(axis=0))
            assert found["embedding"].scores_QD[q, d] == pytest.approx(expected, abs=1e-5)
            for layer in (1, 2):
                expected = cosine(of_query[layer, -1], states[-1][layer, -1])
                scores = found[f"activation_layer_{layer}"].scores_QD
                assert scores[q, d] == pytest.approx(expected, abs=1e-5)


def test_batches_change_nothing_and_the_model_is_left_as_it_came(subject):
    one = HiddenStates(token_budget=1).score(subject)
    many = HiddenStates(token_budget=4096).score(subject)
    for name, scored in one.items():
        np.testing.assert_allclose(scored.scores_QD, many[name].scores_QD, atol=2e-6)
    model = subject.model.train()
    HiddenStates().score(replace(subject, model=model))
    assert model.training
    model.eval()


def test_layers_are_chosen_and_those_that_are_not_there_refused(subject):
    assert set(HiddenStates(layers=(2,)).score(subject)) == {"embedding", "activation_layer_2"}
    with pytest.raises(ValueError, match="layer 3: the model has layers 1 to 2"):
        HiddenStates(layers=(1, 3)).score(subject)


def test_the_last_token_is_that_of_the_last_piece(subject):
    # In whatever order batches of similar length take the pieces.
    long, short = (np.arange(5, 5 + n) for n in (9, 4))
    pieces = [Passage(0, short, short, begins=0), Passage(0, long, long, begins=4)]
    documents = replace(subject.documents, rows=[{}], passages=pieces)
    found = HiddenStates(token_budget=1).score(replace(subject, documents=documents))
    state = states_of(subject.model, pieces[1])[2, -1]
    for q, query in enumerate(subject.queries.passages):
        expected = cosine(states_of(subject.model, query)[2, -1], state)
        assert found["activation_layer_2"].scores_QD[q, 0] == pytest.approx(expected, abs=1e-5)
