"""Documents into windows of one length, with the span of every document kept and no token lost.

Letters: N windows, T tokens a window. Labels are unshifted: `labels[n, t]` is the token at t where
the loss counts its prediction from t-1, and IGNORED elsewhere.

    masked    whole documents, best-fit in the given order, no attention across them, positions
              restart; BOS (unlabelled), document, EOS; only one longer than a window is cut
    separate  the same, one document (or piece of a long one) a window
    concat    documents end to end, each followed by EOS, cut at the window's edge, attending across

A cut repeats the last token before it as unlabelled context, so that no label is lost
(`overlap_cuts=False` is the earlier system's way, which loses one label a cut).
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

IGNORED = -100
BATCH = 256  # documents that are tokenised at once: all of them would be lists of Python integers
_BASES = "transformers.tokenization_utils"  # the modules of transformers' base classes
Packing = Literal["masked", "concat", "separate"]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Piece:
    """A document's tokens [doc_start, doc_end) at [start, end) of a window.

    `doc_*` count in the document's tokens as trained (BOS and EOS included); `truncated` is true
    where the document goes on in another piece.
    """

    document: int
    window: int
    start: int
    end: int
    doc_start: int
    doc_end: int
    truncated: bool


@dataclass(frozen=True)
class PackedWindows:
    """What a run trains: token ids, labels, positions and document segments, each (N, T).

    `segments[n, t]` numbers the pieces of a window from 0; attention stays inside a segment;
    padding is -1.
    """

    input_ids: IntArray
    labels: IntArray
    position_ids: IntArray
    segments: IntArray
    pieces: tuple[Piece, ...]
    packing: Packing
    pad_id: int

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def n_tokens(self) -> int:
        """Tokens that are no padding."""
        return int((self.segments >= 0).sum())

    @property
    def n_labels(self) -> int:
        """Tokens whose prediction enters the loss in one pass."""
        return int((self.labels != IGNORED).sum())

    def window_ids(self) -> list[str]:
        """sha256 hex of each window's int64 tokens."""
        rows = self.input_ids.astype("<i8")
        return [hashlib.sha256(row.tobytes()).hexdigest() for row in rows]

    def digest(self) -> str:
        """sha256 hex over tokens, labels, positions and segments: what a run trains, exactly."""
        hasher = hashlib.sha256()
        for array in (self.input_ids, self.labels, self.position_ids, self.segments):
            hasher.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
        return hasher.hexdigest()

    def labels_per_document(self, n_documents: int, times: IntArray | None = None) -> IntArray:
        """Labelled tokens of each document, windows counted `times` (N,) each (default: once).

        A label belongs to the document whose piece it lies in.
        """
        counts = np.zeros(n_documents, dtype=np.int64)
        for piece in self.pieces:
            labelled = self.labels[piece.window, piece.start : piece.end] != IGNORED
            weight = 1 if times is None else int(times[piece.window])
            counts[piece.document] += weight * int(labelled.sum())
        return counts


def tokenize_documents(texts: Sequence[str], tokenizer: Any, packing: Packing) -> list[IntArray]:
    """Token ids of each document as trained: BOS (where there is one, never in concat), text, EOS.

    Raises ValueError if the tokenizer has no EOS token: a document could not end.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no EOS token, so that no document could end")
    has_bos = tokenizer.bos_token_id is not None and packing != "concat"
    before = [tokenizer.bos_token_id] if has_bos else []
    after = [tokenizer.eos_token_id]
    encode = _encoder(tokenizer, texts[:BATCH])
    return [
        np.array([*before, *token_ids, *after], dtype=np.int64)
        for start in range(0, len(texts), BATCH)
        for token_ids in encode(texts[start : start + BATCH])
    ]


def _encoder(tokenizer: Any, sample: Sequence[str]) -> Callable[[Sequence[str]], list[list[int]]]:
    """From texts to token ids: the Rust tokenizer's way without offsets, where it is the same."""

    def plain(texts: Sequence[str]) -> list[list[int]]:
        encoded = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False)
        return list(encoded["input_ids"])

    def fast(texts: Sequence[str]) -> list[list[int]]:
        encoded = tokenizer.backend_tokenizer.encode_batch_fast(
            list(texts), add_special_tokens=False
        )
        return [encoding.ids for encoding in encoded]

    # A tokenizer class may treat texts before they reach the Rust tokenizer: only transformers' own
    # way there is taken. The plain call comes first, since it also turns off the truncation and
    # padding that a tokenizer's file may ask for.
    ways = [getattr(type(tokenizer), name, None) for name in ("__call__", "_encode_plus")]
    own = all(getattr(way, "__module__", "").startswith(_BASES) for way in ways)
    if not own or not hasattr(getattr(tokenizer, "backend_tokenizer", None), "encode_batch_fast"):
        return plain
    return fast if sample and plain(sample) == fast(sample) else plain


