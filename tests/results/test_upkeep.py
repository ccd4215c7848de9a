"""What a cleanup would delete, what it must leave, and who owns a run."""

import json
import shutil
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from made_runs import Made, make_experiment, make_run

from oocr_influence.results import ownership
from oocr_influence.results.ownership import RunOwnedError, this_process
from oocr_influence.results.run_folder import ExperimentFolder, RunFolder
from oocr_influence.results.upkeep import plan_cleanup, read_cleanups, remove

CLAIM = (
    "import sys; from pathlib import Path;"
    "from oocr_influence.results.run_folder import RunFolder;"
    "RunFolder(Path(sys.argv[1])).claim(); print('claimed', flush=True); sys.stdin.read()"
)


@pytest.fixture(scope="module")
def pristine_two(tmp_path_factory) -> Made:
    """Two completed runs and one that failed; no test may change them."""
    made = make_experiment(tmp_path_factory.mktemp("two"), n_runs=2)
    made.runs.append(make_run(made.experiment, seed=44, status="failed"))
    return made


@pytest.fixture
def made(pristine_two, tmp_path) -> Made:
    copied = tmp_path / pristine_two.experiment.name
    shutil.copytree(pristine_two.experiment.path, copied)
    runs = [RunFolder(copied / "all_docs_runs" / run.name) for run in pristine_two.runs]
    # Names of one second differ in their random part alone; these sort as they were made.
    for place, run in enumerate(runs):
        stamped = run.path.with_name(f"2026_01_20_23-26-5{place}{run.name[19:]}")
        run.path.rename(stamped)
        runs[place] = RunFolder(stamped)
    return Made(ExperimentFolder(copied), runs)


def planned(made: Made, **options) -> dict[str, str]:
    """Number of the run -> why it goes."""
    plan = plan_cleanup([made.experiment], **options)
    names = [run.name for run in made.runs]
    assert len(plan.removals) + len(plan.kept) == len(names)
    return {names.index(removal.name): removal.reason for removal in plan.removals}


def test_the_first_completed_run_stays(made):
    assert planned(made) == {1: "extra completed run", 2: "incomplete"}
    assert planned(made, keep="completed") == {2: "incomplete"}
    assert all(run.path.exists() for run in made.runs)


def test_sizes_are_those_of_the_files(made):
    plan = plan_cleanup([made.experiment])
    for removal in plan.removals:
        files = [path for path in removal.path.rglob("*") if path.is_file()]
        assert removal.n_bytes == sum(path.stat().st_size for path in files)


def test_a_broken_first_run_is_not_kept_in_place_of_a_whole_one(made):
    weights = made.runs[0].checkpoint("final") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert planned(made) == {0: "extra completed run", 2: "incomplete"}
    other = made.runs[1].checkpoint("e1_s3") / "model.safetensors"
    other.write_bytes(b"")
    assert planned(made) == {2: "incomplete"}


def test_a_removal_is_recorded(made):
    for removal in plan_cleanup([made.experiment]).removals:
        assert remove(removal) is None
    assert [run.path.exists() for run in made.runs] == [True, False, False]
    assert list(made.experiment.all_docs_runs.iterdir()) == [made.runs[0].path]
    first, second = read_cleanups(made.experiment)
    assert (first["what"], first["reason"]) == (made.runs[2].name, "incomplete")
    assert second["what"] == made.runs[1].name
    assert set(first) == {"what", "reason", "bytes", "when", "user", "host"}
    assert planned(Made(made.experiment, made.runs[:1])) == {}


