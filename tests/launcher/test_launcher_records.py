"""What lies on the disk: specs, records, half-written files, and who is alive."""

import json
import multiprocessing
import os
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher import ledger
from launcher.claims import ask_again, end, standing, take
from launcher.jobs import Job, JobSpec, RunningJob, load_jobs, read_exit, read_state
from launcher.ledger import identity, is_alive, last_lines, liveness, write_record

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    args=st.dictionaries(st.text(), JSON, max_size=4),
    label=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
)
def test_a_spec_survives_json(args, label):
    spec = JobSpec(
        id="run_0",
        function="package.module:Class.method",
        args=args,
        label=label,
        preload=["torch", "a.b"],
        on_exit={"75": {"retry": True, "limit": 3}, "-9": {"patch": {"micro_batch_size": 1}}},
        env={"A": "1"},
    )
    assert JobSpec.from_record(json.loads(json.dumps(spec.as_record()))) == spec


def test_every_fault_of_a_spec_is_told_at_once():
    with pytest.raises(ValueError, match="job 'a/b'") as refused:
        JobSpec(
            id="a/b",
            function="no_colon",
            args={"path": object()},
            preload=["1x"],
            on_exit={"1000": {}, "3": {"again": 1, "limit": True}},
            env={"CUDA_VISIBLE_DEVICES": "0", "N": 1},
        )
    text = str(refused.value)
    faults = ["folder's name", "'no_colon'", "args are not JSON", "'1x'", "'1000'", "no 'again'"]
    faults += ["limit is not a int", "CUDA_VISIBLE_DEVICES", "env must map text to text"]
    assert [fault for fault in faults if fault not in text] == []
    with pytest.raises(ValueError, match="round trip"):
        JobSpec("a", "m:f", args={"pair": (1, 2)})
    with pytest.raises(ValueError, match=r"has no \['colour'\]"):
        JobSpec.from_record({"id": "a", "function": "m:f", "colour": "red"})
    with pytest.raises(ValueError, match=r"lacks \['function'\]"):
        JobSpec.from_record({"id": "a"})


def test_jobs_are_loaded_from_their_folders(make_job, tmp_path):
    jobs = [make_job(f"j{n}", args={"n": n}) for n in range(3)]
    for job in jobs:
        job.write()
    assert load_jobs(tmp_path / "jobs") == jobs
    with pytest.raises(FileNotFoundError, match="not a job's folder"):
        Job.load(tmp_path)


def test_a_finished_job_is_not_renamed_into_another(make_job):
    job = make_job("j", args={"lr": 1})
    job.write()
    write_record(job.folder / "exit.json", {"status": "ok"})
    job.write()
    make_job("j", args={"lr": 1}, label="only the label differs").write()
    with pytest.raises(ValueError, match="was finished with another args"):
        make_job("j", args={"lr": 2}).write()


def test_a_new_attempt_begins_without_the_record_of_the_old_one(make_job):
    job = make_job("j")
    job.write()
    write_record(job.folder / "exit.json", {"status": "failed"})
    assert standing(job).state == "failed"
    assert ask_again(job, why="a person says so")
    first = take(job)
    assert read_exit(job.folder) is None
    assert not (job.folder / "exit.json").exists()
    assert end(job, first, "failed", 1)
    ask_again(job, why="and again")
    second = take(job)
    assert first["attempt"] != second["attempt"]
    assert (first["attempt_number"], second["attempt_number"]) == (1, 2)


def test_a_record_is_whole_or_absent(tmp_path, monkeypatch):
    path = tmp_path / "exit.json"
    (tmp_path / ".exit.json.0123.tmp").write_text('{"status": "o')  # a writer died here
    assert read_exit(tmp_path) is None
    write_record(path, {"status": "ok"})

    def power_cut(*_):
        raise OSError("gone")

    monkeypatch.setattr("os.fsync", power_cut)
    with pytest.raises(OSError, match="gone"):
        write_record(path, {"status": "failed"})
    assert read_exit(tmp_path) == {"status": "ok"}
    assert sorted(p.name for p in tmp_path.iterdir()) == [".exit.json.0123.tmp", "exit.json"]


