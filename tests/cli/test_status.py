"""`oocr status`, `oocr logs` and `oocr gpus` beside real sweeps of toy jobs."""

import getpass
import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sweep_toys import command, environment, eventually, family_of, make_sweep, oocr

from launcher.claims import end, take
from launcher.jobs import Job
from launcher.ledger import read_record
from launcher.status import read_sweep
from oocr_influence.cli.logs import LogTail

FOUR = {"a": "succeed", "b": "fail", "c": "wait", "d": "wait"}


def states(experiment):
    return {job.id: job.state for job in read_sweep(experiment / "jobs").jobs}


def reported(experiment, job):
    return (read_record(experiment / "jobs" / job / "state.json") or {}).get("report")


def told(outputs, *words):
    done = oocr("status", *words, "--json", "--output_dir", outputs)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_running_sweep_is_told_as_its_records_say(sweep_of, tmp_path):
    experiment, driver = sweep_of(**FOUR)
    eventually(lambda: reported(experiment, "c"))
    (sweep,) = told(tmp_path)["sweeps"]
    jobs = {job["id"]: job for job in sweep["jobs"]}
    assert {name: job["state"] for name, job in jobs.items()} == {
        "a": "done",
        "b": "failed",
        "c": "running",
        "d": "waiting",
    }
    assert sweep["counts"] == {
        **{"waiting": 1, "running": 1, "stopping": 0},
        **{"interrupted": 0, "failed": 1, "done": 1},
    }
    assert (sweep["name"], sweep["folder"]) == (experiment.name, str(experiment))
    assert sweep["driver"]["pid"] == driver.pid
    assert sweep["live"] is True
    assert jobs["b"]["message"] == "ValueError: a fault of mine"
    running = jobs["c"]
    assert running["gpus"] == ["0"]
    assert running["total"] == 1000
    assert 0 < running["completed"] < 1000
    assert 0 < running["loss"] <= 1
    assert running["evaluation"] == "e1_s42"
    assert 0 < running["seconds_left"] < 1000
    assert running["pid"] == read_record(experiment / "jobs" / "c" / "state.json")["pid"]
    by_du = subprocess.check_output(["du", "-s", "--block-size=1", experiment], text=True)
    assert sweep["disk_complete"]
    assert sweep["disk_bytes"] == pytest.approx(int(by_du.split()[0]), abs=200_000)  # with folders
    text = oocr("status", "toys", "--output_dir", tmp_path).stdout
    assert "4 jobs: 1 waiting, 1 running, 1 failed, 1 done" in text
    assert "ValueError: a fault of mine" in text
    # Whoever drove it is gone, and what it ran with it.
    for process in family_of(driver.pid):
        process.kill()
    eventually(lambda: states(experiment)["c"] == "interrupted")
    text = oocr("status", "toys", "--output_dir", tmp_path).stdout
    assert "driven by nobody: its driver died" in text
    assert f"go on with: oocr resume {experiment}" in text


def test_several_sweeps_have_a_line_each_newest_first_and_done_ones_none(sweep_of, tmp_path):
    _, driver = sweep_of("all_done", a="succeed")
    assert driver.wait(60) == 0
    make_sweep(tmp_path, "older", a="wait")
    make_sweep(tmp_path, "newer", a="wait", b="wait")
    found = told(tmp_path)["sweeps"]
    assert [sweep["name"].rpartition("_")[2] for sweep in found] == ["newer", "older"]
    lines = oocr("status", "--output_dir", tmp_path).stdout.splitlines()
    assert [line.split()[0].rpartition("_")[2] for line in lines[1:]] == ["newer", "older", "all"]
    assert lines[3].split()[1] == "3"
    (named,) = told(tmp_path, "all_done")["sweeps"]
    assert named["counts"]["done"] == 1


