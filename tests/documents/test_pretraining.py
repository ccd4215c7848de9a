"""Pretraining text: from files, JSONL and the standard library; never padded, never repeated."""

import json

import pytest

from oocr_influence.documents.passages import cut_passages
from oocr_influence.documents.pretraining import (
    PretrainingTextError,
    read_pretraining,
)
from oocr_influence.documents.python_documentation import standard_library_passages
from oocr_influence.universe.facts import sha256_hex

SENTENCES = [f"Sentence number {i} tells of a walk along river {i}." for i in range(40)]


@pytest.fixture
def text_file(tmp_path):
    paragraphs = [" ".join(SENTENCES[i : i + 4]) for i in range(0, 40, 4)]
    path = tmp_path / "walks.txt"
    path.write_text("\n\n".join(paragraphs), encoding="utf-8")
    return path


def write_jsonl(path, records):
    path.write_text("\n".join(json.dumps(r) for r in records), encoding="utf-8")
    return path


def test_plain_text_is_cut_between_paragraphs_and_every_piece_is_used_once(text_file):
    got = read_pretraining([str(text_file)], 5, seed=1, licence="CC0-1.0", max_chars=450)
    texts = [d.completion for d in got.documents]
    assert len(set(texts)) == 5
    together = "\n".join(texts)
    assert all(together.count(sentence) <= 1 for sentence in SENTENCES)
    assert all(80 <= len(text) <= 450 for text in texts)
    for document in got.documents:
        assert document.id == sha256_hex(document.completion)
        assert document.prompt == ""
    (source,) = got.provenance["sources"]
    ids = "".join(sorted(document.id for document in got.documents))
    assert source == {
        "source": str(text_file),
        "licence": "CC0-1.0",
        "files": 1,
        "texts": 1,
        "read_whole": True,
        "documents": 5,
        "characters": sum(map(len, texts)),
        "left_out": {},
        "digest": sha256_hex(ids),
    }


def test_pieces_are_shorter_where_text_is_short(text_file):
    few = read_pretraining([str(text_file)], 1, seed=1)
    many = read_pretraining([str(text_file)], 18, seed=1)
    assert len(many.documents) == 18
    assert many.provenance["aim_chars"] < few.provenance["aim_chars"] <= 5000


def test_too_little_text_is_an_error_that_says_how_much_there_is(text_file):
    with pytest.raises(PretrainingTextError, match=r"400 documents .* at most (\d+)") as error:
        read_pretraining([str(text_file)], 400, seed=1)
    most = int(str(error.value).split("at most ")[1].split(",")[0])
    assert len(read_pretraining([str(text_file)], most, seed=1).documents) == most


def test_a_seed_chooses_and_the_same_seed_chooses_alike(text_file):
    def ids(seed):
        return [
            d.id for d in read_pretraining([str(text_file)], 6, seed=seed, max_chars=220).documents
        ]

    assert ids(1) == ids(1)
    assert ids(1) != ids(2)


def test_long_sentences_are_cut_between_words():
    words = " ".join(f"word{i}" for i in range(100))
    pieces = cut_passages([[words]], 5, 50)
    assert all(5 <= len(piece) <= 50 for piece in pieces)
    assert " ".join(pieces) == words


def test_repeated_paragraphs_are_used_once():
    assert cut_passages([["One two three four."], ["One two three four."]], 5, 100) == [
        "One two three four."
    ]


def test_jsonl_records_are_documents_as_they_are(tmp_path):
    records = [{"text": "A first text."}, {"prompt": "Once", "completion": " upon a time."}]
    path = write_jsonl(tmp_path / "a.jsonl", [*records, records[0]])
    got = read_pretraining([str(path)], 2, seed=0)
    assert {(d.prompt, d.completion) for d in got.documents} == {
        ("", "A first text."),
        ("Once", " upon a time."),
    }
    assert {d.id for d in got.documents} == {
        sha256_hex("A first text."),
        sha256_hex("Once upon a time."),
    }
    assert got.provenance["sources"][0]["licence"] == "not stated"
    with pytest.raises(PretrainingTextError, match="2 distinct documents where 3"):
        read_pretraining([str(path)], 3, seed=0)


def test_folders_and_files_mix(tmp_path, text_file):
    path = write_jsonl(tmp_path / "b.jsonl", [{"text": "A short note."}])
    got = read_pretraining([str(tmp_path)], 4, seed=0, max_chars=450)
    assert "A short note." in [d.completion for d in got.documents]
    assert path.parent == text_file.parent


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "ok"}\n{"text": ', r"bad\.jsonl:2: not JSON"),
        ('{"body": "x"}', r"bad\.jsonl:1: a record needs 'text'"),
        ('["x"]', r"bad\.jsonl:1: a record needs 'text'"),
        ('{"text": "  "}', r"0 distinct documents where 1 .* \(left out: 1 empty\)"),
    ],
)
def test_a_bad_record_is_named_with_its_line(tmp_path, content, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(PretrainingTextError, match=message):
        read_pretraining([str(path)], 1, seed=0)


def test_a_source_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PretrainingTextError, match="no pretraining text at 'nowhere'"):
        read_pretraining(["nowhere"], 1, seed=0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PretrainingTextError, match="files under"):
        read_pretraining([str(tmp_path / "empty")], 1, seed=0)


def test_no_documents_need_no_source():
    assert read_pretraining(["nowhere"], 0, seed=0).documents == []


def test_hugging_face_datasets_are_read_from_a_folder(tmp_path):
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "set"
    datasets.Dataset.from_list([{"text": f"Text {i}."} for i in range(6)]).save_to_disk(str(folder))
    got = read_pretraining([f"hf:{folder}"], 4, seed=0)
    assert {d.completion for d in got.documents} <= {f"Text {i}." for i in range(6)}
    assert len({d.id for d in got.documents}) == 4


def test_the_standard_library_gives_prose_under_its_licence():
    passages = standard_library_passages()
    paragraphs = [p for _, passage in zip(range(300), passages, strict=False) for p in passage]
    assert len(paragraphs) > 300
    assert len(set(paragraphs)) > 0.9 * len(paragraphs)
    for paragraph in paragraphs:
        assert ">>>" not in paragraph
        assert "\n" not in paragraph
        assert len(paragraph.split()) >= 6


def test_reading_stops_where_there_is_enough_and_only_what_was_read_is_recorded():
    got = read_pretraining(["stdlib", "package:numpy"], 5, seed=0, max_chars=400)
    (source,) = got.provenance["sources"]
    assert source["source"].startswith("documentation in the standard library of Python 3.")
    assert source["licence"].startswith("PSF-2.0")
    assert source["texts"] < 100


def test_an_installed_package_gives_its_documentation_under_its_own_licence():
    got = read_pretraining(["package:yaml"], 5, seed=0, max_chars=400)
    (source,) = got.provenance["sources"]
    assert source["source"].startswith("documentation in the package yaml 6.")
    assert source["licence"] == "MIT"
    assert len({document.completion for document in got.documents}) == 5
    with pytest.raises(PretrainingTextError, match="no package 'no_such' is installed"):
        read_pretraining(["package:no_such"], 1, seed=0)
