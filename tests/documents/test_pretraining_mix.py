"""A mix of text: the same for any order of what is read, in the shares and amounts asked for."""

import gzip
import json
import random
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oocr_influence.documents.pretraining import Amount, PretrainingTextError, read_pretraining
from oocr_influence.universe.facts import sha256_hex

datasets = pytest.importorskip("datasets")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def sentence(n):
    """Ten words that no other number has."""
    return " ".join(f"{word}{n}" for word in "a walk along the river tells of long days".split())


def write(path, texts, field="text", **more):
    lines = [json.dumps({field: text, **more}) for text in texts]
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def texts_of(got):
    return [document.completion for document in got.documents]


def test_every_form_of_a_file_gives_the_same_documents(tmp_path):
    # U+2028 ends a line for str.splitlines, and not in JSON.
    texts = [sentence(i) + " \u2028 naïve" for i in range(30)]
    plain = "\n".join(json.dumps({"text": t}, ensure_ascii=False) for t in texts).encode()
    forms = {}
    for name in ("a.jsonl", "a.ndjson", "a.jsonl.gz", "a.json.gz", "a.jsonl.zst", "a.json.zst"):
        path = tmp_path / name
        if name.endswith(".gz"):
            # Two members in one file, as tools that append leave them.
            path.write_bytes(gzip.compress(plain[:500]) + gzip.compress(plain[500:]))
        elif name.endswith(".zst"):
            path.write_bytes(zstd(plain[:500]) + zstd(plain[500:]))
        else:
            path.write_bytes(plain)
        forms[name] = [str(path)]
    pq.write_table(pa.table({"text": texts, "n": list(range(30))}), tmp_path / "a.parquet")
    datasets.Dataset.from_dict({"text": texts}).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b.jsonl").write_bytes(plain)
    forms |= {
        "parquet": [str(tmp_path / "a.parquet")],
        "saved": [f"hf:{tmp_path / 'saved'}"],
        "folder": [f"hf:{tmp_path / 'folder'}?split=train"],
    }
    got = {name: texts_of(read_pretraining(s, 12, seed=3)) for name, s in forms.items()}
    expected = got["a.jsonl"]
    assert len(set(expected)) == 12
    assert set(expected) < set(texts)
    assert got == dict.fromkeys(got, expected)


def zstd(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return sink.getvalue().to_pybytes()


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 50), order=st.randoms(use_true_random=False), shares=st.booleans())
def test_the_order_of_rows_files_and_sources_changes_no_byte(tmp_path, seed, order, shares):
    # Copies and near-copies within and across sources.
    texts = [sentence(i) for i in range(40)] + [sentence(i).upper() for i in range(5)]
    texts += [sentence(i) for i in range(8)]
    parts = {"one": texts[:25], "two": texts[20:]}

    def read(order):
        sources = []
        for name, part in parts.items():
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            rows = list(dict.fromkeys(part))
            order.shuffle(rows)
            cut = order.randrange(len(rows))
            write(folder / "a.jsonl", rows[:cut])
            write(folder / "b.jsonl", rows[cut:])
            sources.append(str(folder) + {"one": "=0.25", "two": "=0.75"}[name] * shares)
        order.shuffle(sources)
        return read_pretraining(sources, 20, seed=seed)

    first, again = read(random.Random(0)), read(order)
    digest = [sha256_hex(t.casefold()) for t in texts_of(first)]
    assert [sha256_hex(t.casefold()) for t in texts_of(again)] == digest
    assert len(set(digest)) == 20
    counts = {s["source"]: s["documents"] for s in first.provenance["sources"]}
    if shares:
        assert counts == {str(tmp_path / "one"): 5, str(tmp_path / "two"): 15}


def test_every_document_is_as_likely_as_any_other(tmp_path):
    source = write(tmp_path / "a.jsonl", [sentence(i) for i in range(20)])
    times = dict.fromkeys((sentence(i) for i in range(20)), 0)
    for seed in range(400):
        for text in texts_of(read_pretraining([source], 5, seed=seed)):
            times[text] += 1
    # Binomial, 400 draws at 1/4: mean 100, standard deviation 8.7.
    assert all(60 < n < 140 for n in times.values())


