"""Scores of documents as a table: what is written is read, and what is no score is refused."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from oocr_influence.results.attributions import Attributions


def made(**scores):
    documents = [{"id": f"d{d}", "occurrence": 0, "fact_id": None} for d in range(3)]
    queries = [{"set": "s", "index": q, "fact_ids": []} for q in range(2)]
    arrays = {name: np.asarray(s, np.float32) for name, s in scores.items()}
    methods = {name: {"settings": {"k1": 1.2}, "unit": "none", "seconds": 0.5} for name in arrays}
    return Attributions(documents, queries, methods, arrays, {"model": "tiny", "step": 3})


def test_what_is_written_is_read(tmp_path):
    table = made(bm25=[[1, 2, 3], [4, 5, 6]], exposure=[[0, -1, 0.1], [1e-20, 1e20, 7]])
    table.save(tmp_path / "to")
    read = Attributions.load(tmp_path / "to")
    assert list(read.scores) == ["bm25", "exposure"]
    for name, scores in table.scores.items():
        np.testing.assert_array_equal(read.scores[name], scores)
    assert (read.documents, read.queries) == (table.documents, table.queries)
    assert read.methods == table.methods
    assert read.about == {"model": "tiny", "step": 3}


def test_a_row_is_a_query_a_document_and_a_method(tmp_path):
    made(bm25=[[1, 2, 3], [4, 5, 6]]).save(tmp_path / "to")
    rows = pq.read_table(tmp_path / "to" / "scores.parquet").to_pylist()
    assert {"query": 1, "document": 0, "method": "bm25", "score": 4.0} in rows
    assert len(rows) == 6
    record = json.loads((tmp_path / "to" / "about.json").read_text())
    assert record["documents"][2]["id"] == "d2"
    assert record["methods"]["bm25"]["settings"] == {"k1": 1.2}


def test_what_is_there_is_not_replaced(tmp_path):
    made(a=np.zeros((2, 3))).save(tmp_path / "to")
    with pytest.raises(FileExistsError):
        made(a=np.zeros((2, 3))).save(tmp_path / "to")


@pytest.mark.parametrize(
    ("scores", "fault"),
    [([[1, 2, 3]], "not"), ([[1, 2, 3], [4, np.nan, 6]], "document d1 a score that is not finite")],
)
def test_what_is_no_score_is_refused(scores, fault):
    with pytest.raises(ValueError, match=fault):
        made(bm25=scores)


def test_faults_of_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"about\.json"):
        Attributions.load(tmp_path)
    made(bm25=[[1, 2, 3], [4, 5, 6]]).save(tmp_path / "to")
    path = tmp_path / "to" / "scores.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(ValueError, match="5 scores of bm25, not 2 queries × 3"):
        Attributions.load(tmp_path / "to")
    about = tmp_path / "to" / "about.json"
    about.write_text(about.read_text().replace('"version": 1', '"version": 9'))
    with pytest.raises(ValueError, match="version"):
        Attributions.load(tmp_path / "to")
