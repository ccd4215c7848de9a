"""Packed windows out of the cache are those that packing makes, whatever went before."""

import numpy as np
import pytest

from oocr_influence.cli import packed_cache
from oocr_influence.cli.packed_cache import packed_windows
from oocr_influence.models.tiny import tiny_tokenizer
from oocr_influence.results.cache import Cache

TEXTS = [f"Document {i} says that {'a stone is hard ' * (i % 7)}." for i in range(40)]
WAY = {"chunk_size": 48, "pad_id": 1, "overlap_cuts": True, "drop_last": False}


@pytest.fixture
def packings(monkeypatch):
    """Counts how often anything is packed."""
    made = []
    pack = packed_cache.pack
    monkeypatch.setattr(packed_cache, "pack", lambda *a, **k: made.append(0) or pack(*a, **k))
    return made


@pytest.mark.parametrize("packing", ["masked", "concat", "separate"])
def test_the_second_time_nothing_is_packed_and_all_is_the_same(tmp_path, packings, packing):
    tokenizer, kept = tiny_tokenizer(), Cache(tmp_path)
    alone = packed_windows(TEXTS, tokenizer, None, packing=packing, **WAY)
    first = packed_windows(TEXTS, tokenizer, kept, packing=packing, **WAY)
    second = packed_windows(TEXTS, tokenizer, kept, packing=packing, **WAY)
    assert len(packings) == 2
    for found in (first, second):
        assert found.digest() == alone.digest()
        assert found.pieces == alone.pieces
        assert (found.packing, found.pad_id) == (alone.packing, alone.pad_id)
        assert found.input_ids.dtype == np.int64
        assert found.window_ids() == alone.window_ids()


def test_whatever_windows_follow_from_makes_another_entry(tmp_path, packings):
    tokenizer, kept = tiny_tokenizer(), Cache(tmp_path)
    asked = [
        (TEXTS, WAY, "masked"),
        (TEXTS[::-1], WAY, "masked"),
        ([TEXTS[0] + TEXTS[1], *TEXTS[2:]], WAY, "masked"),
        (TEXTS, WAY, "separate"),
        *[
            (TEXTS, {**WAY, name: value}, "concat")
            for name, value in [
                ("chunk_size", 40),
                ("pad_id", 2),
                ("overlap_cuts", False),
                ("drop_last", True),
            ]
        ],
    ]
    for texts, way, packing in asked:
        packed_windows(texts, tokenizer, kept, packing=packing, **way)
    assert len(packings) == len(asked)
    tokenizer.eos_token = tokenizer.pad_token
    packed_windows(TEXTS, tokenizer, kept, packing="masked", **WAY)
    assert len(packings) == len(asked) + 1


def test_a_damaged_entry_is_made_anew(tmp_path, packings, caplog):
    tokenizer, kept = tiny_tokenizer(), Cache(tmp_path)
    first = packed_windows(TEXTS, tokenizer, kept, packing="masked", **WAY)
    (file,) = tmp_path.glob("windows/*/windows.npz")
    file.chmod(0o644)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    again = packed_windows(TEXTS, tokenizer, kept, packing="masked", **WAY)
    assert again.digest() == first.digest()
    assert len(packings) == 2
    assert "damaged" in caplog.text