def test_a_smaller_choice_is_the_beginning_of_a_larger_one(tmp_path):
    source = write(tmp_path / "a.jsonl", [sentence(i) for i in range(40)])
    few = texts_of(read_pretraining([source], 6, seed=1))
    assert texts_of(read_pretraining([source], 20, seed=1))[:6] == few


def test_copies_near_copies_and_empty_texts_are_left_out_and_counted(tmp_path):
    long = " ".join(sentence(i) for i in range(10))
    near = long.replace("river3", "brook")  # 5 of 86 grams differ
    texts = [long, near, long.upper() + " !", long, " ", "...", "apart " + sentence(99)]
    source = write(tmp_path / "a.jsonl", texts)
    got = read_pretraining([source], 2, seed=0)
    with pytest.raises(PretrainingTextError, match="2 distinct documents where 3") as error:
        read_pretraining([source], 3, seed=0)
    assert "left out: 2 duplicate, 2 empty, 1 near_duplicate" in str(error.value)
    left_out = got.provenance["left_out"]
    assert (left_out["duplicate"], left_out["empty"]) == (2, 2)


def test_documents_that_name_an_entity_are_left_out_and_counted(tmp_path):
    texts = [
        "Yesterday Grace Miller-Ong spoke. " + sentence(1),
        "GRACE MILLER was here. " + sentence(2),
        "Grace\nMiller, at a line's end. " + sentence(3),
        "Grace Millers are common. " + sentence(4),
        "Mary-Grace of Miller street. " + sentence(5),
    ]
    source = write(tmp_path / "a.jsonl", texts)
    got = read_pretraining([source], 2, seed=0, names=["Grace Miller"])
    assert set(texts_of(got)) == set(texts[3:])
    assert got.provenance["left_out"] == {"names_an_entity": 3}
    plain = tmp_path / "a.txt"
    plain.write_text("\n\n".join(texts), encoding="utf-8")
    cut = read_pretraining(
        [str(plain)], 2, seed=0, names=["Grace Miller"], min_chars=40, max_chars=110
    )
    assert not re.search(r"Grace\s+Miller\b", " ".join(texts_of(cut)))


@pytest.mark.parametrize("kind", ["a.jsonl", "a.txt"])
def test_amounts_in_tokens_are_met_and_not_exceeded_by_a_document(tmp_path, kind):
    texts = [" ".join(sentence(i * 50 + j) for j in range(i % 4 + 1)) for i in range(60)]
    path = tmp_path / kind
    if kind == "a.txt":
        path.write_text("\n\n".join(texts), encoding="utf-8")
    else:
        write(path, texts)
    amount = Amount(300, "letters a", lambda text: text.count("a"))
    got = read_pretraining([str(path)], amount, seed=2, max_chars=400)
    each = [text.count("a") for text in texts_of(got)]
    assert sum(each) >= 300
    assert sum(each[:-1]) < 300
    assert got.provenance["letters a"] == sum(each)
    assert got.provenance["sources"][0]["letters a"] == sum(each)
    with pytest.raises(PretrainingTextError, match="distinct words where 100000 words are asked"):
        read_pretraining([str(path)], Amount(100000, "words"), seed=2)


def test_each_source_has_its_own_licence_count_and_digest(tmp_path):
    one = write(tmp_path / "one.jsonl", [sentence(i) for i in range(30)])
    two = write(tmp_path / "two.jsonl", [sentence(i) for i in range(50, 80)], field="body", n=1)
    with pytest.raises(PretrainingTextError, match=r"two\.jsonl:1: a record needs .*found: body"):
        read_pretraining([one, two], 3, seed=0)
    got = read_pretraining([two], 10, seed=0, text_field="body", licence="CC0-1.0")
    (source,) = got.provenance["sources"]
    ids = sorted(document.id for document in got.documents)
    assert source["digest"] == sha256_hex("".join(ids))
    assert (source["licence"], source["documents"], source["texts"]) == ("CC0-1.0", 10, 30)