def test_what_is_no_sweep_is_told_with_what_there_is(tmp_path):
    make_sweep(tmp_path, "mayors_1", a="wait")
    make_sweep(tmp_path, "mayors_2", a="wait")
    for word, said in (("mayor", "may be any of"), ("deaths", "no sweep deaths")):
        done = oocr("status", word, "--output_dir", tmp_path)
        assert done.returncode == 2
        assert said in done.stderr
        assert "mayors_1" in done.stderr
        assert "Traceback" not in done.stderr


def test_interrupted_and_retried_jobs_are_told_apart(tmp_path):
    experiment = make_sweep(tmp_path, "toys", stopped="wait", lost="wait", failed="wait")
    for name, status, code in (("stopped", "interrupted", 75), ("failed", "failed", 1)):
        job = Job.load(experiment / "jobs" / name)
        end(job, take(job), status, code, stop_requested=True)
    take(Job.load(experiment / "jobs" / "lost"), pid=2**22 + 1, host=os.uname().nodename)
    assert states(experiment) == {
        "stopped": "interrupted",
        "lost": "interrupted",
        "failed": "failed",
    }


def test_ten_thousand_jobs_are_read_within_a_second(tmp_path):
    jobs = tmp_path / "2026_11_27_10-00-00_AbCde_many" / "jobs"
    spec = {"id": "x", "function": "sweep_toys:succeed", "args": {f"a{n}": n for n in range(80)}}
    for number in range(10_000):
        folder = jobs / f"j{number:05}"
        folder.mkdir(parents=True)
        (folder / "spec.json").write_text(json.dumps(spec))
    began = time.process_time()  # of this process: others share the machine
    sweep = read_sweep(jobs)
    assert time.process_time() - began < 1.0
    assert sweep.counts()["waiting"] == 10_000
    text = oocr("status", "many", "--output_dir", tmp_path).stdout
    assert "10,000 jobs: 10,000 waiting" in text
    assert "… and 9,900 more jobs" in text


def test_the_commands_import_nothing_that_takes_long():
    code = """
import importlib, sys
for name in ("main", "status", "logs", "stop", "resume", "retry", "gpus", "worker"):
    importlib.import_module(f"oocr_influence.cli.{name}")
print(*[name for name in ("torch", "transformers", "pyarrow", "numpy") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def in_a_terminal(words):
    """Run a command in a terminal of its own; what it showed, and its exit status."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update({**environment(), "TERM": "xterm", "COLUMNS": "160", "LINES": "40"})
        os.execv(words[0], words)
    shown = b""
    try:
        while data := os.read(terminal, 65536):
            shown += data
    except OSError:  # the terminal's other end is closed
        pass
    os.close(terminal)
    return shown.decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_in_a_terminal_the_table_lives_until_the_sweep_has_ended(sweep_of, tmp_path):
    experiment, driver = sweep_of(c="wait")
    eventually(lambda: reported(experiment, "c"))
    opener = subprocess.Popen(["sh", "-c", f"sleep 3; touch '{experiment}/gate'"])
    shown, status = in_a_terminal(command("status", "toys", "--output_dir", tmp_path))
    opener.wait()
    assert status == 0
    steps = {line.split("/1000")[0].split()[-1] for line in shown.splitlines() if "/1000" in line}
    assert len(steps) > 1, "it was not renewed"
    assert "1 done" in shown
    assert driver.wait(30) == 0


# --- logs ----------------------------------------------------------------------------------------


