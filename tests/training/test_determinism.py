"""Deterministic kernels are asked for while a run lasts, and the environment is right for them."""

import os

import pytest
import torch

from oocr_influence.training.determinism import (
    VARIABLE,
    deterministic_algorithms,
    workspace_fault,
)


def state():
    cudnn = torch.backends.cudnn
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        cudnn.deterministic,
        cudnn.benchmark,
    )


@pytest.fixture
def unset(monkeypatch):
    monkeypatch.setenv(VARIABLE, "")  # so that what a test sets is taken back
    monkeypatch.delenv(VARIABLE)


def test_all_is_set_and_put_back(unset):
    before = state()
    with deterministic_algorithms(True):
        assert state() == (True, False, True, False)
        assert os.environ[VARIABLE] == ":4096:8"
    assert state() == before
    with pytest.raises(KeyError), deterministic_algorithms(True):
        raise KeyError
    assert state() == before


def test_nothing_is_set_where_it_is_not_asked_for(unset):
    before = state()
    with deterministic_algorithms(False):
        assert state() == before
        assert VARIABLE not in os.environ


def test_a_workspace_of_ones_own_is_kept_or_refused(monkeypatch, unset):
    monkeypatch.setenv(VARIABLE, ":16:8")
    with deterministic_algorithms(True):
        assert os.environ[VARIABLE] == ":16:8"
    monkeypatch.setenv(VARIABLE, ":0:0")
    with pytest.raises(RuntimeError, match=":0:0 is not deterministic"):
        deterministic_algorithms(True).__enter__()


def test_a_gpu_in_use_without_a_workspace_is_too_late(monkeypatch, unset):
    assert workspace_fault() is None
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert "before it starts" in workspace_fault()
    monkeypatch.setenv(VARIABLE, ":4096:8")
    assert workspace_fault() is None
