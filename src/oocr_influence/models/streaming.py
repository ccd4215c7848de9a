"""Weights straight from a device into a safetensors file, a piece at a time, and no second copy.

    layout = CheckpointLayout.of(model, checkpoint_that_save_pretrained_wrote)
    tensors = model.state_dict()
    stream_checkpoint(tensors, layout, folder)     # in a thread, while nothing changes the weights

On a GPU the pieces go through pinned memory on a stream of their own, beside the kernels of an
evaluation. How transformers names, leaves out and orders tensors is not guessed: it is read off a
checkpoint that transformers wrote of this very model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from oocr_influence.results.checkpoints import TensorPlace, read_places

PIECE_BYTES = 64 * 2**20
WEIGHTS_FILE = "model.safetensors"
_COMPARED_BYTES = 4096
_DTYPES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.bool: "BOOL",
}
_NAMES = {name: dtype for dtype, name in _DTYPES.items()}

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class CheckpointLayout:
    """What a checkpoint of a model holds: names of tensors, in order, and the files beside them."""

    names: tuple[str, ...]
    files: Mapping[str, bytes]
    """Config, tokenizer and whatever else is not weights, by name."""

    @classmethod
    def of(cls, model: torch.nn.Module, folder: Path) -> CheckpointLayout | None:
        """The layout of `folder`, a checkpoint of the weights that the model has at this moment.

        None if it is not one file of some of the model's own tensors, as they are: sharded, or
        renamed and fused as transformers does for some families.
        """
        try:
            places = read_places(folder)
        except (OSError, ValueError):
            return None
        tensors = model.state_dict()
        one_file = {place.file for place in places.values()} == {folder / WEIGHTS_FILE}
        if not one_file or not places.keys() <= tensors.keys():
            return None
        with (folder / WEIGHTS_FILE).open("rb") as file:
            if not all(_holds(file, place, tensors[name]) for name, place in places.items()):
                return None
        beside = [path for path in folder.iterdir() if path.is_file() and path.name != WEIGHTS_FILE]
        return cls(
            tuple(sorted(places, key=lambda name: places[name].begin)),
            {path.name: path.read_bytes() for path in sorted(beside)},
        )


def stream_checkpoint(tensors: Tensors, layout: CheckpointLayout, folder: Path) -> None:
    """Write the tensors into an empty folder, laid out as `layout` says.

    Raises OSError if the disk is full. The tensors must not change until it returns.
    """
    for name, content in layout.files.items():
        (folder / name).write_bytes(content)
    write_safetensors({name: tensors[name] for name in layout.names}, folder / WEIGHTS_FILE)


def write_safetensors(
    tensors: Tensors, path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file, tensors in the given order, without a copy of any of them.

    Format: https://github.com/huggingface/safetensors#format. Raises OSError.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for piece in _pieces(tensors):
            file.write(piece)


def _pieces(tensors: Tensors) -> Iterator[memoryview]:
    """The bytes of all tensors in order; a piece is valid until the next is asked for."""
    on_gpu = next((t.device for t in tensors.values() if t.is_cuda), None)
    if on_gpu is None:
        for flat in map(_flat_bytes, tensors.values()):
            yield flat.numpy().data
    else:
        yield from _pinned_pieces(tensors, on_gpu)


def _pinned_pieces(tensors: Tensors, device: torch.device) -> Iterator[memoryview]:
    """While one piece is written to disk, the next is copied into the other pinned buffer."""
    buffers = [torch.empty(PIECE_BYTES, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    # The weights are those after all that was asked of the device so far.
    stream.wait_stream(torch.cuda.default_stream(device))
    copied: tuple[torch.cuda.Event, torch.Tensor] | None = None
    n = 0
    for tensor in tensors.values():
        with torch.cuda.stream(stream):  # where what does not lie in one piece is copied, too
            flat = _flat_bytes(tensor)
        for piece in torch.split(flat, PIECE_BYTES):
            with torch.cuda.stream(stream):
                target = buffers[n % 2][: piece.numel()]
                target.copy_(piece, non_blocking=True)
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                event.record(stream)
            if copied is not None:
                copied[0].synchronize()
                yield copied[1].numpy().data
            copied = (event, target)
            n += 1
    if copied is not None:
        copied[0].synchronize()
        yield copied[1].numpy().data


def _flat_bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _holds(file: BinaryIO, place: TensorPlace, tensor: torch.Tensor) -> bool:
    """Whether a tensor in a file is this one: kind and shape, and its first and last bytes."""
    if _NAMES.get(place.dtype) != tensor.dtype or place.shape != tuple(tensor.shape):
        return False
    flat = _flat_bytes(tensor)
    file.seek(place.begin)
    head = file.read(min(_COMPARED_BYTES, flat.numel()))
    file.seek(max(place.begin, place.end - _COMPARED_BYTES))
    tail = file.read(min(_COMPARED_BYTES, flat.numel()))
    return head == flat[:_COMPARED_BYTES].cpu().numpy().tobytes() and (
        tail == flat[-_COMPARED_BYTES:].cpu().numpy().tobytes()
    )
