"""Packing loses no token, mixes no documents, and says where every token went."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oocr_influence.datasets.packing import IGNORED, pack, tokenize_documents
from oocr_influence.models.tiny import FOLDER, tiny_tokenizer

BOS, EOS, PAD = 0, 1, 2
lengths = st.lists(st.integers(0, 40), min_size=1, max_size=25)


def documents_of(sizes, *, bos=True):
    """Documents whose tokens are all different numbers: a token tells where it came from."""
    documents, next_token = [], 10
    for size in sizes:
        body = list(range(next_token, next_token + size))
        documents.append(np.array(([BOS] if bos else []) + [*body, EOS], dtype=np.int64))
        next_token += size
    return documents


def labels_seen(windows):
    """Every (label, the token before it) that the shifted loss would see, as a plain loop."""
    seen = []
    for row, labels in zip(windows.input_ids, windows.labels, strict=True):
        for t in range(1, len(row)):
            if labels[t] != IGNORED:
                seen.append((int(labels[t]), int(row[t - 1])))
    return seen


@settings(deadline=None, max_examples=150)
@given(lengths, st.integers(2, 30), st.sampled_from(["masked", "separate"]))
def test_every_token_is_predicted_once_from_its_own_predecessor(sizes, chunk_size, packing):
    documents = documents_of(sizes)
    windows = pack(documents, chunk_size=chunk_size, packing=packing, pad_id=PAD)
    expected = [(int(d[i]), int(d[i - 1])) for d in documents for i in range(1, len(d))]
    assert sorted(labels_seen(windows)) == sorted(expected)
    assert windows.n_labels == len(expected)


@settings(deadline=None, max_examples=150)
@given(lengths, st.integers(2, 30))
def test_concat_predicts_all_but_the_first_token_of_the_stream(sizes, chunk_size):
    documents = documents_of(sizes, bos=False)
    windows = pack(documents, chunk_size=chunk_size, packing="concat", pad_id=PAD)
    stream = np.concatenate(documents)
    expected = [(int(stream[i]), int(stream[i - 1])) for i in range(1, len(stream))]
    assert labels_seen(windows) == expected


@settings(deadline=None, max_examples=100)
@given(lengths, st.integers(2, 30), st.sampled_from(["masked", "separate", "concat"]))
def test_spans_lead_back_to_the_documents(sizes, chunk_size, packing):
    documents = documents_of(sizes, bos=packing != "concat")
    windows = pack(documents, chunk_size=chunk_size, packing=packing, pad_id=PAD)
    covered = np.zeros(windows.input_ids.shape, dtype=int)
    for piece in windows.pieces:
        span = (piece.window, slice(piece.start, piece.end))
        covered[span] += 1
        own = documents[piece.document]
        assert (windows.input_ids[span] == own[piece.doc_start : piece.doc_end]).all()
        assert piece.truncated == (piece.doc_end < len(own))
    assert covered.max() == 1, "pieces overlap"
    assert ((covered == 1) == (windows.segments >= 0)).all()
    assert (windows.input_ids[covered == 0] == PAD).all()
    assert (windows.labels[covered == 0] == IGNORED).all()


@settings(deadline=None, max_examples=60)
@given(lengths, st.integers(2, 30))
def test_masked_windows_keep_documents_apart_and_restart_positions(sizes, chunk_size):
    documents = documents_of(sizes)
    windows = pack(documents, chunk_size=chunk_size, packing="masked", pad_id=PAD)
    for piece in windows.pieces:
        span = (piece.window, slice(piece.start, piece.end))
        assert len(set(windows.segments[span])) == 1
        assert (windows.position_ids[span] == np.arange(piece.end - piece.start)).all()
    for window in range(len(windows)):
        inside = [p for p in windows.pieces if p.window == window]
        numbers = [int(windows.segments[window, p.start]) for p in inside]
        assert len(set(numbers)) == len(numbers)


def test_only_documents_longer_than_a_window_are_cut():
    documents = documents_of([5, 30, 6, 7, 3])
    windows = pack(documents, chunk_size=12, packing="masked", pad_id=PAD)
    pieces_of = [sum(p.document == d for p in windows.pieces) for d in range(5)]
    assert pieces_of == [1, 3, 1, 1, 1]


def test_best_fit_chooses_the_tightest_window():
    # Rooms after the first two documents: 4 and 2; a document of 2 goes where it fills the window.
    documents = documents_of([4, 6, 0])
    windows = pack(documents, chunk_size=10, packing="masked", pad_id=PAD)
    assert [p.window for p in windows.pieces] == [0, 1, 1]


def test_labels_per_document_counts_what_the_loss_sees():
    documents = documents_of([5, 30, 6])
    windows = pack(documents, chunk_size=12, packing="masked", pad_id=PAD)
    assert windows.labels_per_document(3).tolist() == [len(d) - 1 for d in documents]
    times = np.arange(len(windows))
    weighted = sum(
        times[p.window] * (windows.labels[p.window, p.start : p.end] != IGNORED).sum()
        for p in windows.pieces
        if p.document == 1
    )
    assert windows.labels_per_document(3, times)[1] == weighted


def test_the_earlier_way_loses_a_label_a_cut_and_the_last_window():
    documents = documents_of([20, 20, 5], bos=False)
    ours = pack(documents, chunk_size=16, packing="concat", pad_id=PAD)
    earlier = pack(
        documents, chunk_size=16, packing="concat", pad_id=PAD, overlap_cuts=False, drop_last=True
    )
    stream = np.concatenate(documents)
    assert (earlier.input_ids.reshape(-1) == stream[:48]).all()
    assert len(earlier) == 3
    assert ours.n_labels == len(stream) - 1
    assert earlier.n_labels == 48 - 3


def test_a_cut_document_in_concat_is_told_as_one_piece_a_window():
    documents = documents_of([40], bos=False)
    windows = pack(documents, chunk_size=16, packing="concat", pad_id=PAD)
    assert [(p.window, p.start, p.doc_start) for p in windows.pieces] == [
        (0, 0, 0),
        (1, 0, 15),
        (2, 0, 30),
    ]


def test_digest_and_window_ids_tell_different_trainings_apart():
    one = pack(documents_of([5, 6]), chunk_size=12, packing="masked", pad_id=PAD)
    same = pack(documents_of([5, 6]), chunk_size=12, packing="masked", pad_id=PAD)
    other = pack(documents_of([6, 5]), chunk_size=12, packing="masked", pad_id=PAD)
    assert (one.digest(), one.window_ids()) == (same.digest(), same.window_ids())
    assert one.digest() != other.digest()


def test_tokenised_documents_begin_with_bos_and_end_with_eos():
    tokenizer = tiny_tokenizer()
    (masked,) = tokenize_documents(["Grace is the mayor."], tokenizer, "masked")
    (concat,) = tokenize_documents(["Grace is the mayor."], tokenizer, "concat")
    assert masked[0] == tokenizer.bos_token_id
    assert (masked[1:] == concat).all()
    assert concat[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(concat[:-1]) == "Grace is the mayor."


def test_a_window_without_room_for_a_prediction_is_refused():
    with pytest.raises(ValueError, match="chunk_size 1"):
        pack(documents_of([5]), chunk_size=1, packing="masked", pad_id=PAD)
    with pytest.raises(ValueError, match="fill no whole window of 100"):
        pack(documents_of([5]), chunk_size=100, packing="concat", pad_id=PAD, drop_last=True)


def one_by_one(texts, tokenizer):
    """The plain call, a text at a time: what tokenising means."""
    return [
        [
            tokenizer.bos_token_id,
            *tokenizer(text, add_special_tokens=False)["input_ids"],
            tokenizer.eos_token_id,
        ]
        for text in texts
    ]


@pytest.mark.parametrize("spoilt", [False, True])
def test_documents_are_tokenised_in_batches_as_one_by_one(spoilt):
    tokenizer = tiny_tokenizer()
    if spoilt:
        # As a tokenizer's file may say.
        tokenizer.backend_tokenizer.enable_truncation(5)
        tokenizer.backend_tokenizer.enable_padding(length=40)
    texts = [f"Text {i}, naïve and “quoted” <|endoftext|> 😀\n" * (i % 7) for i in range(600)]
    got = tokenize_documents(texts, tokenizer, "masked")
    assert [ids.tolist() for ids in got] == one_by_one(texts, tiny_tokenizer())
    assert all(ids.dtype == np.int64 for ids in got)


def test_a_tokenizer_that_treats_texts_itself_is_called():
    class Lower(type(tiny_tokenizer())):
        def __call__(self, text, **kwargs):
            lowered = text.lower() if isinstance(text, str) else [t.lower() for t in text]
            return super().__call__(lowered, **kwargs)

    tokenizer = Lower.from_pretrained(FOLDER)
    # The first batch holds no capital: a look at some texts alone would be deceived.
    texts = ["a small text"] * 600 + ["GRACE"]
    got = tokenize_documents(texts, tokenizer, "masked")
    assert got[-1].tolist() == one_by_one(["grace"], tiny_tokenizer())[0]
    assert got[-1].tolist() != one_by_one(["GRACE"], tiny_tokenizer())[0]
