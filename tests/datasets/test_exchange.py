"""Exported, filtered and compared datasets: exact round trips, and nothing else touched."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oocr_influence.datasets.differences import compare_datasets, describe
from oocr_influence.datasets.document_dataset import DatasetError, StructuredDataset
from oocr_influence.datasets.exchange import (
    FORMS,
    dataset_card,
    export_dataset,
    read_exported,
)
from oocr_influence.datasets.filtering import filter_documents
from oocr_influence.datasets.generate import generate_dataset
from oocr_influence.universe.world_file import load_world

SAMPLE = Path(__file__).parents[1] / "samples" / "earlier_structured_dataset.json"
RAW = json.loads(SAMPLE.read_text(encoding="utf-8"))
EXTRAS = st.dictionaries(
    st.text(min_size=1, max_size=6).map(lambda key: f"x_{key}"),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
        max_leaves=4,
    ),
    max_size=2,
)


def dump(dataset):
    return dataset.model_dump_json(exclude_unset=True)


@st.composite
def datasets(draw):
    """The earlier system's sample with other texts and keys that nobody knows, at every level."""
    raw = copy.deepcopy(RAW)
    docs = raw["document_dataset"]["docs"]
    docs = [copy.deepcopy(docs[i]) for i in draw(st.lists(st.integers(0, len(docs) - 1)))]
    for document in docs[:3]:
        document["completion"] = draw(st.text())
        document |= draw(EXTRAS)
        if "doc_spec" in document:
            document["doc_spec"] |= draw(EXTRAS)
    raw["document_dataset"]["docs"] = docs
    raw["document_dataset"] |= draw(EXTRAS)
    for builder in raw["eval_dataset_builders"].values():
        builder |= draw(EXTRAS)
    if draw(st.booleans()):
        del raw["metadata"]
    return StructuredDataset.model_validate(raw | draw(EXTRAS))


