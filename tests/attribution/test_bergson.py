"""bergson's scores: in a limit that is known exactly, and beside kronfluence's."""

from dataclasses import replace

import numpy as np
import pytest
import small_run
from test_ekfac import products_of_linear_layers

from oocr_influence.attribution import ekfac
from oocr_influence.attribution.bergson import BergsonEKFAC, missing_packages
from oocr_influence.attribution.method import Subject
from oocr_influence.attribution.queries import make_queries
from oocr_influence.attribution.trained_documents import read_documents
from oocr_influence.evaluation.plan import build_plan
from oocr_influence.models.tiny import tiny_tokenizer

MISSING = missing_packages()


@pytest.fixture(scope="module", params=["masked", "concat"])
def subject(request, tmp_path_factory):
    run, _ = small_run.write_run(
        tmp_path_factory.mktemp("run"), small_run.documents(copies=2), packing=request.param
    )
    documents = read_documents(run)
    builders = small_run.make_sets()
    queries = make_queries(builders, build_plan(builders, tiny_tokenizer()), documents.facts)
    queries = replace(queries, rows=queries.rows[:5], passages=queries.passages[:5])
    model = small_run.small_model()
    model.save_pretrained(run.path / "model")
    tiny_tokenizer().save_pretrained(run.path / "model")
    return Subject(documents, queries, model), str(run.path / "model")


@pytest.mark.slow
@pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
def test_with_a_damping_beyond_all_curvature_it_is_the_product_of_gradients(subject):
    subject, folder = subject
    found = BergsonEKFAC(folder, folder, damping=1e9).score(subject)["ekfac_bergson"].scores_QD
    expected = products_of_linear_layers(subject)
    np.testing.assert_allclose(found * 1e9, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
def test_the_same_scores_again_and_near_kronfluences(subject):
    subject, folder = subject
    method = BergsonEKFAC(folder, folder)
    scores = method.score(subject)["ekfac_bergson"].scores_QD
    np.testing.assert_allclose(
        method.score(subject)["ekfac_bergson"].scores_QD, scores, rtol=1e-3, atol=1e-5
    )
    if ekfac.missing_packages() is None:
        other = ekfac.EKFAC().score(subject)["ekfac"].scores_QD
        assert np.corrcoef(scores.ravel(), other.ravel())[0, 1] > 0.9


@pytest.mark.skipif(MISSING is None, reason="bergson is installed")
def test_what_is_missing_is_named_with_the_remedy(subject):
    with pytest.raises(ImportError, match="pip install --no-deps bergson"):
        BergsonEKFAC("", "").score(subject[0])
