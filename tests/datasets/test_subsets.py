"""Subsets of documents: designs hold what they promise, and files refer without repeating."""

import hashlib
import json
import random
from collections import Counter
from pathlib import Path

import pytest

from oocr_influence.datasets import references
from oocr_influence.datasets.document_dataset import (
    load_structured_dataset,
    save_structured_dataset,
    subset_id,
)
from oocr_influence.datasets.filtering import filter_documents
from oocr_influence.datasets.generate import generate_dataset
from oocr_influence.datasets.selection import select_documents
from oocr_influence.datasets.subsets import (
    Design,
    draw_subsets,
    facts_of,
    never_drawn,
    reference_to,
    subset_metadata,
)
from oocr_influence.universe.world_file import load_world


@pytest.fixture(scope="module")
def dataset():
    return generate_dataset(load_world("mayors"), seed=0, docs_per_fact=6)


def facts_in(dataset, subset):
    docs = dataset.document_dataset.docs
    return Counter(docs[place].doc_spec.fact.id for place in subset.places)


def test_random_subsets_have_their_size_and_differ_by_seed_split_and_place(dataset):
    design = Design(docs_per_run=50)
    train = draw_subsets(dataset, design, split="train", n=20, seed=41)
    assert all(len(set(s.places)) == 50 and list(s.places) == sorted(s.places) for s in train)
    test = draw_subsets(dataset, design, split="test", n=20, seed=41)
    other = draw_subsets(dataset, design, split="train", n=20, seed=42)
    assert len({s.places for s in train + test + other}) == 60
    assert draw_subsets(dataset, design, split="train", n=30, seed=41)[:20] == train
    # Every document as likely as any: 20 × 50 of 180, none far from its expectation.
    counts = Counter(p for s in train + test + other for p in s.places)
    assert len(counts) == 180
    assert all(4 <= n <= 32 for n in counts.values())  # 16.7 ± 3.5, within 4 deviations


def test_groups_are_of_one_fact_and_the_same_everywhere(dataset):
    design = Design(docs_per_run=40, k=4)
    groups = set()
    for split in ("train", "test"):
        for subset in draw_subsets(dataset, design, split=split, n=10, seed=1):
            assert len(subset.places) == 40
            assert all(n == 4 for n in facts_in(dataset, subset).values())
            by_fact = {}
            for place in subset.places:
                fact = dataset.document_dataset.docs[place].doc_spec.fact.id
                by_fact.setdefault(fact, []).append(place)
            groups |= {tuple(places) for places in by_fact.values()}
    assert len(groups) == 30  # one whole group of 4 among the 6 documents of each fact
    assert never_drawn(dataset, design) == 60


def test_stratified_subsets_have_as_many_of_each_fact(dataset):
    for subset in draw_subsets(
        dataset, Design("stratified", docs_per_run=60), split="train", n=5, seed=0
    ):
        assert set(facts_in(dataset, subset).values()) == {2}
        assert len(facts_in(dataset, subset)) == 30


def test_complements_are_halves_of_the_whole(dataset):
    subsets = draw_subsets(dataset, Design("complement"), split="test", n=6, seed=0)
    for one, other in zip(subsets[::2], subsets[1::2], strict=True):
        assert len(one.places) == 90
        assert sorted(one.places + other.places) == list(range(180))
    assert len({s.places for s in subsets}) == 6


def test_one_fact_is_left_out_each_time(dataset):
    subsets = draw_subsets(dataset, Design("leave_one_fact_out"), split="train", n=30, seed=0)
    facts = facts_of(dataset)
    assert [s.left_out for s in subsets] == list(facts)
    for subset in subsets:
        assert sorted([*subset.places, *facts[subset.left_out]]) == list(range(180))


def test_active_facts_are_named_by_id_or_by_relation(dataset):
    relation = Design(docs_per_run=10, active_facts=["spouse"])
    (subset,) = draw_subsets(dataset, relation, split="train", n=1, seed=0)
    docs = dataset.document_dataset.docs
    assert {docs[p].doc_spec.fact.template.relation for p in subset.places} == {"spouse"}
    fact = next(iter(facts_of(dataset)))
    one = Design(docs_per_run=6, active_facts=[fact])
    (subset,) = draw_subsets(dataset, one, split="train", n=1, seed=0)
    assert set(facts_in(dataset, subset)) == {fact}


def test_the_earlier_way_draws_both_splits_from_one_stream(dataset):
    design = Design(docs_per_run=30)

    def both(n_train):
        generator = random.Random(41)
        return [
            draw_subsets(dataset, design, split=split, n=n, seed=41, generator=generator)
            for split, n in (("train", n_train), ("test", 2))
        ]

    assert both(3) == both(3)
    assert both(3)[1] != both(4)[1]  # another number of the first changes the second


