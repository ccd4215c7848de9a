"""One fault at a time: hangs, stops, full disks, strangers' specs, odd names, two drivers."""

import json
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from launcher_helpers import eventually, running

from launcher.claims import end, last_claim, last_exit, standing, take
from launcher.driver import Driver, WorkersFailError
from launcher.host import Host
from launcher.jobs import read_exit, read_state
from launcher.leases import Claimant
from launcher.ledger import identity, write_record
from launcher.local_engine import LocalEngine
from launcher.local_orchestrator import LocalSweepOrchestrator
from launcher.lost import FormerWorkers, LostWatch
from launcher.queue import Queue
from launcher.sweep import SweepRecord, SweepRunningError
from launcher.worker import Running, Worker
from launcher.worker_settings import WorkerSettings, read_workers

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount and give files away")


def run(jobs, **options):
    return LocalSweepOrchestrator(jobs, **{"gpus": ["0"], "show_progress": False, **options}).run()


def attempts(job):
    """How the job's attempts ended, in their order."""
    paths = sorted((job.folder / "attempts").glob("[0-9]*.exit.json"))
    return [json.loads(path.read_text())["status"] for path in paths]


def test_a_job_that_hangs_is_killed_with_its_stack_in_the_log_and_tried_again(make_job):
    job = make_job("j", "hang", silence_limit=0.5, on_exit={"hung": {"retry": True}})
    (outcome,) = run([job]).outcomes
    assert outcome.status == "ok"
    assert attempts(job) == ["hung", "ok"]
    log = job.log.read_text()
    assert "most recent call first" in log
    assert 'launcher_toys.py", line' in log
    assert " in hang" in log


def test_a_hung_job_is_not_tried_again_unasked(make_job):
    job = make_job("j", "hang", silence_limit=0.5)
    (outcome,) = run([job]).outcomes
    assert outcome.status == "failed"
    assert "no report for 0.5 s" in outcome.message


def test_a_stopped_job_is_killed_and_tried_again(make_job):
    on_exit = {"hung": {"retry": True}}
    args = {"whom": "itself"}
    job = make_job("j", "stop_process", args=args, silence_limit=0.5, on_exit=on_exit)
    assert run([job]).ok
    assert attempts(job) == ["hung", "ok"]


def test_a_stopped_worker_is_ended_and_its_sweep_keeps_its_age(make_job):
    args, on_exit = {"whom": "worker"}, {"lost": {"retry": True}}
    job = make_job("j", "stop_process", args=args, on_exit=on_exit)
    engine = LocalEngine(stopped_limit=0.3)
    assert Driver([job], engine=engine, gpus=["0"], show_progress=False).run().ok
    assert attempts(job) == ["lost", "ok"]
    claim, (first, second) = last_claim(job.folder), read_workers(job.folder.parent)
    assert not running(claim["worker_pid"])
    assert first.since == second.since, "a new worker makes the sweep no younger"


def test_former_workers_that_stand_stopped_or_left_something_running_are_ended(tmp_path):
    """Their jobs may have said their ends, so that no open attempt tells of them."""
    started = {}
    driver = subprocess.Popen(["sleep", "60"])
    named = identity(driver.pid)
    for name in ("stopped", "busy", "dead", "of an engine", "never begun"):
        places = {} if name == "of an engine" else {"gpu-0": "0"}
        settings = WorkerSettings(sweeps=(tmp_path,), places=places, driver=named)
        settings.write()
        token = settings.token
        worker, helper = (
            subprocess.Popen(["sleep", "60"], env={**os.environ, "LAUNCHER_WORKER": token})
            for _ in range(2)
        )
        if name != "never begun":
            write_record(settings.file("beat"), identity(worker.pid))
        started[name] = (worker, helper)
    try:
        started["stopped"][0].send_signal(signal.SIGSTOP)
        started["of an engine"][0].send_signal(signal.SIGSTOP)
        started["dead"][0].kill()
        started["dead"][0].wait()
        started["never begun"][0].send_signal(signal.SIGSTOP)
        driver.kill()
        driver.wait()
        former = FormerWorkers([tmp_path], stopped_limit=0.3)
        assert started["never begun"][0].wait(5) == -9
        assert started["dead"][1].wait(5) == -9
        eventually(lambda: psutil.Process(started["stopped"][0].pid).status() == "stopped")
        former.look()
        assert started["stopped"][0].poll() is None
        time.sleep(0.4)
        former.look()
        assert [process.wait(5) for process in started["stopped"]] == [-9, -9]
        assert [process.poll() for process in started["busy"]] == [None, None]
        started["busy"][0].send_signal(signal.SIGSTOP)
        eventually(lambda: psutil.Process(started["busy"][0].pid).status() == "stopped")
        former.look(at_once=True)
        assert [process.wait(5) for process in started["busy"]] == [-9, -9]
        assert [process.poll() for process in started["of an engine"]] == [None, None]
    finally:
        for process in (p for pair in started.values() for p in pair):
            process.kill()
            process.wait()


