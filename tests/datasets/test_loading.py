"""Loading equals the plain way, `json.load` and pydantic, on whatever a file may hold."""

import gc
import json
import warnings
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oocr_influence.datasets.document_dataset import (
    DatasetError,
    StructuredDataset,
    load_structured_dataset,
    save_structured_dataset,
)

# JSON that Python reads cannot hold lone surrogates in UTF-8.
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
numbers = st.integers(-(10**40), 10**40) | st.floats()
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
# Keys that no class of ours knows.
extras = st.dictionaries(texts.map(lambda key: f"x_{key}"), values, max_size=2)
# No braces: a question's holes are another test's.
words = texts.map(lambda text: text.replace("{", "").replace("}", ""))


def record(**fields):
    return st.builds(lambda known, more: {**known, **more}, st.fixed_dictionaries(fields), extras)


features = record(id=texts, fields=st.dictionaries(words, texts, max_size=3))
template = record(
    id=texts,
    relation=texts,
    prompt=words.map("Who?".__add__),
    completion=words.map(" it is".__add__),
    metadata=st.dictionaries(texts, values, max_size=2),
)
fact = record(
    id=texts,
    template=template,
    feature_set=features,
    universe_id=texts,
    prompt=texts,
    completion=texts,
)
spec = record(id=texts, fact=fact, doc_type=texts, doc_idea=texts, reversal_curse=st.booleans())
synthetic = record(
    id=texts, type=st.just("synthetic_document"), prompt=texts, completion=texts, doc_spec=spec
)
pretraining = record(id=texts, type=st.just("pretraining_document"), prompt=texts, completion=texts)
point = record(features=features, fact_template=template)
metric = record(function_name=st.sampled_from(["ranks", "accuracy_and_loss", "beam_search", "own"]))
builder = record(eval_points=st.lists(point, max_size=2), metrics=st.lists(metric, max_size=2))
datasets = record(
    document_dataset=record(docs=st.lists(synthetic | pretraining, max_size=3)),
    eval_dataset_builders=st.dictionaries(texts, builder, max_size=2),
    metadata=st.dictionaries(texts, values, max_size=3),
)


def same(a, b):
    """Equal with NaN equal to itself, 1 apart from 1.0 and -0.0 from 0.0."""
    return type(a) is type(b) and repr(a) == repr(b)


def load(path):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*more than once")
        return load_structured_dataset(path)


@settings(max_examples=150, deadline=None)
@given(raw=datasets, ascii_only=st.booleans())
def test_any_dataset_loads_as_the_plain_way_loads_it_and_is_saved_as_it_was(
    raw, ascii_only, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("any")
    (folder / "a.json").write_text(json.dumps(raw, ensure_ascii=ascii_only), encoding="utf-8")
    plain = StructuredDataset.model_validate(json.loads((folder / "a.json").read_text("utf-8")))
    loaded = load(folder / "a.json")
    assert same(loaded.model_dump(), plain.model_dump())
    save_structured_dataset(loaded, folder / "b.json")
    again = json.loads((folder / "b.json").read_text("utf-8"))
    assert same(sorted_keys(again), sorted_keys(raw))
    # Where keys are free, their order is kept too.
    for free in ("metadata", "eval_dataset_builders"):
        assert list(again[free]) == list(raw[free])
    ids = [document["id"] for document in raw["document_dataset"]["docs"]]
    assert [document.id for document in loaded.document_dataset.docs] == ids


def sorted_keys(value):
    if isinstance(value, dict):
        return {key: sorted_keys(value[key]) for key in sorted(value)}
    return [sorted_keys(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "number", ["NaN", "-Infinity", "5e-324", "-0.0", "1.0", "1e22", "9" * 60, "0.1", "1e400"]
)
def test_numbers_in_metadata_survive(tmp_path, number):
    path = tmp_path / "a.json"
    path.write_text(
        '{"document_dataset": {"docs": []}, "eval_dataset_builders": {}, '
        f'"metadata": {{"n": {number}}}}}',
        encoding="utf-8",
    )
    save_structured_dataset(load(path), tmp_path / "b.json")
    assert same(*(json.loads(p.read_text())["metadata"]["n"] for p in (path, tmp_path / "b.json")))


def test_of_a_repeated_key_the_last_counts_as_everywhere(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(
        '{"document_dataset": {"docs": []}, "eval_dataset_builders": {}, '
        '"metadata": {"a": 1, "b": 2, "a": 3}}'
    )
    assert load(path).metadata == json.loads(path.read_text())["metadata"] == {"a": 3, "b": 2}


@pytest.mark.parametrize("was_on", [True, False])
def test_loading_leaves_garbage_collection_as_it_was(tmp_path, was_on):
    path = tmp_path / "a.json"
    path.write_text('{"document_dataset": ')
    before = gc.isenabled()
    (gc.enable if was_on else gc.disable)()
    try:
        with pytest.raises(DatasetError):
            load(path)
        assert gc.isenabled() is was_on
    finally:
        (gc.enable if before else gc.disable)()


def test_records_are_not_searched_for_cycles_and_what_was_set_apart_stays_so(tmp_path):
    docs = [
        {"id": str(i), "type": "pretraining_document", "prompt": "", "completion": "A text."}
        for i in range(5000)
    ]
    path = tmp_path / "a.json"
    raw = {"document_dataset": {"docs": docs}, "eval_dataset_builders": {}}
    path.write_text(json.dumps(raw), encoding="utf-8")
    loaded = load(path)
    # An object that a search has gone over is of generation 1, one that it passed by of 2.
    old = {id(thing) for thing in gc.get_objects(generation=2)}
    assert {id(document) for document in loaded.document_dataset.docs} <= old
    gc.freeze()
    try:
        apart = gc.get_freeze_count()
        load(path)
        assert gc.get_freeze_count() == apart > 5000
    finally:
        gc.unfreeze()


def test_a_cycle_from_before_is_still_found_after_loading(tmp_path):
    class Node:
        pass

    path = tmp_path / "a.json"
    path.write_text('{"document_dataset": {"docs": []}, "eval_dataset_builders": {}}')
    node = Node()
    node.itself = node
    gone = weakref.ref(node)
    del node
    load(path)
    gc.collect()
    assert gone() is None
