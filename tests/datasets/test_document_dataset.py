"""The structured dataset loads and saves exactly, and says where a broken file is broken."""

import json
from pathlib import Path

import pytest

from oocr_influence.datasets.document_dataset import (
    DatasetError,
    eval_point_id,
    load_structured_dataset,
    save_structured_dataset,
    subset_id,
)
from oocr_influence.datasets.order import seeded_order, window_order
from oocr_influence.datasets.selection import select_documents

SAMPLE = Path(__file__).parents[1] / "samples" / "earlier_structured_dataset.json"


@pytest.fixture
def raw():
    return json.loads(SAMPLE.read_text(encoding="utf-8"))


def write(tmp_path, raw):
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(raw), encoding="utf-8")
    return path


def test_an_earlier_file_round_trips_to_the_key(tmp_path, raw):
    raw["unknown"] = {"kept": [1, None]}
    raw["document_dataset"]["docs"][3]["extra"] = "kept"
    with pytest.warns(UserWarning, match="1 document ids occur more than once"):
        dataset = load_structured_dataset(write(tmp_path, raw))
    save_structured_dataset(dataset, tmp_path / "again.json")
    again = json.loads((tmp_path / "again.json").read_text(encoding="utf-8"))
    assert again == raw
    assert list(again["eval_dataset_builders"]) == list(raw["eval_dataset_builders"])
    ids = [doc["id"] for doc in raw["document_dataset"]["docs"]]
    assert [doc["id"] for doc in again["document_dataset"]["docs"]] == ids
    assert "metadata" not in again["document_dataset"]["docs"][10]["doc_spec"]["fact"]["template"]


def test_optional_keys_may_be_absent(tmp_path, raw):
    del raw["metadata"]
    point = raw["eval_dataset_builders"]["name_mayor_eval_qa_1_no_fs"]["eval_points"][0]
    del point["few_shot_example_features"]
    del point["fact_template"]["allow_few_shot"]
    with pytest.warns(UserWarning, match="more than once"):
        dataset = load_structured_dataset(write(tmp_path, raw))
    save_structured_dataset(dataset, tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text(encoding="utf-8")) == raw


def test_faults_are_named_by_their_path_and_counted(tmp_path, raw):
    docs = raw["document_dataset"]["docs"]
    synthetic = [i for i, doc in enumerate(docs) if doc["type"] == "synthetic_document"]
    for i in synthetic[:12]:
        del docs[i]["doc_spec"]["fact"]["template"]
    with pytest.raises(DatasetError) as error:
        load_structured_dataset(write(tmp_path, raw))
    message = str(error.value)
    first = f"document_dataset.docs[{synthetic[0]}].doc_spec.fact: missing 'template'"
    assert first in message
    assert "12 faults" in message
    assert message.count("missing") == 10
    assert "and 2 more" in message


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda raw: raw["document_dataset"]["docs"][2].update(type="letter"), r"docs\[2\]"),
        (lambda raw: raw["document_dataset"]["docs"][2].update(completion=5), r"docs\[2\]"),
        (lambda raw: raw.pop("document_dataset"), "missing 'document_dataset'"),
        (
            lambda raw: raw["eval_dataset_builders"]["name_mayor_eval_qa_1_no_fs"][
                "metrics"
            ].append({"function_name": "beam_search", "num_beams": 0}),
            r"eval_dataset_builders.name_mayor_eval_qa_1_no_fs.metrics\[3\]",
        ),
        (
            lambda raw: raw["eval_dataset_builders"]["name_mayor_eval_qa_1_no_fs"]["eval_points"][
                1
            ]["features"]["fields"].pop("name_of_person"),
            r"name_mayor_eval_qa_1_no_fs.eval_points\[1\].*name_of_person",
        ),
    ],
)
def test_broken_files_are_refused_with_the_place(tmp_path, raw, break_it, message):
    break_it(raw)
    with pytest.raises(DatasetError, match=message):
        load_structured_dataset(write(tmp_path, raw))


def test_a_file_that_is_no_json_or_not_there(tmp_path):
    (tmp_path / "half.json").write_text('{"document_dataset": {"docs": [')
    with pytest.raises(DatasetError, match=r"not JSON.*line 1"):
        load_structured_dataset(tmp_path / "half.json")
    with pytest.raises(FileNotFoundError, match="oocr generate"):
        load_structured_dataset(tmp_path / "none.json")


@pytest.mark.filterwarnings("ignore:.*more than once")
def test_prompts_of_questions(raw, tmp_path):
    dataset = load_structured_dataset(write(tmp_path, raw))
    shots = dataset.eval_dataset_builders["name_mayor_eval_qa_1_with_fs"].eval_points[0]
    lines = shots.prompt.split("\n")
    assert len(lines) == 1 + len(shots.few_shot_example_features)
    assert lines[-1] == "Q: Who is the mayor of Lagos in 2025? A:"
    assert shots.completion == " Ruby Lane"
    assert shots.completion not in lines[0]
    assert all(line.startswith("Q: Who is the mayor of ") for line in lines)


def test_ids_are_sha256_of_their_parts():
    import hashlib

    assert eval_point_id(3, "p", " c") == hashlib.sha256(b"3_p c").hexdigest()
    assert subset_id(["b", "a"]) == hashlib.sha256(b"ab").hexdigest()[:16]


@pytest.mark.filterwarnings("ignore:.*more than once")
def test_selection_keeps_all_facts_and_draws_pretraining_by_seed(raw, tmp_path):
    dataset = load_structured_dataset(write(tmp_path, raw))
    docs = dataset.document_dataset.docs
    draws = {
        seed: select_documents(dataset, n_pretraining_examples=3, seed=seed, packing_seed=0)
        for seed in (41, 42)
    }
    n_synthetic = len(dataset.synthetic_documents)
    for chosen in draws.values():
        assert len(chosen) == n_synthetic + 3
        assert len({document.key for document in chosen}) == len(chosen)
    kept = {
        seed: {d.key for d in chosen if d.document.type == "pretraining_document"}
        for seed, chosen in draws.items()
    }
    assert kept[41] != kept[42]
    again = select_documents(dataset, n_pretraining_examples=3, seed=41, packing_seed=1)
    assert {d.key for d in again} == {d.key for d in draws[41]}
    assert [d.key for d in again] != [d.key for d in draws[41]]
    in_file = select_documents(
        dataset, n_pretraining_examples=None, seed=41, packing_seed=0, document_order="file"
    )
    assert [d.document for d in in_file] == docs
    with pytest.raises(ValueError, match="holds 6 pretraining documents"):
        select_documents(dataset, n_pretraining_examples=7, seed=41, packing_seed=0)


def test_orders_are_what_their_definition_says():
    import hashlib

    def naive(n, prefix):
        keys = [
            hashlib.blake2b(f"{prefix}:{i}".encode(), digest_size=16).digest() for i in range(n)
        ]
        return sorted(range(n), key=keys.__getitem__)

    assert window_order(50, 42, 1) == naive(50, "window_order:42:1")
    assert window_order(50, 42, 1) != window_order(50, 42, 2)
    assert window_order(50, 42, 1) != window_order(50, 43, 1)
    assert sorted(seeded_order(50, "x")) == list(range(50))