def test_a_forked_child_ends_with_its_job_and_not_with_its_worker(make_job):
    jobs = [make_job("a", "leave_forked_child_behind"), make_job("b", "forked_child_is_running")]
    assert [outcome.result for outcome in run(jobs).outcomes] == [None, False]


def test_a_job_that_has_ended_may_tidy_up(make_job, tmp_path):
    assert run([make_job("j", "tidy_up_slowly")]).ok
    assert (tmp_path / "tidy").exists()


@pytest.mark.parametrize("firm", [False, True])
def test_a_stop_that_comes_while_a_job_is_started_reaches_it(make_job, monkeypatch, firm):
    job = make_job("j")
    job.write()
    worker = Worker(WorkerSettings(sweeps=(job.folder.parent,), grace=60.0))
    monkeypatch.setattr(worker, "_release", lambda lease: None)
    worker._settings.write()
    worker._queue = Queue(worker._settings)
    assert worker._queue.next() == job
    with subprocess.Popen(["sleep", "60"]) as sleeper:

        def fork(*_, **__):
            worker._stop(firm=firm)  # before the child is among the running
            return sleeper.pid

        monkeypatch.setattr("launcher.worker.fork_job", fork)
        worker._start(job, worker._lease())
        with suppress(subprocess.TimeoutExpired):
            sleeper.wait(5)
        sleeper.kill()
        assert sleeper.wait() == -15
    (started,) = worker._running.values()
    assert isinstance(started, Running)
    assert started.asked
    assert (started.deadline <= time.monotonic()) == firm


def test_gpus_that_strangers_use_are_left_to_them_and_looked_at_again(tmp_path, monkeypatch):
    from launcher import worker as module

    busy = {"gpu-0": "0"}
    monkeypatch.setattr(module, "used_by_strangers", lambda asked, own: list(busy.keys() & asked))
    monkeypatch.setattr(module, "STRANGERS_EVERY", 0.3)
    places = {"gpu-0": "0", "gpu-1": "1"}

    def worker(token, **settings):
        made = Worker(WorkerSettings(sweeps=(tmp_path,), places=places, **settings))
        made._claimant = Claimant(Host(), token, names=list(places), each=1, sweep=token, since=0.0)
        return made

    waits, uses = worker("a"), worker("b", strangers="use")
    assert waits._lease().names == ("gpu-1",)
    assert waits._lease() is None
    assert uses._lease().names == ("gpu-0",)
    uses._claimant.close()
    busy.clear()
    assert waits._lease() is None, "not asked again at every turn"
    assert eventually(waits._lease).names == ("gpu-0",)
    waits._claimant.close()


@as_root
def test_a_spec_of_another_user_is_not_run(make_job):
    job = make_job("j", "leave_helper_behind")
    job.write()
    os.chown(job.folder / "spec.json", 65534, 65534)
    with pytest.raises(WorkersFailError, match="was written by user 65534 and not by 0"):
        run([job])
    assert standing(job).number == 0


@as_root
def test_a_link_to_a_spec_of_ours_is_not_run(make_job, tmp_path):
    own, theirs = make_job("own"), make_job("theirs")
    own.write()
    theirs.folder.mkdir()
    (theirs.folder / "spec.json").symlink_to(own.folder / "spec.json")
    with pytest.raises(WorkersFailError):
        run([theirs.load(theirs.folder)])
    assert standing(theirs).number == 0


@pytest.mark.parametrize(
    "name",
    [
        "two words",
        'it\'s "quoted"',
        "a\nline",
        "日本語 é",
        "$(touch x);&|*?[a]",
        "-rf",
        b"\xff\xfe",
    ],
)
def test_any_path_works(make_job, tmp_path, name, monkeypatch):
    folder = tmp_path / os.fsdecode(name) / "jobs"
    folder.mkdir(parents=True)
    jobs = [make_job("the job", folder=folder), make_job("bad {x}", "fail", folder=folder)]
    result = run(jobs)
    assert [o.status for o in result.outcomes] == ["ok", "failed"], result.summary()
    assert [job.folder.parent for job in jobs] == [folder, folder]
    assert sorted(p.name for p in folder.iterdir() if p.name[0] in "tb") == ["bad {x}", "the job"]
    by_hand = [os.sys.executable, "-m", "launcher.jobs", "run", "--again", str(jobs[0].folder)]
    assert subprocess.run(by_hand, timeout=60).returncode == 0
    assert read_state(jobs[0].folder)["attempt_number"] == 2


