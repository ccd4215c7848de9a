"""Entries appear whole or not at all, damage is seen, and processes that ask at once agree."""

import os
import subprocess
import sys
import time

import pytest

from oocr_influence.results import atomic
from oocr_influence.results.cache import Cache

WORKER = """
import sys, time
from pathlib import Path
from oocr_influence.results.cache import Cache
cache, log = Cache(Path(sys.argv[1])), Path(sys.argv[2])
def write(folder):
    with log.open("a") as file:
        file.write("made\\n")
    time.sleep(0.5)
    (folder / "text").write_text("one")
with cache.alone("kind", "key"):
    entry = cache.find("kind", "key") or cache.store("kind", "key", write, {})
print(entry.file("text").read_text())
"""


def write_one(folder):
    (folder / "text").write_text("one")


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


def test_what_is_stored_is_found_and_read_only(cache):
    assert cache.find("kind", "key") is None
    made = cache.store("kind", "key", write_one, {"seconds": 1.5})
    found = cache.find("kind", "key")
    assert found == made
    assert dict(found.about) == {"seconds": 1.5}
    assert found.file("text").stat().st_mode & 0o222 == 0
    assert cache.find("kind", "other") is None


@pytest.mark.parametrize("name", ["text", "entry.json"])
@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_entry_is_said_so_and_made_anew(cache, caplog, name, damage):
    entry = cache.store("kind", "key", write_one, {"seconds": 1.5})
    path = entry.file(name)
    text = path.read_text()
    path.unlink()
    if damage == "changed":
        path.write_text(text.replace("1.5", "2.5").replace("one", "two"))
    assert cache.find("kind", "key") is None
    assert "damaged" in caplog.text
    assert not entry.folder.exists()
    assert cache.store("kind", "key", write_one, {}).file("text").read_text() == "one"


def test_the_first_of_two_writers_wins(cache):
    def write(folder):
        cache.store("kind", "key", write_one, {"by": "the other"})
        (folder / "text").write_text("two")

    entry = cache.store("kind", "key", write, {})
    assert entry.file("text").read_text() == "one"
    assert [path.name for path in (cache.root / "kind").iterdir()] == ["key"]


def test_a_writer_that_fails_leaves_nothing(cache):
    def write(folder):
        (folder / "text").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cache.store("kind", "key", write, {})
    assert list((cache.root / "kind").iterdir()) == []


def test_a_cache_that_cannot_be_written_costs_a_warning_alone(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file")
    with cache.alone("kind", "key"):
        assert cache.find("kind", "key") is None
        assert cache.store("kind", "key", write_one, {}) is None
    assert "cannot be written" in caplog.text


def test_of_processes_that_ask_at_once_one_works(cache, tmp_path):
    log = tmp_path / "log"
    command = [sys.executable, "-c", WORKER, str(cache.root), str(log)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [worker.communicate(timeout=60)[0] for worker in workers] == ["one\n"] * 3
    assert log.read_text() == "made\n"


def test_a_dead_process_holds_nobody_up_and_leaves_no_half_entry(cache, tmp_path):
    slow = WORKER.replace("sleep(0.5)", "sleep(600)")
    log = tmp_path / "log"
    first = subprocess.Popen([sys.executable, "-c", slow, str(cache.root), str(log)])
    deadline = time.monotonic() + 60
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    waited = []

    def waiting():
        waited.append(1)
        first.kill()
        first.wait()

    with cache.alone("kind", "key", waiting):
        assert waited
        assert cache.find("kind", "key") is None
        assert cache.store("kind", "key", write_one, {}).file("text").read_text() == "one"


def test_one_who_waits_may_give_up(cache):
    def waiting():
        raise KeyboardInterrupt

    with (
        cache.alone("kind", "key"),
        pytest.raises(KeyboardInterrupt),
        cache.alone("kind", "key", waiting),
    ):
        pytest.fail("two were alone")


def test_its_place_is_stated_or_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("OOCR_CACHE", str(tmp_path / "here"))
    assert Cache.default().root == tmp_path / "here"
    monkeypatch.delenv("OOCR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "users"))
    assert Cache.default().root == tmp_path / "users" / "oocr_influence"


@pytest.mark.parametrize("links", [True, False])
def test_a_linked_file_outlives_its_source_and_is_replaced_alone(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *paths: (_ for _ in ()).throw(OSError("no links")))
    source, path = tmp_path / "source", tmp_path / "path"
    source.write_text("one")
    atomic.link_file(source, path)
    atomic.link_file(source, path)  # again: nothing happens
    assert path.samefile(source) == links
    atomic.write_text(path, "two")
    assert source.read_text() == "one"
    atomic.link_file(source, path)
    source.unlink()
    assert path.read_text() == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["path"]
