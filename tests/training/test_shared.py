"""Two and four processes train and ask as one does: gradients, losses, records, states.

The processes are real ones, on the CPU through gloo; what one process makes is expected.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

WORKER = Path(__file__).with_name("shared_worker.py")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def work(size, folder):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(rank), str(size), str(folder)], env=environment
        )
        for rank in range(size)
    ]
    try:
        assert [process.wait(1500) for process in processes] == [0] * size
    finally:
        for process in processes:
            process.kill()
    return torch.load(folder / f"{size}.pt", weights_only=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def one(folder):
    return work(1, folder)


@pytest.fixture(scope="module", params=[2, 4])
def several(request, folder, one):
    return request.param, work(request.param, folder)


def assert_close(found, expected, tolerance=1e-6):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=1e-4, atol=tolerance), name


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("case", ["gradients", "one_micro_batch", "tied", "recomputed"])
def test_gradients_loss_and_norm_are_those_of_one_process(several, one, case):
    found, expected = several[1][case], one[case]
    assert found["labels"] == expected["labels"]
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    assert found["norm"] == pytest.approx(expected["norm"], rel=1e-5)
    assert found["factor"] == pytest.approx(expected["factor"], rel=1e-5)
    assert expected["norm"] > 0.5, "nothing was clipped"
    assert_close(found["gradients"], expected["gradients"])


def test_losses_of_twelve_steps_are_those_of_one_process(several, one):
    found, expected = several[1]["training"], one["training"]
    assert found["windows"] == expected["windows"]
    assert len(found["losses"]) == 12
    assert expected["losses"][0] - expected["losses"][-1] > 0.1, "nothing was learned"
    assert found["losses"] == pytest.approx(expected["losses"], abs=1e-5)
    assert found["norms"] == pytest.approx(expected["norms"], rel=1e-4)
    assert_close(found["weights"], expected["weights"], 1e-4)
    assert torch.equal(found["exposures"], expected["exposures"])


def test_a_state_is_that_of_one_process(several, one):
    found, expected = several[1]["training"]["state"], one["training"]["state"]
    assert_close(found["model"], expected["model"], 1e-4)
    moments = expected["optimizer"]["state"]
    assert found["optimizer"]["state"].keys() == moments.keys()
    for index, own in moments.items():
        assert_close(found["optimizer"]["state"][index], own, 1e-4)
    assert expected.keys() | {"processes_random"} == found.keys()


def test_going_on_gives_the_same_bits_with_dropout(several):
    whole, rest = several[1]["dropout"], several[1]["resumed"]
    assert whole["losses"] != several[1]["training"]["losses"], "there was no dropout"
    assert rest["losses"] == whole["losses"][5:]
    assert_same(rest["weights"], whole["weights"])
    assert torch.equal(rest["exposures"], whole["exposures"])


def test_a_state_of_one_process_is_gone_on_with_by_several(several, one):
    assert several[1]["from_one"]["losses"] == pytest.approx(
        one["training"]["losses"][5:], abs=1e-5
    )
    assert one["resumed"]["losses"] == one["training"]["losses"][5:]


def test_a_state_of_several_processes_is_gone_on_with_by_one(several, one):
    sys.path.append(str(WORKER.parent))
    from shared_worker import training

    from oocr_influence.models.team import ALONE

    rest = training(ALONE, start=several[1]["training"]["state"])
    assert rest["losses"] == pytest.approx(one["training"]["losses"][5:], abs=1e-5)


def test_shared_evaluations_are_those_of_one_process_to_the_bit(several, one):
    assert several[1]["evaluations"] == one["evaluations"]


def test_processes_that_have_different_things_before_them_say_so(several, one):
    assert "differ in their ranks: 0, 1" in several[1]["agreement"]
    assert one["agreement"] is None