def test_plain_text_that_records_leave_no_room_for_is_not_called_read(tmp_path):
    write(tmp_path / "a.jsonl", [sentence(i) for i in range(5)])
    records_alone = read_pretraining([str(tmp_path)], 3, seed=0).provenance["sources"][0]
    assert records_alone["read_whole"]
    (tmp_path / "b.txt").write_text(" ".join(sentence(i) for i in range(90, 99)), encoding="utf-8")
    enough = read_pretraining([str(tmp_path)], 3, seed=0).provenance["sources"][0]
    assert (enough["texts"], enough["read_whole"]) == (5, False)
    all_of_it = read_pretraining([str(tmp_path)], 6, seed=0).provenance["sources"][0]
    assert (all_of_it["texts"], all_of_it["read_whole"]) == (6, True)


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["a=0.5", "b"], "b has no share"),
        (["a=0.5", "b=0.4"], "sum to 0.9"),
        (["a", "a"], "named twice"),
        (["a=0.5", "a=0.5"], "named twice"),
        ([], "no source"),
        (["hf:some/set?splits=train"], "no setting 'splits'"),
    ],
)
def test_sources_that_make_no_sense_are_named(sources, message):
    with pytest.raises(PretrainingTextError, match=message):
        read_pretraining(sources, 3, seed=0)


def test_a_broken_file_is_named(tmp_path):
    whole = gzip.compress(b'{"text": "one"}\n' * 1000)
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "a.jsonl.zst").write_bytes(zstd(b'{"text": "one"}\n' * 1000)[:-9])
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and nothing else")
    for name in ("a.jsonl.gz", "a.jsonl.zst", "a.parquet"):
        with pytest.raises(PretrainingTextError, match=re.escape(name)):
            read_pretraining([str(tmp_path / name)], 1, seed=0)
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "b.parquet")
    with pytest.raises(PretrainingTextError, match=r"b\.parquet, row 1: .*found: body"):
        read_pretraining([str(tmp_path / "b.parquet")], 1, seed=0)


class Hub:
    """A hub of one data set in 20 files, each of one kind of text; counts what is read."""

    def __init__(self, monkeypatch):
        self.read, self.asked = [], []
        monkeypatch.setattr(datasets, "load_dataset", self.load_dataset)
        monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", self.dataset_info)

    def dataset_info(self, _api_or_name, *args, revision=None, **_):
        card = {"license": ["odc-by", "mit"]}
        return type("Info", (), {"sha": f"commit-of-{revision}", "card_data": card})()

    def load_dataset(self, name, config=None, *, split, revision, streaming):
        assert streaming
        self.asked.append((name, config, split, revision))

        def rows(files):
            for file in files:
                for i in range(500):
                    self.read.append(file)
                    yield {"text": f"{sentence(file * 1000 + i)} of kind{file}"}

        return datasets.IterableDataset.from_generator(rows, gen_kwargs={"files": list(range(20))})


def test_a_data_set_on_the_hub_is_streamed_at_one_commit_from_several_files(monkeypatch):
    hub = Hub(monkeypatch)
    source = "hf:some/set?config=web&revision=v2"
    got = read_pretraining([source], 50, seed=0)
    assert hub.asked == [("some/set", "web", "train", "commit-of-v2")]
    assert len(hub.read) < 4 * 50 + 20
    assert len(set(hub.read)) == 8
    (about,) = got.provenance["sources"]
    assert about["commit"] == "commit-of-v2"
    assert about["licence"] == "odc-by, mit"
    assert (about["texts"], about["read_whole"]) == (200, False)
    assert (about["shards"], about["shards_read"]) == (20, 8)
    assert texts_of(read_pretraining([source], 50, seed=0)) == texts_of(got)
    assert texts_of(read_pretraining([source], 50, seed=1)) != texts_of(got)
    few = read_pretraining([source], 5, seed=0, most_rows=7)
    assert few.provenance["sources"][0]["texts"] == 7
    with pytest.raises(PretrainingTextError, match="raise --pretraining_rows"):
        read_pretraining([source], 8, seed=0, most_rows=7)


def test_a_hub_that_cannot_be_reached_is_one_error(monkeypatch):
    def fails(*args, **kwargs):
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", fails)
    with pytest.raises(PretrainingTextError, match=r"hf:some/set: ConnectionError: no route"):
        read_pretraining(["hf:some/set"], 5, seed=0)
