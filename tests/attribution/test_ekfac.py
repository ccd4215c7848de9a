"""kronfluence's scores: in a limit that is known exactly, and whatever the batches."""

from dataclasses import replace

import numpy as np
import pytest
import small_run
import torch

from oocr_influence.attribution.ekfac import EKFAC, missing_packages
from oocr_influence.attribution.gradients import Gradients
from oocr_influence.attribution.method import Subject
from oocr_influence.attribution.passages import window_batch
from oocr_influence.attribution.queries import make_queries
from oocr_influence.attribution.trained_documents import read_documents
from oocr_influence.evaluation.plan import build_plan
from oocr_influence.models import lora
from oocr_influence.models.loss import window_loss
from oocr_influence.models.tiny import tiny_tokenizer

MISSING = missing_packages()
needs_kronfluence = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    run, _ = small_run.write_run(tmp_path_factory.mktemp("run"), small_run.documents(copies=2))
    documents = read_documents(run)
    builders = small_run.make_sets()
    queries = make_queries(builders, build_plan(builders, tiny_tokenizer()), documents.facts)
    queries = replace(queries, rows=queries.rows[:5], passages=queries.passages[:5])
    return Subject(documents, queries, small_run.small_model())


def products_of_linear_layers(subject):
    """g_q · g_d by the weights of the decoder's linear layers, from our own loss."""
    parameters = [
        module.weight
        for module in subject.model.get_decoder().modules()
        if isinstance(module, torch.nn.Linear)
    ]

    def gradients(passages, n):
        rows = []
        for owner in range(n):
            loss = sum(
                window_loss(subject.model, window_batch([p], torch.device("cpu")))[0]
                for p in passages
                if p.owner == owner
            )
            rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
        return torch.stack(rows)

    one = gradients(subject.queries.passages, len(subject.queries.rows))
    return (one @ gradients(subject.documents.passages, len(subject.documents.rows)).T).numpy()


@pytest.mark.slow
@needs_kronfluence
def test_with_a_damping_beyond_all_curvature_it_is_the_product_of_gradients(subject):
    damping = 1e9
    found = EKFAC(damping=damping).score(subject)["ekfac"].scores_QD * damping
    expected = products_of_linear_layers(subject)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())
    assert np.abs(expected).max() > 1


@pytest.mark.slow
@needs_kronfluence
def test_the_same_scores_again_and_the_model_as_it_came(subject):
    model = subject.model
    before = {name: p.clone() for name, p in model.named_parameters()}
    names = [type(module) for module in model.modules()]
    state = torch.random.get_rng_state()
    scores = EKFAC().score(subject)["ekfac"].scores_QD
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [type(module) for module in model.modules()] == names
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert all(p.requires_grad for p in model.parameters())
    np.testing.assert_allclose(EKFAC().score(subject)["ekfac"].scores_QD, scores, rtol=1e-4)
    assert np.isfinite(scores).all()
    assert not np.allclose(scores, products_of_linear_layers(subject), rtol=0.1)


@pytest.mark.slow
@needs_kronfluence
def test_batches_change_no_scores_where_the_curvature_does_not_matter(subject):
    # With other batches other answers are drawn, to which the curvature is fitted.
    one = EKFAC(damping=1e9, batch_size=1).score(subject)["ekfac"].scores_QD
    many = EKFAC(damping=1e9, batch_size=16).score(subject)["ekfac"].scores_QD
    np.testing.assert_allclose(one, many, rtol=1e-3, atol=1e-4 * np.abs(one).max())


@pytest.mark.slow
@needs_kronfluence
@pytest.mark.skipif(lora.missing_package() is not None, reason=str(lora.missing_package()))
def test_of_an_adapted_model_the_adapter_counts(subject, tmp_path):
    adapted = replace(subject, model=small_run.adapted_model(tmp_path / "adapter"))
    found = EKFAC(damping=1e9).score(adapted)["ekfac"].scores_QD * 1e9
    expected = Gradients(projection=0).score(adapted)["gradient_dot"].scores_QD
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())


@pytest.mark.skipif(MISSING is None, reason="kronfluence is installed")
def test_what_is_missing_is_named_with_the_remedy(subject):
    with pytest.raises(ImportError, match="pip install --no-deps"):
        EKFAC().score(subject)