def test_readers_never_see_half_a_record(tmp_path):
    """A reader polls while another process rewrites long records of two lengths."""
    script = (
        "import sys; from pathlib import Path; from launcher.ledger import write_record\n"
        "for n in range(400):\n"
        "    write_record(Path(sys.argv[1]), {'n': n, 'x': 'x' * 20000 * (n % 2)}, durable=False)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "exit.json")])
    seen = set()
    while writer.poll() is None:
        record = read_exit(tmp_path)  # raises on half a record
        if record is not None:
            assert len(record["x"]) == 20000 * (record["n"] % 2)
            seen.add(record["n"])
    assert writer.returncode == 0
    assert len(seen) > 5


def test_a_broken_exit_record_is_an_error_that_names_it(tmp_path):
    (tmp_path / "exit.json").write_text("{")
    with pytest.raises(ValueError, match=r"exit\.json is not JSON.*remove it"):
        read_exit(tmp_path)


def test_alive_means_this_very_process_on_this_host(tmp_path):
    state = {"status": "running", **identity()}
    assert is_alive(state)
    assert not is_alive(None)
    assert not is_alive({**state, "status": "interrupted"})
    # The same number, another process: numbers are used again.
    assert liveness({**state, "process_started": "earlier"}) == "dead"
    assert liveness({**state, "host": "elsewhere"}) == "unknown"
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    child.start()
    theirs = {"status": "running", **identity(child.pid)}
    assert is_alive(theirs)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(theirs), "a zombie has ended"
    child.join()
    assert not is_alive(theirs)


@pytest.fixture
def running_job(make_job):
    job = make_job("j")
    job.write()
    running = RunningJob(job, {**take(job), **identity()})
    yield running
    running.close()


def test_reports_are_throttled_and_the_last_one_is_seen(running_job, monkeypatch):
    writes = []
    real = ledger.write_record
    monkeypatch.setattr("launcher.jobs.write_record", lambda *a, **k: writes.append(real(*a, **k)))
    running_job.report({"total": 1000, "message": "training"})
    for step in range(1000):
        running_job.report({"completed": step})
    assert len(writes) < 10
    deadline = time.monotonic() + 3
    while (read_state(running_job.folder)["report"]).get("completed") != 999:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    report = read_state(running_job.folder)["report"]
    assert report == {"total": 1000, "message": "training", "completed": 999}


def test_a_report_is_refused_at_once_or_never_harms(running_job, monkeypatch):
    running_job.report({"completed": 1})
    with pytest.raises(TypeError):
        running_job.report({"loss": {1}})

    def full_disk(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr("launcher.jobs.write_record", full_disk)
    running_job._written = 0.0
    running_job.report({"completed": 2})


def test_last_lines_are_what_a_terminal_shows(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"old\n" + b"1%\r50%\r100%\r\n\n" + b"\xff end" + b"\n" * 3 + b"x" * 900)
    assert last_lines(log) == ["old", "100%", "� end", "x" * 500]
    assert last_lines(log, offset=4, count=2) == ["� end", "x" * 500]
    assert last_lines(tmp_path / "none") == []


def launch(*arguments, **options):
    command = [sys.executable, "-m", "launcher.jobs", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, **options)


def test_a_person_runs_one_job_by_hand(make_job):
    good, bad = make_job("good"), make_job("bad", "fail")
    stopping = make_job("stopping", "interrupted")
    for job in (good, bad, stopping):
        job.write()
    assert launch("run", good.folder).returncode == 0
    assert "--again" in launch("run", good.folder).stderr
    launch("run", good.folder, "--again")
    assert read_exit(good.folder)["attempt_number"] == 2
    failed = launch("run", bad.folder)
    assert failed.returncode == 1
    assert "ValueError: a fault of mine" in failed.stderr
    assert "about to fail" in failed.stdout
    assert read_exit(bad.folder)["error"]["last_lines"][-1] == "ValueError: a fault of mine"
    assert launch("run", stopping.folder).returncode == 75


def test_a_worker_by_hand_takes_what_is_there_and_leaves(make_job, tmp_path):
    jobs = [make_job("a"), make_job("b", "fail"), make_job("done")]
    for job in jobs:
        job.write()
    launch("run", jobs[2].folder)
    done = launch("worker", tmp_path / "jobs")
    assert done.returncode == 0, done.stderr
    assert [read_exit(job.folder)["status"] for job in jobs] == ["ok", "failed", "ok"]
    assert [read_exit(job.folder)["attempt_number"] for job in jobs] == [1, 1, 1]


def test_the_launcher_knows_nothing_of_models():
    script = (
        "import pkgutil, sys, importlib, launcher\n"
        "for module in pkgutil.iter_modules(launcher.__path__):\n"
        "    importlib.import_module('launcher.' + module.name)\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "'launcher'" in done.stdout
    assert "'rich'" in done.stdout, "the modules were not imported"
    for unwanted in ("torch", "oocr_influence", "numpy", "transformers"):
        assert f"'{unwanted}'" not in done.stdout
