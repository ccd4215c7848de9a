"""What Ray alone does: it wants to take signals over, and to limit threads."""

import signal

import pytest
from engine_toys import becomes, begun, toy

from launcher.engine import EngineError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def test_a_worker_too_large_for_every_node_is_refused_unless_nodes_may_join(ray_place):
    engine = ray_place.engine(gpus=5)
    try:
        with pytest.raises(EngineError, match=r"5 GPUs.*nodes: 4 GPUs"):
            engine.check()
        ray_place.engine(gpus=5, nodes_may_join=True).check()
    finally:
        engine.close()


def test_the_driver_keeps_its_signals_and_the_worker_its_threads(ray_place, tmp_path):
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        mine = signal.getsignal(signal.SIGTERM)
        engine = ray_place.engine()
        engine.check()
        assert signal.getsignal(signal.SIGTERM) is mine
        script = tmp_path / "threads.py"
        script.write_text("import os; print(os.environ.get('OMP_NUM_THREADS'))")
        worker = toy(tmp_path, toy=script)
        engine.start(worker)
        becomes(engine, worker, "gone")
        # What the nodes were started with, and not a thread for the processor that Ray counts.
        assert worker.log.read_text().strip() == ray_place.cluster.threads
        engine.close()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_log_that_cannot_be_written_ends_the_worker_and_frees_its_gpus(
    ray_place, tmp_path, capsys
):
    engine = ray_place.engine()
    try:
        (tmp_path / "no").mkdir()
        lost = toy(tmp_path / "no", gpus=4)
        (tmp_path / "no").rmdir()
        engine.start(lost)
        becomes(engine, lost, "gone")
        assert "could not be run" in capsys.readouterr().err
        both = [toy(tmp_path, gpus=4) for _ in range(2)]
        for worker in both:
            engine.start(worker)
        for worker in both:
            begun(worker)
    finally:
        engine.close()
