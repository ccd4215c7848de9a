"""Names, and that nothing half-written ever bears one of them."""

import json
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from oocr_influence.results import dataset_files, naming
from oocr_influence.results.digests import train_set_digest, window_id
from oocr_influence.results.finding import find_experiments, find_runs
from oocr_influence.results.run_folder import ExperimentFolder, RunFolder


@pytest.fixture
def run(tmp_path) -> RunFolder:
    experiment = ExperimentFolder.create(tmp_path / "outputs", "mayors_1epoch")
    return RunFolder.create(experiment.all_docs_runs, "mayors_1epoch", 1.0, 1e-4)


def write_evaluation(run: RunFolder, **changed) -> Path:
    values = {
        "step_num": 42,
        "epoch_num": 0.2,
        "eval_seconds": 1.5,
        "eval_sets": {"s": {"n": 1, "mean_loss": 0.5}},
        "records": [{"set": "s", "loss": 0.5}],
    }
    return run.write_evaluation("e1_s42", **(values | changed))


def test_names_are_those_of_the_seed(run):
    stamp = r"\d{4}_\d\d_\d\d_\d\d-\d\d-\d\d_[0-9A-Za-z]{5}_mayors_1epoch"
    assert re.fullmatch(stamp, run.experiment.name)
    tail = "_all_docs_num_epochs_1_lr_0.0001_dataset_structured_dataset_all.json"
    assert re.fullmatch(stamp + re.escape(tail), run.name)
    assert run.path.parent.name == "all_docs_runs"
    assert run.checkpoint("e1_s42").name == "checkpoint_e1_s42"
    assert run.evaluation("final") == run.path / "eval_results/eval_results_final.json"
    assert run.records("final") == run.path / "eval_results/records_final.parquet"


