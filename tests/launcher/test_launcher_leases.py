"""GPUs and disk shared between processes: who gets what, and what is free when somebody dies."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from launcher_claimant import Person
from launcher_helpers import eventually, running

from launcher import host as host_module
from launcher.host import Host, living
from launcher.leases import Claimant, holders

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def person():
    started = []

    def start(*given, **named):
        started.append(Person(*given, **named))
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_a_gpu_has_one_holder_and_is_free_when_that_is_killed(person):
    a, b = person("a"), person("b")
    assert (a("lease"), b("lease"), a("lease"), b("lease")) == (["gpu-0"], ["gpu-1"], None, None)
    assert {gpu: record["sweep"] for gpu, record in holders(Host()).items()} == {
        "gpu-0": "a",
        "gpu-1": "b",
    }
    a.process.send_signal(signal.SIGKILL)
    a.process.wait()
    assert eventually(lambda: b("lease")) == ["gpu-0"]
    assert b("release") is None
    assert set(holders(Host())) == {"gpu-0"}


def test_a_jobs_process_keeps_its_gpu_alone_when_its_worker_is_killed(person):
    a, b = person("worker-a"), person("b")
    a("lease")
    a("lease")
    child = a("fork")  # has inherited the lock of gpu-1, and given up that of gpu-0
    try:
        a.process.kill()
        a.process.wait()
        assert eventually(lambda: b("lease")) == ["gpu-0"]
        # What the dead worker's token is found on has been ended before its GPU was given away.
        eventually(lambda: not running(child))
        assert b("lease") == ["gpu-1"]
    finally:
        if running(child):
            os.kill(child, signal.SIGKILL)


def test_what_a_dead_worker_left_running_ends_before_its_gpu_is_given_away(person):
    a, b = person("worker-a", names=["gpu-0"]), person("b", names=["gpu-0"])
    a("lease")
    helper = a("start")  # executed: it has no lock, and a session of its own
    a.process.kill()
    a.process.wait()
    assert running(helper)
    assert b("lease") == ["gpu-0"]
    assert not running(helper)


def test_a_free_gpu_goes_to_the_sweep_that_holds_the_fewest_the_older_on_a_tie(person):
    names = ["gpu-0", "gpu-1", "gpu-2"]
    old, new = person("old", names=names, since=1.0), person("new", names=names, since=2.0)
    assert old("wants 2") is None
    assert new("lease") == ["gpu-0"]  # three are free, and old wants one first: two are left
    assert old("lease") == ["gpu-1"]
    assert new("wants 1") is None
    assert new("lease") is None, "both hold one: it is the older one's turn"
    assert old("lease") == ["gpu-2"]
    old("wants 1")
    old("release")
    old("release")
    assert old("lease") == ["gpu-1"], "it has none, new has one"
    assert new("lease") is None


def test_workers_of_one_sweep_count_together(person):
    names = ["gpu-0", "gpu-1", "gpu-2"]
    a1, a2 = (person(f"a{n}", names=names, sweep="a", since=1.0) for n in range(2))
    b = person("b", names=names, since=2.0)
    assert a1("lease") == ["gpu-0"]
    b("wants 1")
    a2("wants 1")
    assert (a2("lease"), b("lease")) == (["gpu-1"], ["gpu-2"])
    b("wants 1")
    b("release")
    assert a2("lease") is None, "its sweep has two"
    assert b("lease") == ["gpu-2"]


def test_a_wide_job_is_not_starved_by_narrow_ones(person):
    names = [f"gpu-{n}" for n in range(3)]
    narrow, wide = person("n", names=names, since=1.0), person("w", names=names, each=3, since=2.0)
    for name in names:
        assert narrow("lease") == [name]
    assert wide("lease") is None
    wide("wants 1")
    for _ in range(3):
        narrow("release")
        narrow("wants 1")
        got = (narrow("lease"), wide("lease"))
    assert got == (None, names)


def test_what_a_waiting_sweep_cannot_use_is_not_kept_for_it(person):
    wide = person("w", names=["gpu-0", "gpu-1"], each=2, since=1.0)
    other = person("o", names=["gpu-0", "gpu-1", "gpu-2"], since=2.0)
    user = person("u", names=["gpu-1"])
    user("lease")
    wide("wants 1")
    assert (wide("lease"), other("lease"), other("lease")) == (None, ["gpu-2"], None)
    user("release")
    assert wide("lease") == ["gpu-0", "gpu-1"]


def test_who_stands_stopped_or_may_not_take_what_is_free_is_not_waited_for(person, monkeypatch):
    stopped, other = person("s", since=1.0), person("o", since=2.0)
    stopped("wants 2")
    other("lease")
    assert other("lease") is None
    # As its clock would have it after ten seconds.
    lock = Host().claimants / "s.lock"
    os.utime(lock, (time.time() - 11, time.time() - 11))
    assert other("lease") == ["gpu-1"]
    other("release")
    stopped("wants 2")
    assert other("lease") is None
    stopped("lease gpu-0 gpu-1")  # strangers use both
    assert other("lease") == ["gpu-0"]


def test_a_process_stopped_with_the_arbiters_lock_is_passed_over(monkeypatch):
    monkeypatch.setattr(host_module, "PATIENCE", 0.3)
    host = Host()
    child = os.fork()
    if child == 0:
        with host.arbiter():
            (host.folder / "inside").touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    try:
        eventually((host.folder / "inside").exists)
        began = time.monotonic()
        claimant = Claimant(host, "a", names=["gpu-0"], each=1, sweep="a", since=0.0)
        assert claimant.lease().names == ("gpu-0",)
        assert 0.3 <= time.monotonic() - began < 0.6, "it costs patience once"
        claimant.close()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_lock_whose_file_was_removed_is_no_lock():
    host = Host()
    first = host.lock("gpu-0")
    assert host.lock("gpu-0") is None
    (host.folder / "gpu-0.lock").unlink()  # by who cleans /tmp
    second = host.lock("gpu-0")
    assert second is not None
    assert host.lock("gpu-0") is None
    os.close(first)
    os.close(second)


def test_signs_of_life_keep_a_leased_gpus_lock_young():
    claimant = Claimant(Host(), "a", names=["gpu-0"], each=1, sweep="a", since=0.0)
    claimant.lease()
    files = [Host().folder / "gpu-0.lock", *(Host().claimants / f"a.{k}" for k in ("lock", "json"))]
    for file in files:
        os.utime(file, (0, 0))
    claimant.beat()
    assert all(time.time() - file.stat().st_mtime < 60 for file in files)
    claimant.close()


def test_records_of_another_version_do_no_harm(tmp_path):
    host = Host()
    mine = Claimant(host, "a", names=["gpu-0"], each=1, sweep="a", since=0.0)
    others = [host_module.Entry(host.claimants, f"x{n}", {"v": n}) for n in range(2)]
    (host.claimants / "x1.json").write_text("{half a rec")
    assert mine.lease().names == ("gpu-0",)
    assert list(holders(host)) == ["gpu-0"]
    for entry in (mine, *others):
        entry.close()
    assert list(host.claimants.iterdir()) == []


@as_root
def test_users_share_the_folder_whatever_their_umask_is(person, monkeypatch, tmp_path):
    folder = Path("/tmp") / f"launcher-test-{os.getpid()}"
    monkeypatch.setenv("LAUNCHER_HOST_FOLDER", str(folder))
    try:
        Host()
        assert folder.stat().st_mode & 0o7777 == 0o1777
        theirs = person("theirs", uid=65534)
        mine = person("mine", since=1.0)
        assert theirs("lease") == ["gpu-0"]
        assert (mine("lease"), mine("lease")) == (["gpu-1"], None)
        assert holders(Host())["gpu-0"]["sweep"] == "theirs"
        theirs("beat")
        theirs("release")
        theirs.close()
        # The lock's file is the other user's, and ours to lock.
        assert (folder / "gpu-0.lock").stat().st_uid == 65534
        assert mine("lease") == ["gpu-0"]
        mine("beat")
        yours = person("yours", uid=65533)
        assert yours("lease") is None
        mine("release")
        assert yours("lease") == ["gpu-1"]
    finally:
        shutil.rmtree(folder)


def test_disk_is_promised_once(person, tmp_path):
    people = [person(f"p{n}") for n in range(4)]
    third = shutil.disk_usage(tmp_path).free // 3
    asked = int(third * 0.95)
    for one in people:  # all four at once, read afterwards
        one.process.stdin.write(f"reserve {tmp_path} {asked}\n")
        one.process.stdin.flush()
    answers = [one.process.stdout.readline() for one in people]
    assert sorted(answers) == ["False\n", "True\n", "True\n", "True\n"]
    assert len(living(Host().reservations)) == 3
    # Whoever dies needs no room any more.
    people[answers.index("True\n")].close()
    assert people[answers.index("False\n")](f"reserve {tmp_path} {asked}") is True