def test_a_log_is_followed_to_its_end_though_it_is_deleted(sweep_of, tmp_path):
    experiment, _ = sweep_of(c="wait")
    log = experiment / "jobs" / "c" / "log"
    eventually(lambda: log.exists() and b"line 3" in log.read_bytes())
    shown = tmp_path / "shown"
    with shown.open("w") as file:
        follower = subprocess.Popen(
            command("logs", "c", "-f", "--lines", "2", "--output_dir", tmp_path),
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
    eventually(shown.read_text)
    log.unlink()
    time.sleep(1.0)
    (experiment / "gate").touch()
    _, said = follower.communicate(timeout=60)
    lines = shown.read_text().splitlines()
    assert lines[-1] == "last line"
    numbers = [int(line.split()[1]) for line in lines[:-1]]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "lines are missing"
    assert "c: done" in said
    assert follower.returncode == 0


def test_a_tail_reads_on_in_a_file_that_was_replaced_or_emptied(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"".join(b"line %d\n" % n for n in range(50_000)))
    tail = LogTail(path)
    assert tail.last_lines(2) == b"line 49998\nline 49999\n"
    assert tail.new() == b""
    with path.open("ab") as file:
        file.write(b"more\n")
    other = tmp_path / "other"
    other.write_bytes(b"of another file\n")
    other.replace(path)
    assert tail.new() == b"more\nof another file\n"
    path.write_bytes(b"")
    assert tail.new() == b""
    path.write_bytes(b"new\n")
    assert tail.new() == b"new\n"
    assert LogTail(path).last_lines(5) == b"new\n"
    assert LogTail(path).last_lines(0) == b""
    assert LogTail(tmp_path / "none").last_lines(3) == b""


def test_a_job_is_named_by_its_id_its_sweep_or_its_folder(tmp_path):
    one = make_sweep(tmp_path, "one", a="wait", b="wait")
    make_sweep(tmp_path, "two", a="wait")
    (one / "jobs" / "a" / "log").write_text("of one\n")
    for word in ("one/a", str(one / "jobs" / "a"), f"{one}/a"):
        assert oocr("logs", word, "--output_dir", tmp_path).stdout == "of one\n"
    twice = oocr("logs", "a", "--output_dir", tmp_path)
    assert twice.returncode == 2
    assert "is in several sweeps" in twice.stderr
    none = oocr("logs", "z", "--output_dir", tmp_path)
    assert none.returncode == 2
    assert "no job z" in none.stderr


def test_the_log_of_a_sweep_that_nobody_runs_has_an_end(tmp_path):
    make_sweep(tmp_path, "toys", a="wait")
    done = oocr("logs", "a", "-f", "--output_dir", tmp_path)
    assert done.returncode == 0
    assert "nobody works on it: oocr resume" in done.stderr


# --- gpus ----------------------------------------------------------------------------------------


def test_gpus_tells_who_has_which_and_who_waits(sweep_of):
    first, _ = sweep_of("first", gpus="0,1", c="wait", d="wait")
    eventually(lambda: reported(first, "d"))
    second, _ = sweep_of("second", gpus="0,1", e="wait")
    eventually(lambda: (second / "jobs" / "workers").exists())
    user = getpass.getuser()

    def seen():
        lines = oocr("gpus", CUDA_VISIBLE_DEVICES="0,1,2").stdout.splitlines()
        return lines if lines and lines[-1].startswith("waiting") else None

    lines = eventually(seen)
    table = {line.split()[0]: line.split()[1:] for line in lines[1:4]}
    assert table["2"] == ["free"]
    for gpu in ("0", "1"):
        assert table[gpu][:2] == [user, first.name]
    assert {table["0"][2], table["1"][2]} == {"c", "d"}
    assert read_record(first / "jobs" / table["1"][2] / "state.json")["gpus"] == "1"
    assert lines[4] == f"waiting: {user}, {second.name}: 1 jobs"
    (first / "gate").touch()
    (second / "gate").touch()
    eventually(lambda: states(second) == {"e": "done"} and states(first)["c"] == "done")
    eventually(lambda: oocr("gpus", CUDA_VISIBLE_DEVICES="0,1").stdout.count("free") == 2)


def test_looking_leaves_the_sweeps_folder_as_it_was(tmp_path, own_host):
    experiment = make_sweep(tmp_path, "toys", a="wait")
    before = sorted(Path(experiment).rglob("*"))
    for words in (["status", "toys"], ["logs", "a"]):
        assert oocr(*words, "--output_dir", tmp_path).returncode == 0
    assert sorted(Path(experiment).rglob("*")) == before