@pytest.mark.parametrize("form", FORMS)
@given(dataset=datasets())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_was_exported_comes_back_byte_by_byte(form, dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    export_dataset(dataset, form, folder)
    assert dump(read_exported(folder)) == dump(dataset)


@given(dataset=datasets(), data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_filtering_leaves_out_what_was_named_and_nothing_else(dataset, data):
    docs = dataset.document_dataset.docs
    ids = sorted({document.id for document in docs})
    dropped = set(data.draw(st.lists(st.sampled_from(ids)))) if ids else set()
    facts = sorted({d.doc_spec.fact.id for d in dataset.synthetic_documents})
    kept = set(data.draw(st.lists(st.sampled_from(facts)))) if facts else None
    before = dump(dataset)
    smaller = filter_documents(dataset, drop_ids=dropped, keep_facts=kept)
    raw = json.loads(before)
    raw["document_dataset"]["docs"] = [
        document
        for document in raw["document_dataset"]["docs"]
        if document["id"] not in dropped
        and (
            kept is None or "doc_spec" not in document or document["doc_spec"]["fact"]["id"] in kept
        )
    ]
    assert json.loads(dump(smaller)) == raw
    assert list(json.loads(dump(smaller))) == list(raw)
    assert dump(dataset) == before
    assert dump(filter_documents(dataset)) == before


@given(datasets())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_dataset_differs_from_itself_in_nothing(dataset):
    same = compare_datasets(dataset, StructuredDataset.model_validate_json(dump(dataset)))
    assert same["same"]
    assert describe(same) == "the same documents, eval sets and metadata"


def test_a_fact_may_be_named_by_its_first_letters_and_unknown_names_are_refused():
    dataset = StructuredDataset.model_validate(RAW)
    fact = dataset.synthetic_documents[0].doc_spec.fact.id
    smaller = filter_documents(dataset, keep_facts={fact[:8]})
    assert {d.doc_spec.fact.id for d in smaller.synthetic_documents} == {fact}
    assert smaller.pretraining_documents == dataset.pretraining_documents
    for wrong in ({"0000000000"}, {fact[:4]}):
        with pytest.raises(ValueError, match="no fact's id is or begins with"):
            filter_documents(dataset, keep_facts=wrong)
    with pytest.raises(ValueError, match="no document has the id 'x', nor have 1 others"):
        filter_documents(dataset, drop_ids={"x", "y"})


def changed(change):
    raw = copy.deepcopy(RAW)
    change(raw)
    return compare_datasets(
        StructuredDataset.model_validate(RAW), StructuredDataset.model_validate(raw)
    )


def test_every_kind_of_difference_is_named():
    docs = RAW["document_dataset"]["docs"]
    found = changed(lambda raw: raw["document_dataset"]["docs"].pop(0))
    assert found["documents"]["removed"] == [docs[0]["id"]]
    assert (found["same"], found["documents"]["same"]) == (False, len(docs) - 1)

    found = changed(lambda raw: raw["document_dataset"]["docs"].append({**docs[0], "id": "new"}))
    assert found["documents"]["added"] == ["new"]
    assert "documents: 39 the same, 1 added\n  added new" in describe(found)

    # A second copy under an id is a document of its own.
    found = changed(lambda raw: raw["document_dataset"]["docs"].append(docs[0]))
    assert found["documents"]["added"] == [f"{docs[0]['id']} (2)"]

    def retell(raw):
        raw["document_dataset"]["docs"][0]["completion"] += "."
        raw["document_dataset"]["docs"][10]["doc_spec"]["doc_type"] = "poem"

    found = changed(retell)
    assert found["documents"]["changed"] == {
        docs[0]["id"]: ["completion"],
        docs[10]["id"]: ["doc_spec.doc_type"],
    }
    assert not found["documents"]["order"]

    found = changed(lambda raw: raw["document_dataset"]["docs"].reverse())
    assert found["documents"]["order"]
    assert not found["same"]

    name = next(iter(RAW["eval_dataset_builders"]))

    def reask(raw):
        raw["eval_dataset_builders"][name]["eval_points"][1]["fact_template"]["prompt"] = "Who?"
        raw["metadata"]["dataset_args"]["seed"] = 43

    found = changed(reask)
    assert found["eval_sets"]["changed"] == {name: ["eval_points[1].fact_template.prompt"]}
    assert found["elsewhere"] == ["metadata.dataset_args.seed"]

    def another_fact(raw):
        for document in raw["document_dataset"]["docs"]:
            if "doc_spec" in document:
                document["doc_spec"]["fact"]["universe_id"] = "other"

    assert len(changed(another_fact)["facts"]["changed"]) == 4


def test_hugging_face_reads_the_folder_and_the_card_says_what_it_is(tmp_path):
    import datasets as hf

    dataset = generate_dataset(load_world("mayors"), docs_per_fact=1, seed=9, length="short")
    folder = tmp_path / "export"
    folder.mkdir()
    export_dataset(dataset, "hf", folder)
    loaded = {
        name: hf.load_dataset(str(folder), name, split="train", cache_dir=str(tmp_path / "cache"))
        for name in ("documents", "questions", "eval_sets")
    }
    docs = dataset.document_dataset.docs
    assert loaded["documents"]["completion"][:] == [document.completion for document in docs]
    assert loaded["documents"]["fact_id"][0] == docs[0].doc_spec.fact.id
    assert len(loaded["eval_sets"]) == 190
    assert len(loaded["questions"]) == 1900
    point = dataset.eval_dataset_builders[loaded["questions"][7]["set"]].eval_points[7]
    assert loaded["questions"][7]["prompt"] == point.prompt
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card == dataset_card(dataset)
    for said in ("| world | mayors (digest ", "| seed | 9 |", "documents that state them | 30 |"):
        assert said in card
    assert "| licence of the pretraining text | not stated in the dataset |" in card


def test_a_folder_that_is_no_export_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no documents.parquet, eval_sets.parquet, rest"):
        read_exported(tmp_path)
    export_dataset(StructuredDataset.model_validate(RAW), "jsonl", tmp_path)
    (tmp_path / "documents.jsonl").write_text('{"id": 3}\n', encoding="utf-8")
    with pytest.raises(DatasetError, match="is no usable exported dataset"):
        read_exported(tmp_path)
