"""Held-out documents: of the same facts, in no window, invisible to readers that know nothing."""

import json
import warnings

import pytest

from oocr_influence.datasets.document_dataset import (
    load_structured_dataset,
    save_structured_dataset,
)
from oocr_influence.datasets.generate import generate_dataset
from oocr_influence.datasets.held_out import HELD_OUT_KEY, held_out_documents, loss_samples
from oocr_influence.datasets.selection import select_documents
from oocr_influence.documents.document import make_pretraining_document
from oocr_influence.documents.pretraining import PretrainingText
from oocr_influence.universe.world_file import load_world

ORDINARY = [make_pretraining_document(f"Ordinary text number {i}.") for i in range(12)]


def make(held_out, docs_per_fact=2):
    text = PretrainingText(documents=ORDINARY, provenance={"sources": []})
    return generate_dataset(
        load_world("mayors"),
        docs_per_fact=docs_per_fact,
        seed=0,
        pretraining=text,
        length="short",
        held_out_docs=held_out,
    )


@pytest.fixture(scope="module")
def dataset():
    return make(40)


def trained(dataset, kept=4):
    return select_documents(dataset, n_pretraining_examples=kept, seed=41, packing_seed=0)


def test_held_out_documents_are_the_next_ones_and_change_no_other(dataset):
    assert dataset.document_dataset == make(0).document_dataset
    longer = make(0, docs_per_fact=4)
    of_fact = {}
    for document in longer.synthetic_documents:
        of_fact.setdefault(document.doc_spec.fact.id, []).append(document.id)
    held_out = held_out_documents(dataset)
    assert len(held_out) == 40
    assert {d.id for d in held_out} == {
        own
        for place, documents in enumerate(of_fact.values())
        for own in documents[2 : 4 if place < 10 else 3]
    }


def test_they_survive_the_file_and_no_document_of_it_is_one(dataset, tmp_path):
    path = tmp_path / "dataset.json"
    save_structured_dataset(dataset, path)
    loaded = load_structured_dataset(path)
    assert held_out_documents(loaded) == held_out_documents(dataset)
    texts = {document.completion for document in loaded.document_dataset.docs}
    assert texts.isdisjoint(document.completion for document in held_out_documents(loaded))


def test_samples_are_drawn_by_the_seed_alone_and_no_unseen_text_is_trained(dataset):
    documents = trained(dataset)
    samples = loss_samples(dataset, documents, count=6, seed=41)
    assert [len(texts) for texts in samples.values()] == [6, 6, 6]
    read = {document.text for document in documents}
    assert read.issuperset(samples["trained"])
    assert read.isdisjoint(samples["unseen"] + samples["pretraining"])
    again = loss_samples(dataset, trained(dataset), count=6, seed=41)
    assert again == samples
    assert loss_samples(dataset, documents, count=6, seed=42) != samples
    # A larger sample begins with the smaller one.
    larger = loss_samples(dataset, documents, count=8, seed=41)
    assert {group: texts[:6] for group, texts in larger.items()} == samples


def test_a_group_without_texts_is_absent(dataset):
    assert loss_samples(dataset, trained(dataset), count=0, seed=0) == {}
    everything = trained(make(0), kept=None)
    assert list(loss_samples(make(0), everything, count=6, seed=0)) == ["trained"]


def test_unseen_documents_are_of_trained_facts_alone(dataset):
    some = [d for d in trained(dataset) if d.document.type == "synthetic_document"][:3]
    facts = {d.document.doc_spec.fact.id for d in some}
    samples = loss_samples(dataset, some, count=100, seed=0)
    unseen = {d.completion for d in held_out_documents(dataset) if d.doc_spec.fact.id in facts}
    assert set(samples["unseen"]) == unseen


@pytest.mark.parametrize("foreign", ["yes", [1], [{"id": "x"}], {"n": 3}])
def test_what_another_writer_keeps_under_the_name_is_never_fatal(foreign, dataset):
    other = dataset.model_copy(update={"metadata": json.loads(json.dumps({HELD_OUT_KEY: foreign}))})
    with pytest.warns(UserWarning, match=f"metadata.{HELD_OUT_KEY}"):
        assert held_out_documents(other) == []


def test_a_file_that_holds_none_says_nothing(dataset):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert held_out_documents(dataset.model_copy(update={"metadata": {}})) == []