@contextmanager
def small_disk(folder):
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)]
    done = subprocess.run(mounting, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"NO FULL DISK IS TESTED: a tmpfs cannot be mounted here ({done.stderr})")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(ballast):
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    assert psutil.disk_usage(ballast.parent).free == 0


@as_root
def test_a_result_outlives_a_full_disk(make_job, tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        ballast = disk / "ballast"
        options = {"folder": disk / "jobs", "silence_limit": 1.5}
        jobs = [
            make_job("fills", "fill_the_disk", args={"ballast": str(ballast)}, **options),
            make_job("next", **options),
        ]

        def empty():
            eventually(lambda: read_state(jobs[0].folder), 20)
            time.sleep(6)
            assert psutil.disk_usage(disk).free == 0
            assert last_exit(jobs[0].folder) is None
            ballast.unlink()

        thread = threading.Thread(target=empty)
        thread.start()
        result = run(jobs)
        thread.join()
        assert [o.status for o in result.outcomes] == ["ok", "ok"], result.summary()
        assert result.outcomes[0].result == "what took hours"
        assert [attempts(job) for job in jobs] == [["ok"], ["ok"]]


@as_root
def test_a_worker_and_a_driver_wait_for_a_full_disk(make_job, tmp_path):
    """The worker is killed while the disk is full, so that the driver cannot start another."""
    with small_disk(tmp_path / "disk") as disk:
        options = {"folder": disk / "jobs", "on_exit": {"lost": {"retry": True}}}
        jobs = [make_job(f"w{n}", "wait", **options) for n in range(2)]
        done = []
        drive = threading.Thread(target=lambda: done.append(run(jobs)))
        drive.start()
        eventually((tmp_path / "w0.pids").exists)
        fill(disk / "ballast")
        worker = last_claim(jobs[0].folder)["worker_pid"]
        os.kill(worker, 9)
        eventually(lambda: not running(worker))
        time.sleep(2.5)
        assert drive.is_alive(), "it waits"
        (tmp_path / "gate").touch()
        (disk / "ballast").unlink()
        drive.join(30)
        assert done, "it goes on"
        assert done[0].ok, done[0].summary()
        assert attempts(jobs[0]) == ["lost", "ok"]


def test_a_worker_elsewhere_is_given_up_when_it_shows_no_sign_of_life(make_job):
    job = make_job("j", on_exit={"lost": {"retry": True}})
    job.write()
    beat = job.folder.parent / "workers" / "w.beat"
    beat.parent.mkdir()
    claim = take(job, **{**identity(), "host": "elsewhere"}, worker="w", worker_pid=1)
    watch = LostWatch(silence=0.3)
    for _ in range(4):
        beat.write_text("alive")
        watch.look(job)
        time.sleep(0.15)
    assert standing(job).state == "open"
    time.sleep(0.3)
    watch.look(job)
    assert standing(job).state == "waiting"
    assert last_exit(job.folder)["error"]["message"].startswith("no sign of life from elsewhere")
    assert end(job, claim, "ok", 0) is None, "it may come back, and publishes nothing"
    assert read_exit(job.folder)["status"] == "lost"


def open_sweep(sweep, barrier, answers):
    barrier.wait()
    try:
        SweepRecord.open(sweep, str(os.getpid()), {})
        answers.put("driver")
    except SweepRunningError:
        answers.put("refused")
    barrier.wait()


def test_of_drivers_that_start_in_the_same_moment_one_is_taken(tmp_path):
    context = multiprocessing.get_context("fork")
    for number in range(5):
        sweep = Path(tmp_path, f"{number}")
        sweep.mkdir()
        barrier, answers = context.Barrier(4), context.SimpleQueue()
        people = [
            context.Process(target=open_sweep, args=(sweep, barrier, answers)) for _ in range(4)
        ]
        for one in people:
            one.start()
        for one in people:
            one.join(20)
        assert sorted(answers.get() for _ in people) == ["driver", *["refused"] * 3]
        # They have died without a word: the next one may drive.
        SweepRecord.open(sweep, "next", {}).close()
        SweepRecord.open(sweep, "after it", {}).close()