def pack(
    documents: Sequence[IntArray],
    *,
    chunk_size: int,
    packing: Packing,
    pad_id: int,
    overlap_cuts: bool = True,
    drop_last: bool = False,
) -> PackedWindows:
    """Pack tokenised documents into windows of `chunk_size` tokens.

    `drop_last` drops the last, partly filled window of a concat packing. Raises ValueError for a
    window too short to hold a token and its prediction.
    """
    if chunk_size < 2:
        raise ValueError(f"chunk_size {chunk_size}: a window needs at least 2 tokens")
    if packing == "concat":
        pieces = _end_to_end([len(d) for d in documents], chunk_size, overlap_cuts)
    else:
        pieces = _whole_documents(
            [len(d) for d in documents], chunk_size, overlap_cuts, share=packing == "masked"
        )
    n_windows = 1 + max(piece.window for piece in pieces)
    if drop_last and packing == "concat":
        last = [piece for piece in pieces if piece.window == n_windows - 1]
        if max(piece.end for piece in last) < chunk_size:
            n_windows -= 1
            pieces = [piece for piece in pieces if piece.window < n_windows]
    if n_windows == 0:
        raise ValueError(
            f"the documents fill no whole window of {chunk_size} tokens and drop_last drops the "
            "only one: lower chunk_size"
        )
    return _fill(documents, pieces, (n_windows, chunk_size), packing, pad_id)


def _cuts(length: int, chunk_size: int, overlap: bool) -> list[tuple[int, int]]:
    """[start, end) of each piece of a document; every piece but the first repeats one token."""
    spans = [(0, min(length, chunk_size))]
    while spans[-1][1] < length:
        start = spans[-1][1] - (1 if overlap else 0)
        spans.append((start, min(length, start + chunk_size)))
    return spans


def _whole_documents(
    lengths: Sequence[int], chunk_size: int, overlap: bool, *, share: bool
) -> list[Piece]:
    """Best-fit: each piece goes where it leaves the least room, the earliest such window first."""
    pieces: list[Piece] = []
    rooms: list[tuple[int, int]] = []  # (room, window), sorted
    n_windows = 0
    for document, length in enumerate(lengths):
        for doc_start, doc_end in _cuts(length, chunk_size, overlap):
            size = doc_end - doc_start
            place = bisect_left(rooms, (size, -1)) if share else len(rooms)
            if place < len(rooms):
                room, window = rooms.pop(place)
            else:
                room, window, n_windows = chunk_size, n_windows, n_windows + 1
            start = chunk_size - room
            truncated = doc_end < length
            pieces.append(
                Piece(document, window, start, start + size, doc_start, doc_end, truncated)
            )
            # One token of room holds no prediction.
            if share and room - size > 1:
                insort(rooms, (room - size, window))
    return pieces


def _end_to_end(lengths: Sequence[int], chunk_size: int, overlap: bool) -> list[Piece]:
    pieces: list[Piece] = []
    window, at = 0, 0
    for document, length in enumerate(lengths):
        done = 0
        while done < length:
            if at == chunk_size:
                window, at = window + 1, 0
                if overlap:
                    pieces.append(_context_of(pieces[-1], window))
                    at = 1
            size = min(length - done, chunk_size - at)
            before = pieces[-1] if pieces else None
            if before and (before.document, before.window) == (document, window) and at == 1:
                # The repeated token and what follows it are one piece of the same document.
                pieces.pop()
                done, at, size = done - 1, 0, size + 1
            truncated = done + size < length
            pieces.append(Piece(document, window, at, at + size, done, done + size, truncated))
            done, at = done + size, at + size
    return pieces


def _context_of(last: Piece, window: int) -> Piece:
    """The piece that repeats the last token before a cut at the start of the next window."""
    return Piece(last.document, window, 0, 1, last.doc_end - 1, last.doc_end, last.truncated)


def _fill(
    documents: Sequence[IntArray],
    pieces: Sequence[Piece],
    shape: tuple[int, int],
    packing: Packing,
    pad_id: int,
) -> PackedWindows:
    input_ids = np.full(shape, pad_id, dtype=np.int64)
    labels = np.full(shape, IGNORED, dtype=np.int64)
    position_ids = np.zeros(shape, dtype=np.int64)
    segments = np.full(shape, -1, dtype=np.int64)
    n_segments = [0] * shape[0]
    for piece in pieces:
        span = (piece.window, slice(piece.start, piece.end))
        tokens = documents[piece.document][piece.doc_start : piece.doc_end]
        input_ids[span] = labels[span] = tokens
        if packing == "concat":
            position_ids[span] = np.arange(piece.start, piece.end)
            segments[span] = 0
        else:
            # Nothing precedes a piece's first token (BOS, or a cut's repeated token).
            labels[piece.window, piece.start] = IGNORED
            position_ids[span] = np.arange(len(tokens))
            segments[span] = n_segments[piece.window]
            n_segments[piece.window] += 1
    if packing == "concat":
        labels[:, 0] = IGNORED
    return PackedWindows(input_ids, labels, position_ids, segments, tuple(pieces), packing, pad_id)
