"""One suite for every engine that is not this machine's own: Slurm and Ray, for real."""

import os
import shutil
import signal
import subprocess
from uuid import uuid4

import pytest
from engine_processes import eventually, pids_with
from engine_toys import TOY, becomes, begun, said, toy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def nothing_is_left_of(worker):
    return not pids_with(f"LAUNCHER_WORKER={worker.token}")


def test_a_worker_begins_runs_and_is_gone(engine, tmp_path):
    engine.check()
    worker = toy(tmp_path, seconds=1.5)
    engine.start(worker)
    engine.start(worker)  # as a driver does that does not know whether the first one was heard
    states = [*becomes(engine, worker, "running"), *becomes(engine, worker, "gone")]

    assert states == sorted(states, key=["queued", "running", "gone"].index)
    assert [record["event"] for record in said(worker)] == ["begun", "ended"]
    assert f"worker {worker.token} has begun" in worker.log.read_text()
    stranger = uuid4().hex
    assert engine.states([stranger, worker.token]) == {stranger: "gone", worker.token: "gone"}
    engine.stop([stranger, worker.token], firm=True)  # no error


def test_eight_workers_share_no_gpu_and_a_stop_reaches_them(engine, tmp_path):
    workers = [toy(tmp_path, label=f"worker {number}") for number in range(8)]
    for worker in workers:
        engine.start(worker)
    held = [(begun(worker)["node"], begun(worker)["gpus"]) for worker in workers]
    assert len(set(held)) == 8
    assert {gpu for _, gpu in held} == {"0", "1", "2", "3"}
    assert len({node for node, _ in held}) == 2

    ninth = toy(tmp_path, label="ninth")
    engine.start(ninth)
    tokens = [worker.token for worker in [*workers, ninth]]
    assert engine.states(tokens) == {**dict.fromkeys(tokens, "running"), ninth.token: "queued"}
    engine.stop([ninth.token], firm=False)
    becomes(engine, ninth, "gone")

    engine.stop([worker.token for worker in workers], firm=False)
    for worker in workers:
        becomes(engine, worker, "gone")
        assert [record["event"] for record in said(worker)] == ["begun", "SIGTERM"]
        assert nothing_is_left_of(worker)
    assert said(ninth) == []


def test_a_worker_without_gpus_sees_none(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")  # the driver's own are no worker's
    without, some = toy(tmp_path, gpus=0), toy(tmp_path, gpus=2)
    for worker in (without, some):
        engine.start(worker)
    assert begun(without)["gpus"] == ""
    assert len(set(begun(some)["gpus"].split(","))) == 2


@pytest.mark.parametrize("way", ["firm stop", "kill -9"])
def test_nothing_is_left_of_a_killed_worker(engine, tmp_path, way):
    worker, other = toy(tmp_path), toy(tmp_path)
    for each in (worker, other):
        engine.start(each)
    pid = begun(worker)["pid"]
    begun(other)
    becomes(engine, worker, "running")
    if way == "kill -9":
        os.kill(pid, signal.SIGKILL)
    else:
        engine.stop([worker.token], firm=True)
    becomes(engine, worker, "gone")
    eventually(lambda: nothing_is_left_of(worker), 5, "its processes are gone")
    assert [record["event"] for record in said(worker)] == ["begun"]
    assert engine.states([other.token]) == {other.token: "running"}


def test_workers_of_a_lost_node_are_gone_or_run_again(place, engine, tmp_path):
    workers = [toy(tmp_path, gpus=4, label=f"worker {number}") for number in range(2)]
    for worker in workers:
        engine.start(worker)
    nodes = [begun(worker)["node"] for worker in workers]
    for worker in workers:
        becomes(engine, worker, "running")
    lost = second_node(place, nodes)
    place.lose(nodes[lost])
    try:
        states = becomes(engine, workers[lost], "queued" if place.name == "slurm" else "gone")
    finally:
        place.restore(nodes[lost])
    if place.name == "slurm":
        assert "gone" not in states
        assert begun(workers[lost], times=2)["restarts"] == "1"
        assert "gone" not in becomes(engine, workers[lost], "running")
    else:
        later = toy(tmp_path, gpus=4)
        engine.start(later)
        begun(later)
    assert engine.states([workers[1 - lost].token]) == {workers[1 - lost].token: "running"}
    assert len(said(workers[1 - lost])) == 1


def second_node(place, nodes):
    """The place in `nodes` of the one that can be lost: of Ray's, not the head."""
    if place.name == "slurm":
        return nodes.index(place.cluster.nodes[1])
    import ray

    driver = ray.get_runtime_context().get_node_id()
    return 1 - nodes.index(driver)


def test_odd_paths_and_values_arrive_as_they_are(engine, tmp_path):
    odd = "a b 'c' \"d\" $HOME `e` \\n \n\t\r\n *é日%j%%&;"
    folder = tmp_path / odd
    folder.mkdir()
    script = folder / "the toy.py"
    shutil.copy(TOY, script)
    worker = toy(
        folder, toy=script, seconds=0, label=odd, env={"TOY_VALUE": odd}, arguments=(odd, "")
    )
    engine.start(worker)
    record = begun(worker)
    assert record["env"] == {"TOY_VALUE": odd}
    assert record["args"] == [odd, ""]
    becomes(engine, worker, "gone")
    assert "has begun" in worker.log.read_text()


def test_a_driver_that_is_started_anew_is_told_of_the_old_ones_worker(place, tmp_path):
    token = uuid4().hex
    worker = toy(tmp_path, token=token)
    driver = subprocess.Popen(
        place.driver(tmp_path, token), stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert driver.stdout.readline() == "running\n"
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.communicate()

    engine = place.engine()
    try:
        if place.workers_outlive_the_driver:
            assert engine.states([token]) == {token: "running"}
            engine.stop([token], firm=False)
            becomes(engine, worker, "gone")
            assert [record["event"] for record in said(worker)] == ["begun", "SIGTERM"]
        else:
            assert engine.states([token]) == {token: "gone"}
        eventually(lambda: nothing_is_left_of(worker), 10, "its processes are gone")
    finally:
        engine.close()
