"""Sweeps with real worker processes: who runs where, what fails, what is run again."""

import os
import subprocess
import sys
import threading

import pytest
from launcher_helpers import eventually, running

from launcher.claims import standing
from launcher.jobs import read_exit, read_state
from launcher.local_orchestrator import InProcessOrchestrator, LocalSweepOrchestrator

BOTH = [LocalSweepOrchestrator, InProcessOrchestrator]


def run(jobs, orchestrator=LocalSweepOrchestrator, **options):
    options = {"gpus": ["0"], "show_progress": False, **options}
    return orchestrator(jobs, **options).run()


def results(result):
    return [outcome.result for outcome in result.outcomes]


def test_four_gpus_run_four_jobs_at_once_each_seeing_one(make_job, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    result = run([make_job(f"j{n}", "meet", args={"of": 4}) for n in range(4)], gpus=None)
    assert result.ok, result.summary()
    assert results(result) == ["0", "1", "2", "3"]


def test_two_gpus_a_job(make_job, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,GPU-abc,7")
    jobs = [make_job(f"j{n}", "meet", args={"of": 2}) for n in range(2)]
    assert results(run(jobs, gpus=None, gpus_per_job=2)) == ["4,5", "GPU-abc,7"]


@pytest.mark.parametrize("orchestrator", BOTH)
def test_cpu_jobs_have_one_thread_and_no_gpu(make_job, orchestrator):
    names = ["CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "TOKENIZERS_PARALLELISM"]
    before = {name: os.environ.get(name) for name in names}
    job = make_job("j", "environment", args={"names": names})
    (outcome,) = run([job], orchestrator, gpus=[]).outcomes
    assert outcome.result == dict(zip(names, ["", "1", "1", "false"], strict=True))
    assert {name: os.environ.get(name) for name in names} == before


def test_failures_stop_no_other_and_are_told_apart(make_job):
    jobs = [
        make_job(name, name) for name in ("fail", "leave", "shoot_self", "unfit_result", "succeed")
    ]
    result = run(jobs, gpus=["0", "1"])
    told = {o.job.spec.id: (o.status, o.exit_code, o.last_lines[-1:]) for o in result.outcomes}
    assert told == {
        "fail": ("failed", 1, ["ValueError: a fault of mine"]),
        "leave": ("failed", 3, ["leaving by the window"]),
        "shoot_self": ("failed", -9, ["goodbye"]),
        "unfit_result": told["unfit_result"],
        "succeed": ("ok", 0, []),
    }
    assert "JSON cannot hold" in told["unfit_result"][2][0]
    assert not result.ok
    assert read_exit(jobs[2].folder)["signal"] == "SIGKILL"
    summary = result.summary()
    assert summary.startswith("5 jobs: 1 ok, 4 failed")
    for job in jobs[:4]:
        assert f"failed: {job.label}" in summary
        assert str(job.folder) in summary
    assert "| ValueError: a fault of mine" in summary


@pytest.mark.parametrize("orchestrator", BOTH)
def test_running_again_skips_the_done_and_retries_the_failed(make_job, orchestrator):
    jobs = [make_job("good"), make_job("bad", "fail")]
    first = run(jobs, orchestrator)
    again = run(jobs, orchestrator)
    assert [o.status for o in again.outcomes] == ["ok", "failed"]
    assert [o.done_before for o in again.outcomes] == [True, False]
    assert again.outcomes[0].result == first.outcomes[0].result
    assert [read_state(job.folder)["attempt_number"] for job in jobs] == [1, 2]
    # The log keeps both attempts, the record only the last one's lines.
    assert jobs[1].log.read_text().count("about to fail") == 2
    assert again.outcomes[1].last_lines.count("about to fail") == 1


def test_a_lost_worker_is_replaced_and_leaves_nothing_running(make_job, tmp_path):
    jobs = [make_job("shoots", "shoot_worker"), make_job("next"), make_job("last")]
    result = run(jobs)
    assert [o.status for o in result.outcomes] == ["failed", "ok", "ok"]
    lost = result.outcomes[0]
    assert "worker lost" in lost.message
    assert lost.last_lines == ["aiming"]
    assert read_exit(jobs[0].folder)["error"]["message"] == lost.message
    state = read_state(jobs[0].folder)
    for pid in (state["pid"], state["worker_pid"], int((tmp_path / "helper").read_text())):
        eventually(lambda pid=pid: not running(pid), 5)


def test_what_a_job_leaves_behind_ends_with_it(make_job):
    (helper,) = results(run([make_job("j", "leave_helper_behind")]))
    eventually(lambda: not running(helper), 5)


def test_jobs_of_a_worker_share_imports_and_nothing_else(make_job, tmp_path):
    preload = {"preload": ["launcher_counted"]}
    env = {"LAUNCHER_TEST_COUNTER": str(tmp_path / "count")}
    jobs = [make_job(f"j{n}", "count_imports", env=env, **preload) for n in range(3)]
    found = results(run([*jobs, make_job("a", env=env), make_job("b", env=env)]))
    assert len((tmp_path / "count").read_text().split()) == 1
    # What an import prints is the worker's: no job is its only reason.
    assert not any("counted" in job.log.read_text() for job in jobs)
    logs = (jobs[0].folder.parent / "workers").glob("*.log")
    assert sum("counted" in log.read_text() for log in logs) == 1
    assert len({one["pid"] for one in found}) == 5
    assert found[3]["worker"] == found[0]["imported_by"] == found[4]["worker"]
    assert found[3]["draw"] != found[4]["draw"]


def test_siblings_draw_their_own_random_numbers(make_job):
    jobs = [make_job(f"j{n}", "numpy_draw", preload=["numpy.random"]) for n in range(2)]
    first, second = results(run(jobs))
    assert first != second


def test_the_last_report_is_kept_and_exit_functions_run(make_job, tmp_path):
    job = make_job("j", "count_to_99")
    assert run([job]).ok
    assert read_state(job.folder)["report"] == {"completed": 99}
    assert (tmp_path / "left in order").exists()


def test_a_job_that_ends_tidies_up_after_itself_and_not_after_its_worker(make_job):
    jobs = [
        make_job(f"j{n}", "temporary_folders", preload=["launcher_temporary"]) for n in range(2)
    ]
    for of_the_worker, own in results(run(jobs)):
        assert of_the_worker
        assert not os.path.exists(own)  # noqa: PTH110


def test_a_jobs_environment_is_there_before_its_imports(make_job):
    jobs = [
        make_job(f"{n}", "setting_at_import", preload=["launcher_counted"], env=env)
        for n, env in enumerate(
            [{"LAUNCHER_TEST_SETTING": "x"}, {"LAUNCHER_TEST_SETTING": "y"}, {}]
        )
    ]
    assert results(run(jobs)) == ["x", "y", None]


def test_a_preload_that_fails_fails_its_job_with_the_traceback(make_job):
    result = run([make_job("j", preload=["launcher_no_such_module"]), make_job("k")])
    assert [o.status for o in result.outcomes] == ["failed", "ok"]
    assert "No module named 'launcher_no_such_module'" in result.outcomes[0].last_lines[-1]


@pytest.mark.parametrize("orchestrator", BOTH)
def test_an_interrupted_job_is_not_done(make_job, orchestrator):
    jobs = [make_job("j", "interrupted"), make_job("k")]
    result = run(jobs, orchestrator)
    # Nobody asked it to stop, so it was tried again, but not for ever.
    assert [(o.status, o.exit_code) for o in result.outcomes] == [("failed", 75), ("ok", 0)]
    assert not result.ok
    assert not result.interrupted
    assert read_exit(jobs[0].folder) is None
    state = read_state(jobs[0].folder)
    assert (state["status"], state["attempt_number"]) == ("interrupted", 4)


def test_a_job_that_a_live_process_runs_is_left_to_it(make_job, tmp_path):
    job = make_job("j", "wait")
    job.write()
    by_hand = [sys.executable, "-m", "launcher.jobs", "run", str(job.folder)]
    with subprocess.Popen(by_hand) as other:
        eventually(lambda: (read_state(job.folder) or {}).get("report"))
        refused = run([job], InProcessOrchestrator)
        assert f"is being run by process {other.pid}" in refused.outcomes[0].message
        threading.Timer(1.0, (tmp_path / "gate").touch).start()
        result = run([job, make_job("k")])  # waits for it, and counts it as its own
        assert [o.status for o in result.outcomes] == ["ok", "ok"]
        assert result.outcomes[0].result == "through the gate"
        assert read_state(job.folder)["worker_pid"] == other.pid


@pytest.mark.parametrize("orchestrator", BOTH)
def test_an_attempt_that_lost_its_job_writes_nothing(make_job, orchestrator):
    job = make_job("j", "own_after_takeover")
    result = run([job], orchestrator)
    assert result.outcomes[0].status == "failed"
    assert "may save: True, then False" in job.log.read_text()
    assert read_exit(job.folder)["status"] == "lost"
    assert read_exit(job.folder)["result"] is None
    assert standing(job).state == "failed"
    assert read_state(job.folder)["report"] == {}


@pytest.mark.parametrize("orchestrator", BOTH)
def test_odd_paths_and_labels(make_job, tmp_path, orchestrator, capfd):
    folder = tmp_path / 'a "b"\nö [red] %s'
    result = run([make_job("é x", folder=folder, label="[x] %d")], orchestrator, show_progress=True)
    assert result.ok, result.summary()
    assert "[x] %d: ok in" in capfd.readouterr().out


def test_on_finish_hears_each_and_its_faults_stop_nothing(make_job, caplog):
    heard = []

    def hear(outcome):
        heard.append(outcome.job.spec.id)
        raise RuntimeError("the caller's fault")

    assert run([make_job("a"), make_job("b")], on_finish=hear).ok
    assert heard == ["a", "b"]
    assert "on_finish failed for a" in caplog.text


def test_faults_are_refused_before_anything_starts(make_job, tmp_path):
    job = make_job("j")
    with pytest.raises(ValueError, match="share a folder"):
        run([job, job])
    with pytest.raises(ValueError, match=r"gpus_per_job is 3.* only 2 GPUs"):
        run([job], gpus=["0", "1"], gpus_per_job=3)
    with pytest.raises(ValueError, match="max_workers"):
        run([job], max_workers=0)
    assert not job.folder.exists()


def test_no_more_workers_than_asked_for(make_job):
    jobs = [make_job(f"j{n}") for n in range(4)]
    found = results(run(jobs, gpus=["0", "1", "2", "3"], max_workers=2))
    assert len({one["worker"] for one in found}) <= 2
    assert run([], gpus=["0"]).ok