@pytest.mark.parametrize(
    ("value", "text"),
    [(1, "1"), (1.0, "1"), (0.2, "0.2"), (1e-4, "0.0001"), (1e-5, "1e-05"), (0, "0"), (2.5, "2.5")],
)
def test_numbers_in_names(value, text):
    assert naming.readable_number(value) == text
    assert float(text) == value


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("", "is empty"),
        ("a/b", "without '/'"),
        ("..", "leave its folder"),
        ("a\nb", "without"),
        ("é" * 81, "162 bytes: at most 160"),
    ],
)
def test_names_that_are_refused(tmp_path, name, complaint):
    with pytest.raises(ValueError, match=complaint):
        ExperimentFolder.create(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_the_longest_name_fits_and_spaces_and_quotes_do(tmp_path):
    experiment = ExperimentFolder.create(tmp_path, "x" * 160)
    run = RunFolder.create(experiment.all_docs_runs, "x" * 160, 0.123456789, 1.5e-05)
    assert len(run.name.encode()) <= 255
    assert run.name.endswith("_lr_1.5e-05_dataset_structured_dataset_all.json")
    odd = ExperimentFolder.create(tmp_path, 'it\'s "100 %" ü')
    odd.jobs.mkdir()
    assert find_experiments(odd.path) == [odd]


def test_escaped_names_stay_apart_and_in_their_place(run):
    names = ["a/b", "a%2Fb", "..", ".", ".hidden", "", "n" * 300, "n" * 301, "a\\b", "plain_no_fs"]
    folders = [run.eval_dataset(name) for name in names]
    assert len(set(folders)) == len(names)
    assert all(folder.parent == run.eval_datasets for folder in folders)
    assert all(len(folder.name.encode()) < 200 for folder in folders)
    assert folders[-1].name == "plain_no_fs"


def test_creations_at_the_same_instant_give_folders_of_their_own(tmp_path):
    code = (
        "import sys; from pathlib import Path;"
        "from oocr_influence.results.run_folder import ExperimentFolder;"
        "sys.stdin.readline(); print(ExperimentFolder.create(Path(sys.argv[1]), 'same').name)"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    names = {process.communicate("go\n")[0].strip() for process in started}
    assert len(names) == 4
    assert {path.name for path in tmp_path.iterdir()} == names


def test_a_taken_name_is_drawn_again(tmp_path, monkeypatch):
    class Fixed:
        @staticmethod
        def now(zone):
            return original.fromtimestamp(0, zone)

    original = naming.datetime
    letters = iter("AAAAA" + "AAAAA" + "BBBBB")
    monkeypatch.setattr(naming, "datetime", Fixed)
    monkeypatch.setattr(naming.secrets, "choice", lambda _: next(letters))
    first, second = (naming.create_stamped(tmp_path, "x").name for _ in range(2))
    assert (first, second) == ("1970_01_01_00-00-00_AAAAA_x", "1970_01_01_00-00-00_BBBBB_x")


def test_many_threads_create_one_folder_each(tmp_path):
    made: list[Path] = []
    threads = [
        threading.Thread(target=lambda: made.append(naming.create_stamped(tmp_path, "x")))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 20


def test_a_checkpoint_appears_whole_or_not_at_all(run):
    with run.writing_checkpoint("e1_s42") as folder:
        (folder / "weights").write_text("w")
        assert not list(run.path.glob("checkpoint_*"))
        assert folder.name.startswith(".")
    assert (run.checkpoint("e1_s42") / "weights").read_text() == "w"
    with pytest.raises(ZeroDivisionError), run.writing_checkpoint("final") as folder:
        (folder / "weights").write_text(str(1 // 0))
    assert run.checkpoints() == ["e1_s42"]
    assert run.unfinished() == []
    with pytest.raises(FileExistsError), run.writing_checkpoint("e1_s42"):
        pass


def test_kill_during_a_checkpoint_leaves_none(run):
    code = (
        "import sys, time; from pathlib import Path;"
        "from oocr_influence.results.run_folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).writing_checkpoint('final') as folder:\n"
        "    (folder / 'model.safetensors').write_bytes(b'half')\n"
        "    print('writing', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(run.path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert run.checkpoints() == []
    assert not [path for path in run.path.rglob("*") if re.match("checkpoint_|eval_res", path.name)]
    assert len(run.unfinished()) == 1
    run.claim()
    assert run.unfinished() == []


def test_an_evaluation_in_two_files(run):
    path = write_evaluation(run)
    assert json.loads(path.read_text()) == {
        "name": "e1_s42",
        "step_num": 42,
        "epoch_num": 0.2,
        "eval_seconds": 1.5,
        "eval_sets": {"s": {"n": 1, "mean_loss": 0.5}},
    }
    assert run.read_evaluation("e1_s42").eval_sets["s"]["mean_loss"] == 0.5
    assert run.evaluations() == ["e1_s42"]
    metadata = pq.read_metadata(run.records("e1_s42"))
    assert metadata.row_group(0).column(0).compression == "ZSTD"


@pytest.mark.parametrize("means", [{"mean_loss": 0.5}, {"n": 1, "mean_loss": float("nan")}])
def test_means_that_are_refused(run, means):
    with pytest.raises(ValueError, match="set s"):
        write_evaluation(run, eval_sets={"s": means})
    assert not run.eval_results.exists()


def test_means_never_stand_without_their_records(run):
    with pytest.raises(pa.ArrowInvalid):
        write_evaluation(run, records=[{"set": "s", "n_candidates": "many"}])
    assert run.evaluations() == []
    assert list(run.eval_results.glob("*")) == []


def test_every_records_file_has_the_same_types(run):
    full = {
        "set": "s",
        "accuracy": True,
        "rank": 1,
        "n_candidates": 3,
        "candidate_texts": [" a", " b"],
        "candidate_logprobs": [-1, -2.5],
        "beam_token_ids": [[1, 2], [3]],
        "merged": False,
        "own_metric": 1,
        "notes": {"a": [1]},
    }
    write_evaluation(run, records=[full, {"set": "s", "own_metric": 0.5}])
    first = run.read_records("e1_s42")
    write_evaluation(run, records=[{"set": "s"}])
    second = run.read_records("e1_s42")
    shared = set(second.column_names)
    assert shared < set(first.column_names)
    assert all(first.schema.field(name).type == second.schema.field(name).type for name in shared)
    assert first.column("accuracy").to_pylist() == [1.0, None]
    assert first.column("candidate_logprobs").to_pylist() == [[-1.0, -2.5], None]
    assert first.column("own_metric").to_pylist() == [1.0, 0.5]
    assert json.loads(first.column("notes")[0].as_py()) == {"a": [1]}


def test_reading_some_columns_leaves_out_what_is_not_there(run):
    write_evaluation(run)
    assert run.read_records("e1_s42", ["loss", "own_metric"]).column_names == ["loss"]


def test_a_train_set_is_a_dataset_with_a_digest(run):
    import datasets

    tokens = np.arange(12).reshape(3, 4)
    spans = [[{"id": "d", "doc_spec": None, "span_start": 0}]] * 3
    columns = {
        "input_ids": list(tokens),
        "labels": [[-100, 1, 2, 3], [1], []],
        "attention_mask": np.ones((3, 4), dtype=np.int64),
        "id": [window_id(row) for row in tokens],
        "packed_documents": spans,
    }
    digest = run.save_train_set(columns)
    loaded = datasets.load_from_disk(str(run.train_set))
    assert loaded["input_ids"] == tokens.tolist()
    assert loaded["packed_documents"] == spans
    assert loaded["labels"][0] == [-100, 1, 2, 3]
    assert digest == train_set_digest(columns.items()) == dataset_files.digest(run.train_set)
    changed = columns | {"labels": [[-100, 1, 2, 3], [], [1]]}
    assert train_set_digest(changed.items()) != digest
    with pytest.raises(ValueError, match="differ in length"):
        run.save_train_set_documents({"input_ids": [[1]], "labels": []})
    assert not run.train_set_documents.exists()


def test_window_ids_are_of_int64_tokens():
    import hashlib

    bytes_of_three = b"".join(token.to_bytes(8, "little") for token in (1, 2, 300))
    assert window_id([1, 2, 300]) == hashlib.sha256(bytes_of_three).hexdigest()
    assert window_id(np.array([1, 2, 300], dtype=np.int32)) == window_id([1, 2, 300])


def test_an_eval_dataset_is_a_dataset_with_its_functions(run):
    import datasets

    row = {"prompt": "Q", "completion": " A", "features": {"id": "x"}, "input_ids": [1, 2]}
    run.save_eval_dataset("set/one", [row], [{"function_name": "ranks"}])
    folder = run.eval_datasets / "set%2Fone"
    loaded = datasets.load_from_disk(str(folder / "eval_dataset"))
    assert json.loads(loaded[0]["features"]) == {"id": "x"}
    assert loaded[0]["input_ids"] == [1, 2]
    functions = json.loads((folder / "eval_functions.json").read_text())
    assert functions == [{"function_name": "ranks"}]


def test_runs_are_found_from_any_level(run, tmp_path):
    other = ExperimentFolder.create(tmp_path / "outputs", "other")
    again = RunFolder.create(
        other.path / "data_modeling_runs_train", "other", 1, 1e-4, kind="subset"
    )
    (tmp_path / "outputs" / "notes").mkdir()
    (again.path.parent / run.name).symlink_to(run.path)
    assert find_runs(tmp_path / "outputs") == [run, again]
    assert (
        find_runs(run.experiment.path) == find_runs(run.path.parent) == find_runs(run.path) == [run]
    )
    assert find_runs(other.path) == [again]
    assert find_experiments(run.path) == []
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_runs(tmp_path / "elsewhere")


def test_a_run_on_its_own_is_found_beside_experiments(run, tmp_path):
    alone = RunFolder.create(tmp_path / "outputs", "alone", 1, 1e-4)
    assert find_runs(tmp_path / "outputs") == [run, alone]
    assert alone.experiment.path == alone.path
    assert find_experiments(alone.path) == []


def test_folders_are_in_the_order_of_time_and_not_of_their_letters(tmp_path):
    names = [
        "2026_01_20_23-26-34_zzzzz_death_dates",
        "2026_01_20_23-26-34_aaaaa_mayors",
        "2026_01_20_23-26-35_AAAAA_death_dates",
    ]
    for name in names:
        ExperimentFolder(tmp_path / name).all_docs_runs.mkdir(parents=True)
    assert [found.path.name for found in find_experiments(tmp_path)] == names


def test_folders_of_the_earlier_system_are_found(tmp_path):
    run = tmp_path / "2026_01_20_23-26-34_2Q653_a/all_docs_runs/2026_01_20_23-26-57_B6yOG_a.json"
    (run / "checkpoint_final").mkdir(parents=True)
    (found,) = find_runs(tmp_path)
    assert found.path == run
    assert found.checkpoints() == ["final"]


def test_checkpoints_are_listed_in_the_order_of_their_steps(run):
    for name in ("final", "e1_s84", "e10_s420", "start", "e1_s9"):
        run.checkpoint(name).mkdir()
    assert run.checkpoints() == ["start", "e1_s9", "e1_s84", "e10_s420", "final"]


def test_results_and_reports_do_without_torch():
    code = (
        "import sys, pkgutil, importlib, oocr_influence.results as a, oocr_influence.reports as b\n"
        "for room in (a, b):\n"
        "    for module in pkgutil.iter_modules(room.__path__):\n"
        "        importlib.import_module(f'{room.__name__}.{module.name}')\n"
        "print(sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
