"""Gradient scores say, in sign and size, what a small SGD step on a document does to an answer."""

from dataclasses import replace

import numpy as np
import pytest
import small_run
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from oocr_influence.attribution.adam import moments_of
from oocr_influence.attribution.gradients import (
    Gradients,
    Projection,
    differentiating,
    flat,
    trained_parameters,
)
from oocr_influence.attribution.method import Subject
from oocr_influence.attribution.passages import window_batch
from oocr_influence.attribution.queries import make_queries
from oocr_influence.attribution.trained_documents import read_documents
from oocr_influence.evaluation.plan import build_plan
from oocr_influence.models import lora
from oocr_influence.models.loss import window_loss
from oocr_influence.models.tiny import tiny_tokenizer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    run, _ = small_run.write_run(
        tmp_path_factory.mktemp("run"), small_run.documents(copies=2, long_words=30)
    )
    documents = read_documents(run)
    builders = {
        name: builder for name, builder in small_run.make_sets().items() if name.endswith("1_no_fs")
    }
    queries = make_queries(builders, build_plan(builders, tiny_tokenizer()), documents.facts)
    queries = replace(queries, rows=queries.rows[:4], passages=queries.passages[:4])
    return Subject(documents, queries, small_run.small_model())


def loss_of(model, passages):
    return sum(window_loss(model, window_batch([p], CPU))[0] for p in passages)


def plain_loss(model, passage):
    """Without any of our own loss: transformers' logits, float64."""
    logits = model(input_ids=torch.from_numpy(passage.tokens)[None], use_cache=False).logits[0]
    labels = torch.from_numpy(passage.labels)
    return F.cross_entropy(logits[:-1], labels[1:], ignore_index=-100, reduction="sum")


def naive_gradients(subject, parameters):
    """(N, P) of all queries, then of all documents, by autograd over whole sums."""
    queries, documents = subject.queries, subject.documents
    owned = [[p for p in queries.passages if p.owner == q] for q in range(len(queries.rows))]
    owned += [[p for p in documents.passages if p.owner == d] for d in range(len(documents.rows))]
    rows = []
    for passages in owned:
        found = torch.autograd.grad(
            loss_of(subject.model, passages), parameters, allow_unused=True, materialize_grads=True
        )
        rows.append(torch.cat([g.flatten() for g in found]))
    n = len(queries.rows)
    return torch.stack(rows[:n]), torch.stack(rows[n:])


def test_a_small_step_on_a_document_moves_the_answer_by_its_score(subject):
    scores = Gradients(projection=0).score(subject)["gradient_dot"].scores_QD
    model = small_run.small_model().double()  # norms and rotary angles stay float32
    parameters = list(model.parameters())
    before = [p.detach().clone() for p in parameters]
    rate = 1e-5
    for d in range(len(subject.documents.rows)):
        own = [p for p in subject.documents.passages if p.owner == d]
        step = torch.autograd.grad(sum(plain_loss(model, p) for p in own), parameters)
        gained = []
        for sign in (-1, 1):  # down the loss, and up it: the quotient's error is of second order
            with torch.no_grad():
                for p, old, g in zip(parameters, before, step, strict=True):
                    p.copy_(old + sign * rate * g)
                gained.append([-float(plain_loss(model, p)) for p in subject.queries.passages])
        with torch.no_grad():
            for p, old in zip(parameters, before, strict=True):
                p.copy_(old)
        quotient = (np.array(gained[0]) - np.array(gained[1])) / (2 * rate)
        np.testing.assert_allclose(scores[:, d], quotient, rtol=2e-3, atol=2e-2)
    assert (scores > 0).any()
    assert (np.abs(scores) > 1).any()


def test_products_are_those_of_whole_gradients(subject):
    found = Gradients(projection=0).score(subject)
    queries, documents = naive_gradients(subject, list(subject.model.parameters()))
    dots = queries @ documents.T
    torch.testing.assert_close(
        torch.from_numpy(found["gradient_dot"].scores_QD), dots, rtol=1e-3, atol=1e-2
    )
    cosines = dots / queries.norm(dim=1)[:, None] / documents.norm(dim=1)
    torch.testing.assert_close(
        torch.from_numpy(found["gradient_cosine"].scores_QD), cosines, rtol=1e-3, atol=1e-5
    )
    assert "exact" in found["gradient_dot"].unit


def test_copies_score_alike_and_pieces_are_summed(subject):
    scores = Gradients(projection=0).score(subject)["gradient_dot"].scores_QD
    rows = subject.documents.rows
    copies = [d for d, row in enumerate(rows) if row["id"] == "Lagos0"]
    assert len(copies) == 2
    np.testing.assert_allclose(scores[:, copies[0]], scores[:, copies[1]], rtol=1e-4)
    cut = next(d for d, row in enumerate(rows) if row["id"] == "Lima1")
    pieces = [p for p in subject.documents.passages if p.owner == cut]
    assert len(pieces) > 1
    alone = replace(
        subject,
        documents=replace(
            subject.documents,
            rows=[{"times": 1}] * len(pieces),
            passages=[replace(p, owner=n) for n, p in enumerate(pieces)],
        ),
    )
    of_pieces = Gradients(projection=0).score(alone)["gradient_dot"].scores_QD
    np.testing.assert_allclose(of_pieces.sum(axis=1), scores[:, cut], rtol=1e-3, atol=0.1)


