"""Documents as they were trained: their losses and gradients are those of the packed windows."""

import numpy as np
import pytest
import small_run
import torch

from oocr_influence.attribution.passages import batches, window_batch
from oocr_influence.attribution.trained_documents import (
    SYNTHETIC,
    UnknownDocumentsError,
    read_documents,
)
from oocr_influence.datasets.packing import tokenize_documents
from oocr_influence.models.loss import WindowBatch, window_loss
from oocr_influence.models.tiny import tiny_tokenizer

CPU = torch.device("cpu")


def as_batch(windows):
    arrays = (windows.input_ids, windows.labels, windows.position_ids, windows.segments)
    return WindowBatch(*(torch.from_numpy(array) for array in arrays))


def gradient_of(model, loss):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


@pytest.mark.parametrize("packing", ["masked", "separate", "concat"])
def test_losses_and_gradients_sum_to_those_of_training(tmp_path, packing):
    run, windows = small_run.write_run(tmp_path, small_run.documents(copies=2), packing=packing)
    documents = read_documents(run)
    model = small_run.small_model()
    trained, reported = window_loss(model, as_batch(windows))
    losses = [window_loss(model, window_batch([p], CPU))[0] for p in documents.passages]
    assert float(sum(losses).detach()) == pytest.approx(float(reported), rel=1e-5)
    torch.testing.assert_close(
        gradient_of(model, sum(losses)), gradient_of(model, trained), rtol=1e-3, atol=1e-4
    )
    labels = windows.labels_per_document(len(documents.rows)).tolist()
    counted = [0] * len(labels)
    for passage in documents.passages:
        counted[passage.owner] += len(passage.counted)
    assert sorted(counted) == sorted(labels)


def test_a_masked_document_sees_nothing_of_others(tmp_path):
    run, _ = small_run.write_run(tmp_path, small_run.documents())
    found = read_documents(run)
    tokens = tokenize_documents(found.texts, tiny_tokenizer(), "masked")
    for owner, own in enumerate(tokens):
        pieces = [p for p in found.passages if p.owner == owner]
        joined = [pieces[0].tokens, *(p.tokens[1:] for p in pieces[1:])]
        assert np.concatenate(joined).tolist() == own.tolist()
        assert [p.begins for p in pieces] == sorted(p.begins for p in pieces)
    assert max(len([p for p in found.passages if p.owner == o]) for o in range(len(tokens))) > 2


def test_rows_say_which_document_how_often_and_what_it_states(tmp_path):
    run, _ = small_run.write_run(tmp_path, small_run.documents(copies=3), times=5)
    found = read_documents(run)
    keys = {(row["id"], row["occurrence"]) for row in found.rows}
    assert {("Lagos0", 0), ("Lagos0", 1), ("Lagos0", 2), ("plain", 0)} <= keys
    assert len(keys) == len(found.rows) == len(found.texts) == 9
    assert {row["times"] for row in found.rows} == {5.0}
    by_key = {(row["id"], row["occurrence"]): row for row in found.rows}
    assert by_key["Lagos0", 2]["fact_id"] == by_key["Lagos1", 0]["fact_id"]
    assert by_key["Lagos0", 2]["entity"] == "Lagos"
    assert by_key["plain", 0]["fact_id"] is None
    assert {fact.completion for fact in found.facts} == {" Ruby Lane", " Ivo Sand", " Ada Novik"}


def test_synthetic_documents_alone_keep_their_passages(tmp_path):
    run, _ = small_run.write_run(tmp_path, small_run.documents())
    every = read_documents(run)
    chosen = every.only(SYNTHETIC)
    assert [row["id"] for row in chosen.rows] == [
        row["id"] for row in every.rows if row["id"] != "plain"
    ]
    for place, row in enumerate(chosen.rows):
        before = next(i for i, other in enumerate(every.rows) if other is row)
        own = [p.tokens.tolist() for p in chosen.passages if p.owner == place]
        assert own == [p.tokens.tolist() for p in every.passages if p.owner == before]


def test_batches_hold_each_passage_once_within_the_budget(tmp_path):
    run, _ = small_run.write_run(tmp_path, small_run.documents())
    passages = read_documents(run).passages
    seen = []
    for places, batch in batches(passages, CPU, token_budget=70):
        assert len(places) == 1 or batch.input_ids_BT.numel() <= 70
        seen += places
    assert sorted(seen) == list(range(len(passages)))


def test_a_run_that_does_not_say_what_it_trained_is_refused(tmp_path):
    run, _ = small_run.write_run(tmp_path, small_run.documents())
    run.exposure.unlink()
    with pytest.raises(UnknownDocumentsError, match=r"exposure\.parquet"):
        read_documents(run)
    with pytest.raises(UnknownDocumentsError, match="train_set"):
        read_documents(type(run)(tmp_path / "none"))
