"""Slurm alone: time limits, requeueing, a controller that is away, doubtful submissions."""

import os
import stat
import subprocess
from pathlib import Path

import pytest
from engine_processes import eventually, pids_with
from engine_toys import becomes, begun, said, toy

from launcher.engine import EngineError, EngineUnreachable

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def numbers(worker):
    """Slurm's numbers of the jobs of a worker, by its comment."""
    listed = subprocess.run(
        ["squeue", "-h", "-t", "all", "-o", "%i %k"], capture_output=True, text=True, check=True
    ).stdout
    return [line.split()[0] for line in listed.splitlines() if line.endswith(worker.token)]


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Put a script before one of Slurm's programs; it may call the real one as "$REAL"."""

    def put(program, script):
        folder = tmp_path / "fakes"
        folder.mkdir(exist_ok=True)
        real = subprocess.run(["which", program], capture_output=True, text=True).stdout.strip()
        path = folder / program
        path.write_text(f"#!/bin/sh\nREAL={real}\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        if str(folder) not in os.environ["PATH"]:
            monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    return put


def test_usr1_comes_before_the_time_limit(slurm_place, limited):
    began = begun(limited)["time"]
    becomes(slurm_place.engine(), limited, "gone", seconds=60)
    assert [record["event"] for record in said(limited)] == ["begun", "SIGUSR1"]
    assert said(limited)[-1]["time"] - began < 60
    ended = slurm_place.cluster.run("scontrol", "-o", "show", "job", *numbers(limited))
    assert "ExitCode=75:0" in ended


def test_neither_requeueing_nor_a_controller_that_is_away_loses_a_worker(slurm_place, tmp_path):
    engine = slurm_place.engine()
    worker, later = toy(tmp_path), toy(tmp_path)
    engine.start(worker)
    begun(worker)
    becomes(engine, worker, "running")
    slurm_place.cluster.run("scontrol", "requeue", *numbers(worker))
    states = becomes(engine, worker, "queued")
    assert begun(worker, times=2)["restarts"] == "1"
    assert "gone" not in [*states, *becomes(engine, worker, "running")]
    slurm_place.cluster.save_jobs(*numbers(worker))

    slurm_place.cluster.kill("slurmctld")
    try:
        with pytest.raises(EngineUnreachable, match="squeue"):
            engine.states([worker.token])
    finally:
        slurm_place.cluster.start_controller()
    assert engine.states([worker.token]) == {worker.token: "running"}
    engine.start(later)
    begun(later)
    assert len(said(worker, "begun")) == 2
    assert slurm_place.engine().states([worker.token, later.token]) == {
        worker.token: "running",
        later.token: "running",
    }


def test_a_job_that_was_taken_though_sbatch_failed_is_not_submitted_twice(
    slurm_place, tmp_path, fake
):
    engine, worker = slurm_place.engine(), toy(tmp_path)
    fake("sbatch", '"$REAL" "$@"; echo "sbatch: error: Socket timed out on send/recv" >&2; exit 1')
    engine.start(worker)
    engine.start(worker)
    begun(worker)
    assert len(numbers(worker)) == 1


def test_a_submission_that_failed_can_be_tried_again(slurm_place, tmp_path, fake):
    engine, worker = slurm_place.engine(), toy(tmp_path)
    fake("sbatch", 'echo "sbatch: error: Unable to contact slurm controller" >&2; exit 1')
    with pytest.raises(EngineUnreachable, match="Unable to contact"):
        engine.start(worker)
    assert engine.states([worker.token]) == {worker.token: "gone"}
    (tmp_path / "fakes/sbatch").unlink()
    engine.start(worker)
    begun(worker)
    assert len(numbers(worker)) == 1


def test_without_sacct_a_worker_is_followed_to_its_end(slurm_place, tmp_path, monkeypatch):
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sbatch", "squeue", "scancel", "scontrol"):
        real = subprocess.run(["which", name], capture_output=True, text=True).stdout.strip()
        (programs / name).symlink_to(real)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    engine, worker = slurm_place.engine(), toy(tmp_path, seconds=1)
    engine.check()
    engine.start(worker)
    begun(worker)
    becomes(engine, worker, "gone")


def test_what_slurm_would_not_take_is_said_before_anything_starts(slurm_place, tmp_path):
    with pytest.raises(EngineError, match="invalid partition"):
        slurm_place.engine(partition="nowhere").check()
    from launcher.slurm_engine import SlurmEngine

    with pytest.raises(EngineError, match="5 GPUs"):
        SlurmEngine(gpus=5).check()
    with pytest.raises(EngineError, match="partition"):
        slurm_place.engine(partition="nowhere").start(toy(tmp_path))


def test_slurm_s_own_remarks_reach_the_worker_s_log(slurm_place, tmp_path):
    engine, worker = slurm_place.engine(), toy(tmp_path)
    engine.start(worker)
    begun(worker)
    subprocess.run(["scancel", *numbers(worker)], check=True)
    becomes(engine, worker, "gone")
    assert "CANCELLED" in worker.log.read_text()


def test_a_worker_of_a_driver_inside_a_job_gets_its_own_slurm_variables(
    slurm_place, tmp_path, monkeypatch
):
    monkeypatch.setenv("SLURM_RESTART_COUNT", "7")
    engine, worker = slurm_place.engine(), toy(tmp_path)
    engine.start(worker)
    assert begun(worker)["restarts"] is None


def test_the_cluster_leaves_nothing_behind(slurm):
    """A second one beside the first, torn down as at the end of the session."""
    import tempfile

    from slurm_cluster import SlurmCluster

    with tempfile.TemporaryDirectory(prefix="oocr_slurm_") as folder:
        with SlurmCluster(Path(folder)) as second:
            env = second.env
            done = subprocess.run(
                ["sbatch", "--gres=gpu:1", "--output=/dev/null", "--wrap=sleep 300"],
                env=env,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
            mark = f"SLURM_CONF={folder}/"
            eventually(lambda: len(pids_with(mark)) > 5, 10, "a job runs")
        assert pids_with(mark) == []
        assert not list(Path("/sys/fs/cgroup").glob(f"*/slurm_{second.nodes[0]}"))
    assert slurm.run("sinfo", "-h")