def test_a_run_that_a_live_process_owns_stays(made):
    run = made.runs[2]
    process = subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(run.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "claimed\n"
    assert planned(made) == {1: "extra completed run"}
    assert run.ownership()[0] == "alive"
    with pytest.raises(RunOwnedError, match=f"process {process.pid} of"):
        run.claim()
    process.kill()
    process.communicate()
    assert planned(made) == {1: "extra completed run", 2: "incomplete"}
    run.claim()


def test_a_run_that_was_claimed_after_the_list_was_made_stays(made):
    (removal,) = [r for r in plan_cleanup([made.experiment]).removals if r.reason == "incomplete"]
    made.runs[2].claim()
    assert "owned by a live process" in remove(removal)
    assert made.runs[2].path.exists()


@pytest.mark.parametrize(
    ("changed", "state"),
    [
        ({"host": "elsewhere"}, "unknown"),
        ({"boot_id": "another", "claimed": "2999-01-01T00:00:00+00:00"}, "unknown"),
        ({"boot_id": "another", "claimed": "1999-01-01T00:00:00+00:00"}, "free"),
        ({"process_started": 1.0}, "free"),
        ({"pid": 2**22 + 1}, "free"),
        ({"released": "2026-01-01T00:00:00+00:00"}, "free"),
        ({}, "alive"),
    ],
)
def test_owners(made, changed, state):
    run = made.runs[2]
    run.owner_file.write_text(json.dumps(asdict(this_process()) | changed))
    assert run.ownership()[0] == state
    assert (2 in planned(made)) == (state == "free")


def test_an_owner_that_cannot_be_read_keeps_the_run(made):
    made.runs[2].owner_file.write_text("{")
    assert 2 not in planned(made)


def test_a_child_takes_over_from_its_parent(made):
    """A sweep makes the folder, its worker claims it."""
    run = made.runs[2]
    run.claim()
    done = subprocess.run(
        [sys.executable, "-c", CLAIM, str(run.path)], input="", capture_output=True, text=True
    )
    assert done.stdout == "claimed\n"
    assert run.ownership()[0] == "free"


def test_a_busy_run_stays(made):
    busy = {made.runs[2].name: "a job writes it"}
    plan = plan_cleanup([made.experiment], busy=lambda run: busy.get(run.name))
    assert [kept.why for kept in plan.kept] == ["the first completed run", "a job writes it"]


def test_what_is_not_a_run_of_ours_stays(made, tmp_path):
    outside = tmp_path / "outside" / made.runs[2].name
    shutil.copytree(made.runs[2].path, outside)
    link = made.experiment.all_docs_runs / "2026_01_20_23-26-59_abcde_link"
    link.symlink_to(outside)
    (made.experiment.all_docs_runs / "notes").mkdir()
    (made.experiment.all_docs_runs / "2026_01_20_23-26-59_abcde_mine").mkdir()
    assert planned(made) == {1: "extra completed run", 2: "incomplete"}


def test_links_inside_a_run_are_not_followed(made, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    (made.runs[2].path / "linked").symlink_to(tmp_path / "precious")
    for removal in plan_cleanup([made.experiment]).removals:
        remove(removal)
    assert (tmp_path / "precious" / "file").exists()


def test_runs_behind_a_linked_folder_stay(made, tmp_path):
    moved = tmp_path / "elsewhere"
    made.experiment.all_docs_runs.rename(moved)
    made.experiment.all_docs_runs.symlink_to(moved)
    plan = plan_cleanup([made.experiment])
    assert plan.removals == []
    assert {kept.why for kept in plan.kept} == {"it lies outside its experiment's folder"}


def test_an_interrupted_deletion_leaves_no_run_and_is_finished_later(made, monkeypatch):
    plan = plan_cleanup([made.experiment])

    rmtree = shutil.rmtree

    def interrupted(path):
        rmtree(path / "eval_results")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            remove(plan.removals[0])
    assert not plan.removals[0].path.exists()
    again = plan_cleanup([made.experiment])
    assert again.removals[0].reason == "left by an interrupted cleanup"
    for removal in again.removals:
        remove(removal)
    assert list(made.experiment.all_docs_runs.iterdir()) == [made.runs[0].path]
    assert len(read_cleanups(made.experiment)) == 2


def as_earlier(run: RunFolder, **log_dict) -> None:
    run.owner_file.unlink()
    log = {"experiment_name": "x", "args": {}, "history": [], "log_dict": log_dict}
    run.experiment_log.write_text(json.dumps(log))


def test_runs_of_the_earlier_system_stay_unless_extra_and_asked_for(made):
    as_earlier(made.runs[0], time_taken=1.0)
    as_earlier(made.runs[1], time_taken=1.0)
    as_earlier(made.runs[2])
    assert planned(made) == {}
    assert planned(made, include_earlier=True) == {1: "extra completed run"}


def test_the_machines_name_is_part_of_the_owner():
    assert this_process().host == socket.gethostname()
    assert ownership.read_owner(Path("/nonexistent")) is None
