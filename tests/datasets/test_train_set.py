"""The rows of the train set name the documents that lie in them, whole and once."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from oocr_influence.datasets.document_dataset import load_structured_dataset
from oocr_influence.datasets.packing import IGNORED, pack, tokenize_documents
from oocr_influence.datasets.selection import select_documents
from oocr_influence.datasets.train_set import piece_columns, window_columns
from oocr_influence.models.tiny import tiny_tokenizer

SAMPLE = Path(__file__).parents[1] / "samples" / "earlier_structured_dataset.json"
pytestmark = pytest.mark.filterwarnings("ignore:.*more than once")
TOKENIZER = tiny_tokenizer()


@pytest.fixture(scope="module")
def documents():
    return select_documents(
        load_structured_dataset(SAMPLE), n_pretraining_examples=None, seed=41, packing_seed=0
    )


@pytest.fixture(scope="module")
def texts():
    """(id, occurrence) → text, read from the file itself."""
    found, seen = {}, Counter()
    for document in json.loads(SAMPLE.read_text())["document_dataset"]["docs"]:
        found[document["id"], seen[document["id"]]] = document["prompt"] + document["completion"]
        seen[document["id"]] += 1
    return found


def packed(documents, packing, **options):
    tokens = tokenize_documents([d.text for d in documents], TOKENIZER, packing)
    pad_id = TOKENIZER.pad_token_id
    return pack(tokens, chunk_size=512, packing=packing, pad_id=pad_id, **options)


def check_span(span, tokens, text, packing):
    """The tokens of a span are those of its own document, at the place that the span states."""
    has_bos = packing != "concat"
    own = [
        *([TOKENIZER.bos_token_id] if has_bos else []),
        *TOKENIZER(text, add_special_tokens=False)["input_ids"],
        TOKENIZER.eos_token_id,
    ]
    assert list(tokens) == own[span["doc_span_start"] : span["doc_span_end"]], span["id"]
    assert span["prompt"] + span["completion"] == text
    assert span["truncated"] == (span["doc_span_end"] < len(own))
    if len(tokens) == len(own):
        assert TOKENIZER.decode(tokens, skip_special_tokens=True) == text
    if span["fact_id"] is not None:
        fact = json.loads(span["doc_spec"])["fact"]
        assert fact["id"] == span["fact_id"]
        assert fact["template"]["relation"] == span["relation"]
    return len(own)


def check_covered(covered, lengths, first):
    """Of each document every place from `first` on is there exactly once."""
    for key, length in lengths.items():
        assert sorted(covered[key]) == list(range(first, length)), key


@pytest.mark.parametrize("packing", ["masked", "separate", "concat"])
def test_every_row_names_the_documents_in_it(documents, texts, packing):
    # Without overlap a concat packing cuts every document into parts that repeat nothing.
    options = {"overlap_cuts": False} if packing == "concat" else {}
    windows = packed(documents, packing, **options)
    columns = window_columns(windows, documents)
    covered, lengths = defaultdict(list), {}
    for row, spans in enumerate(columns["packed_documents"]):
        filled = 0
        for span in spans:
            key = span["id"], span["occurrence"]
            at = slice(span["span_start"], span["span_end"])
            tokens, labels = columns["input_ids"][row][at], columns["labels"][row][at]
            lengths[key] = check_span(span, tokens, texts[key], packing)
            filled += len(tokens)
            # Where a cut repeats a token, that one is unlabelled context.
            covered[key] += [
                span["doc_span_start"] + i
                for i, label in enumerate(labels)
                if packing == "concat" or label != IGNORED
            ]
        assert filled == sum(columns["attention_mask"][row])
    assert lengths.keys() == texts.keys()
    check_covered(covered, lengths, first=0 if packing == "concat" else 1)
    most = max(len(spans) for spans in columns["packed_documents"])
    assert most > 1 or packing == "separate", "no window holds several documents"


def test_every_document_row_is_the_document_that_it_names(documents, texts):
    windows = packed(documents, "masked")
    columns = piece_columns(windows, documents)
    covered, lengths = defaultdict(list), {}
    rows = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    for row in rows:
        key = row["id"], row["occurrence"]
        lengths[key] = check_span(row, row["input_ids"], texts[key], "masked")
        assert len(row["input_ids"]) == len(row["labels"]) == sum(row["attention_mask"])
        in_window = windows.input_ids[row["window"], row["span_start"] : row["span_end"]]
        assert list(in_window) == list(row["input_ids"])
        covered[key] += [
            row["doc_span_start"] + i for i, label in enumerate(row["labels"]) if label != IGNORED
        ]
    assert lengths.keys() == texts.keys()
    check_covered(covered, lengths, first=1)
