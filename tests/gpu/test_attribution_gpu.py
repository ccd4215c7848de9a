"""Scores of documents on a GPU: those of the CPU in float32, and near them in bf16."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from oocr_influence.attribution.ekfac import EKFAC, missing_packages
from oocr_influence.attribution.gradients import Gradients
from oocr_influence.attribution.hidden_states import HiddenStates
from oocr_influence.attribution.method import Subject
from oocr_influence.attribution.queries import make_queries
from oocr_influence.attribution.trained_documents import read_documents
from oocr_influence.evaluation.plan import build_plan
from oocr_influence.models.tiny import tiny_tokenizer

sys.path.append(str(Path(__file__).parents[1] / "attribution"))
import small_run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture
def scores(tmp_path):
    run, _ = small_run.write_run(tmp_path, small_run.documents())
    documents = read_documents(run)
    builders = small_run.make_sets()
    queries = make_queries(builders, build_plan(builders, tiny_tokenizer()), documents.facts)

    def of(method, device, dtype=torch.float32):
        model = small_run.small_model().to(device, dtype)
        found = method.score(Subject(documents, queries, model))
        return {name: scored.scores_QD for name, scored in found.items()}

    return of


@pytest.mark.parametrize("method", [HiddenStates(), Gradients(projection=0), Gradients(8)])
def test_the_device_changes_nothing_in_float32(scores, method):
    there, here = scores(method, "cuda"), scores(method, "cpu")
    assert set(there) == set(here)
    for name, expected in here.items():
        scale = np.abs(expected).max()
        np.testing.assert_allclose(there[name], expected, rtol=2e-3, atol=2e-3 * scale)


@pytest.mark.parametrize("method", [HiddenStates(), Gradients(projection=0), Gradients(8)])
def test_bf16_gives_nearly_the_same(scores, method):
    there, here = scores(method, "cuda", torch.bfloat16), scores(method, "cpu")
    for name, expected in here.items():
        assert np.isfinite(there[name]).all()
        assert np.corrcoef(there[name].ravel(), expected.ravel())[0, 1] > 0.95, name


@pytest.mark.skipif(missing_packages() is not None, reason=str(missing_packages()))
def test_ekfac_in_the_limit_of_large_damping(scores):
    there = scores(EKFAC(damping=1e9), "cuda")["ekfac"]
    here = scores(EKFAC(damping=1e9), "cpu")["ekfac"]
    np.testing.assert_allclose(there, here, rtol=5e-3, atol=5e-3 * np.abs(here).max())
