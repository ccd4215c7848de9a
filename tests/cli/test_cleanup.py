"""`oocr cleanup`: it lists, deletes only when told to, and leaves what a live job writes."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from launcher.ledger import identity
from oocr_influence.cli.arguments import UsageError, parse
from oocr_influence.cli.cleanup import CleanupArguments, main, readable_size

sys.path.append(str(Path(__file__).parents[1] / "results"))  # made_runs.py

from made_runs import make_experiment, make_run


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    made = make_experiment(tmp_path_factory.mktemp("cleanup"), n_runs=2)
    made.runs.append(make_run(made.experiment, seed=44, status="running"))
    return made


@pytest.fixture
def made(pristine, tmp_path):
    copied = tmp_path / "outputs" / pristine.experiment.name
    shutil.copytree(pristine.experiment.path, copied)
    runs = [type(run)(copied / "all_docs_runs" / run.name) for run in pristine.runs]
    return type(pristine)(type(pristine.experiment)(copied), runs)


def cleanup(*words) -> int:
    return main(parse(CleanupArguments, [str(word) for word in words]))


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_without_yes_nothing_changes(made, capsys):
    before = files_of(made.experiment.path)
    assert cleanup(made.experiment.path.parent, "--keep", "first-completed") == 0
    out = capsys.readouterr().out
    assert files_of(made.experiment.path) == before
    assert "2 to delete," in out
    assert f"delete  {made.runs[2].path}\n        incomplete, " in out
    assert "nothing was deleted: add --yes" in out


def test_with_yes_it_deletes_what_it_listed(made, capsys):
    assert cleanup(made.experiment.path, "--yes") == 0
    left = [run for run in made.runs if run.path.exists()]
    assert len(left) == 1
    assert left[0] in made.runs[:2]
    out = capsys.readouterr().out
    assert out.count("deleted ") == 2
    assert len(made.experiment.cleanups.read_text().splitlines()) == 2
    assert cleanup(made.experiment.path, "--yes") == 0
    assert "nothing to delete" in capsys.readouterr().out


def test_completed_runs_are_kept_if_asked(made):
    assert cleanup(made.experiment.path, "--keep", "completed", "--yes") == 0
    assert [run.path.exists() for run in made.runs] == [True, True, False]


def test_a_run_that_a_live_job_writes_stays(made, capsys):
    """Even where the run's own record of its owner is lost."""
    run = made.runs[2]
    run.owner_file.unlink()
    folder = made.experiment.job("all_docs_seed_44")
    folder.mkdir(parents=True)
    state = folder / "state.json"
    state.write_text(json.dumps({"status": "running", **identity()}))
    assert cleanup(made.experiment.path, "--yes") == 0
    assert run.path.exists()
    assert "job all_docs_seed_44 may be writing it (alive)" in capsys.readouterr().out
    state.write_text(json.dumps({"status": "ok", **identity()}))
    assert cleanup(made.experiment.path, "--yes") == 0
    assert not run.path.exists()


def test_a_folder_that_cannot_be_deleted_is_said(made, capsys, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    assert cleanup(made.experiment.path, "--yes") == 1
    assert "Permission denied" in capsys.readouterr().out


def test_what_is_no_experiment_is_refused(made, tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="neither an experiment's folder nor holds any"):
        cleanup(tmp_path / "mine", "--yes")
    with pytest.raises(UsageError, match="neither"):
        cleanup(made.run.path, "--yes")
    assert made.run.path.exists()


def test_sizes_are_readable():
    assert [readable_size(n) for n in (12, 1500, 2.5e6, 14.6e9, 2e12)] == [
        "12 B",
        "1.5 kB",
        "2.5 MB",
        "14.6 GB",
        "2.0 TB",
    ]