def test_projected_products_are_unbiased_and_closer_with_more_numbers(subject):
    exact = Gradients(projection=0).score(subject)["gradient_cosine"].scores_QD

    def errors(k):
        drawn = [
            Gradients(projection=k, seed=s).score(subject)["gradient_cosine"].scores_QD
            for s in range(6)
        ]
        return np.stack(drawn) - exact

    few, many = errors(4), errors(24)
    assert np.abs(many).mean() < 0.5 * np.abs(few).mean()
    assert np.abs(many.mean(axis=0)).mean() < 0.05
    draw = torch.Generator().manual_seed(0)
    shapes = [(9, 6), (3, 20), (12,), (2, 3)]
    named = [(str(n), torch.nn.Parameter(torch.zeros(*s))) for n, s in enumerate(shapes)]
    one, other = ([torch.randn(*s, generator=draw) + 0.5 for s in shapes] for _ in range(2))
    products = []
    for seed in range(600):
        project = Projection(named, 4, seed)
        products.append(float(project(one) @ project(other)))
    assert len(project(one)) == 4 * 4 + 3 * 4 + 4 + 2 * 3
    spread = np.std(products) / 600**0.5
    assert abs(np.mean(products) - float(flat(one) @ flat(other))) < 3 * spread


def test_the_seed_decides_and_nothing_else(subject):
    one = Gradients(projection=8, seed=3).score(subject)["gradient_dot"].scores_QD
    torch.manual_seed(99)
    assert np.array_equal(
        one, Gradients(projection=8, seed=3).score(subject)["gradient_dot"].scores_QD
    )
    other = Gradients(projection=8, seed=4).score(subject)["gradient_dot"].scores_QD
    assert not np.allclose(one, other)


def test_size_decides_where_nobody_does():
    assert Gradients().chosen_projection(100, 3_000_000) == 0
    assert Gradients().chosen_projection(100, 7_000_000_000) == 16
    assert Gradients(projection=0).chosen_projection(100, 7_000_000_000) == 0
    assert Gradients(projection=4).chosen_projection(1, 10) == 4


def test_the_last_layers_alone(subject):
    model = subject.model
    named = trained_parameters(model, last_layers=1)
    assert {name.split(".")[2] for name, _ in named} == {"1"}
    found = Gradients(projection=0, last_layers=1).score(subject)["gradient_dot"].scores_QD
    queries, documents = naive_gradients(subject, [p for _, p in named])
    torch.testing.assert_close(torch.from_numpy(found), queries @ documents.T, rtol=1e-3, atol=1e-2)
    with pytest.raises(ValueError, match="the model has 2"):
        trained_parameters(model, last_layers=3)


def test_frozen_parameters_do_not_count_and_the_model_is_left_as_it_came(subject):
    model = small_run.small_model()
    before = {name: p.clone() for name, p in model.named_parameters()}
    model.get_input_embeddings().weight.requires_grad_(False)
    model.train()
    Gradients(projection=4).score(replace(subject, model=model))
    assert model.training
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == [
        "model.embed_tokens.weight"
    ]
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert all(p.grad is None for p in model.parameters())
    with differentiating(model, []):
        assert not any(p.requires_grad for p in model.parameters())


def test_adams_moments_weigh_each_parameter(subject, tmp_path):
    model = subject.model
    squares = {
        name: torch.rand(p.shape, generator=torch.Generator().manual_seed(len(name))) + 0.01
        for name, p in model.named_parameters()
    }
    (tmp_path / "optimizer").mkdir()
    save_file(
        {f"exp_avg_sq.{name}": v for name, v in squares.items()},
        tmp_path / "optimizer" / "moments.safetensors",
        metadata={"step": "7", "adamw": '{"lr": 0.1, "betas": [0.9, 0.99], "eps": 0.5}'},
    )
    method = Gradients(projection=0, moments=str(moments_of(tmp_path)))
    found = method.score(subject)
    assert set(found) == {"gradient_dot_adam", "gradient_cosine_adam"}
    # AdamW sees the mean over a batch, the score is of a document's sum.
    assert "times the labelled tokens of a batch" in found["gradient_dot_adam"].unit
    queries, documents = naive_gradients(subject, list(model.parameters()))
    flat = torch.cat([squares[name].flatten() for name, _ in model.named_parameters()])
    scaled = documents / ((flat / (1 - 0.99**7)).sqrt() + 0.5)
    torch.testing.assert_close(
        torch.from_numpy(found["gradient_dot_adam"].scores_QD),
        queries @ scaled.T,
        rtol=1e-3,
        atol=1e-2,
    )
    with pytest.raises(FileNotFoundError, match="save_optimizer"):
        moments_of(tmp_path / "none")


@pytest.mark.skipif(lora.missing_package() is not None, reason=str(lora.missing_package()))
def test_of_an_adapted_model_the_adapter_counts(subject, tmp_path):
    model = small_run.adapted_model(tmp_path / "adapter")
    named = trained_parameters(model)
    assert len(named) == 2 * 7 * 2  # A and B of seven linear layers in each of two
    assert all(".lora_" in name for name, _ in named)
    assert not any(p.requires_grad for _, p in model.named_parameters() if p is named[0][1])
    adapted = replace(subject, model=model)
    found = Gradients(projection=0).score(adapted)["gradient_dot"].scores_QD
    for _, p in named:
        p.requires_grad_(True)
    queries, documents = naive_gradients(adapted, [p for _, p in named])
    torch.testing.assert_close(torch.from_numpy(found), queries @ documents.T, rtol=1e-3, atol=1e-2)
    assert np.abs(found).max() > 1