@pytest.mark.parametrize(
    ("design", "n", "said"),
    [
        (Design(docs_per_run=181), 1, "only 180 documents can be drawn"),
        (Design(docs_per_run=50, k=4), 1, "no multiple of --sampling_k 4"),
        (Design(docs_per_run=180, k=4), 1, "only 120 documents can be drawn in groups of 4"),
        (Design("stratified", docs_per_run=50), 1, "a multiple of 30"),
        (Design("stratified", docs_per_run=210), 1, "has only 6 documents to draw"),
        (Design("complement"), 3, "an even number, not 3"),
        (Design("leave_one_fact_out"), 20, "one subset a fact, 30"),
        (Design(active_facts=["nobody"]), 1, "relation 'nobody' .relations: conference"),
    ],
)
def test_what_a_dataset_cannot_give_is_refused(dataset, design, n, said):
    with pytest.raises(ValueError, match=said):
        draw_subsets(dataset, design, split="train", n=n, seed=0)


@pytest.fixture
def written(dataset, tmp_path):
    whole = tmp_path / "structured_dataset_all.json"
    save_structured_dataset(dataset, whole)
    design = Design(docs_per_run=20)
    (subset,) = draw_subsets(dataset, design, split="train", n=1, seed=0)
    file = tmp_path / "subsampled_datasets_train" / "0_dataset_builder.json"
    file.parent.mkdir()
    digest = hashlib.sha256(whole.read_bytes()).hexdigest()
    raw = reference_to(dataset, subset, dataset_file=f"../{whole.name}", digest=digest)
    file.write_text(json.dumps(raw))
    return whole, subset, file, raw


def test_a_reference_is_read_as_the_subset_with_all_questions(dataset, written):
    whole, subset, file, _ = written
    read = load_structured_dataset(file)
    docs = dataset.document_dataset.docs
    expected = [docs[place] for place in subset.places]
    assert read.document_dataset.docs == expected
    assert read.eval_dataset_builders == dataset.eval_dataset_builders
    about = subset_metadata(dataset, subset, Design(docs_per_run=20), index=0, n_runs=3)
    assert about["dataset_id"] == subset_id([d.id for d in expected])
    assert about["docs_included"] == [d.id for d in expected]
    assert (about["docs_per_run"], about["k"], about["n_runs"]) == (20, 1, 3)
    assert file.stat().st_size < 0.05 * whole.stat().st_size


def test_the_pretraining_documents_belong_to_every_subset_and_copies_are_told_apart(tmp_path):
    sample = Path(__file__).parents[1] / "samples" / "earlier_structured_dataset.json"
    with pytest.warns(UserWarning, match="more than once"):
        dataset = load_structured_dataset(sample)
    (doc_id,) = dataset.repeated_ids()
    raw = {
        "subset_of": str(sample),
        "sha256": hashlib.sha256(sample.read_bytes()).hexdigest(),
        "synthetic_documents": [[doc_id, 1]],
    }
    file = tmp_path / "0.json"
    file.write_text(json.dumps(raw))
    references._last = None
    with pytest.warns(UserWarning, match="more than once"):
        read = load_structured_dataset(file)
    assert [d.id for d in read.synthetic_documents] == [doc_id]
    assert read.pretraining_documents == dataset.pretraining_documents
    # The second copy is trained, and its account says so.
    trained = select_documents(read, n_pretraining_examples=0, seed=0, packing_seed=0)
    assert [document.key for document in trained] == [(doc_id, 1)]
    smaller = filter_documents(read, drop_ids={read.pretraining_documents[0].id})
    assert len(smaller.document_dataset.keys()) == len(read.document_dataset.docs) - 1


def test_many_subsets_read_their_dataset_once_and_again_when_it_changes(written):
    whole, _, file, _ = written
    references._last = None
    load_structured_dataset(file)
    kept = references._last[1]
    load_structured_dataset(file)
    assert references._last[1] is kept
    whole.write_text(whole.read_text() + "\n")
    with pytest.raises(ValueError, match="which has changed since"):
        load_structured_dataset(file)
    whole.unlink()
    with pytest.raises(FileNotFoundError, match="which is not there"):
        load_structured_dataset(file)


def test_a_reference_that_is_none_says_so(written):
    _, _, file, raw = written
    file.write_text(json.dumps({**raw, "synthetic_documents": [["nobody", 0]]}))
    with pytest.raises(ValueError, match=r"has no document nobody \(occurrence 0\)"):
        load_structured_dataset(file)
    file.write_text(json.dumps({"subset_of": raw["subset_of"]}))
    with pytest.raises(ValueError, match="needs 'sha256'"):
        load_structured_dataset(file)
