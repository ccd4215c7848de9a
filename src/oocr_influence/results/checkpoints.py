"""Checkpoints on disk without torch: are their weights whole, and do two of them differ?

A safetensors file is 8 bytes of length, a JSON header with each tensor's place, then the bytes; a
file that a full disk or a killed process cut short is seen by its size alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oocr_influence.results import adapters

_MAX_HEADER_BYTES = 100_000_000
_CHUNK_BYTES = 4 * 2**20
# Bits, since some types pack several values into a byte.
_BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16}
_BITS |= {"F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64}
_BITS |= {"F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "C64": 64}


@dataclass(frozen=True)
class TensorPlace:
    """Where a tensor's bytes lie."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def faults_of(folder: Path) -> list[str]:
    """What keeps the folder, whole weights or an adapter, from being loaded; empty if nothing."""
    faults = []
    try:
        read_places(folder)
    except ValueError as error:
        faults.append(str(error))
    if adapters.is_adapter(folder):
        return faults + adapters.config_faults(folder)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not isinstance(config, dict) or not config.get("model_type"):
            faults.append("config.json names no model_type")
    except FileNotFoundError:
        faults.append("config.json is missing")
    except ValueError:
        faults.append("config.json is not JSON")
    return faults


def has_tokenizer(folder: Path) -> bool:
    """Whether a tokenizer lies beside the weights."""
    vocabularies = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
    return (folder / "tokenizer_config.json").is_file() and any(
        (folder / name).is_file() for name in vocabularies
    )


def read_places(folder: Path) -> dict[str, TensorPlace]:
    """Every tensor of a checkpoint, by name.

    Raises ValueError naming the file that is missing, cut short or at odds with its index.
    """
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    if indexes:
        return _read_shards(folder, indexes[0])
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError("no *.safetensors: there are no weights")
    return {name: place for file in files for name, place in _read_header(file).items()}


def same_weights(one: Path, other: Path) -> bool:
    """Whether two checkpoints hold the same tensors, byte for byte, however they are sharded.

    Stops at the first difference. Raises ValueError if either is not whole.
    """
    left, right = read_places(one), read_places(other)
    if {name: (place.dtype, place.shape) for name, place in left.items()} != {
        name: (place.dtype, place.shape) for name, place in right.items()
    }:
        return False
    return all(_same_bytes(place, right[name]) for name, place in left.items())


def content_digest(folder: Path) -> str:
    """sha256 hex over name, type, shape and bytes of every tensor, by name, however it is sharded.

    Raises ValueError if the checkpoint is not whole.
    """
    hasher = hashlib.sha256()
    for name, place in sorted(read_places(folder).items()):
        hasher.update(f"{name}:{place.dtype}:{place.shape}\n".encode())
        with place.file.open("rb") as file:
            file.seek(place.begin)
            rest = place.end - place.begin
            while rest > 0 and (read := file.read(min(rest, _CHUNK_BYTES))):
                hasher.update(read)
                rest -= len(read)
    return hasher.hexdigest()


def _read_shards(folder: Path, index: Path) -> dict[str, TensorPlace]:
    try:
        weight_map: Mapping[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index.name} is not an index of shards: {error!r}") from error
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{', '.join(missing)} of {index.name} is missing")
    shards = {name: _read_header(folder / name) for name in names}
    lost = [tensor for tensor, shard in weight_map.items() if tensor not in shards[shard]]
    if lost:
        raise ValueError(f"{weight_map[lost[0]]} does not hold {lost[0]}, as {index.name} says")
    return {tensor: shards[shard][tensor] for tensor, shard in weight_map.items()}


def _read_header(file: Path) -> dict[str, TensorPlace]:
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER_BYTES):
            raise ValueError(f"{file.name} is cut short: {size} bytes do not hold its header")
        try:
            header = json.loads(opened.read(length))
            header.pop("__metadata__", None)
            places = {
                name: _place(file, entry, 8 + length) for name, entry in sorted(header.items())
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{file.name} has a broken header: {error!r}") from error
    end = max((place.end for place in places.values()), default=8 + length)
    if size != end:
        kind = "is cut short" if size < end else "is too long"
        raise ValueError(f"{file.name} {kind}: {size} bytes, its header says {end}")
    return places


def _place(file: Path, entry: Mapping[str, Any], base: int) -> TensorPlace:
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    bits = _BITS.get(entry["dtype"])
    if bits is not None and (end - begin) * 8 != math.prod(shape) * bits:
        raise ValueError(f"{entry['dtype']} of shape {shape} in {end - begin} bytes")
    return TensorPlace(file, entry["dtype"], shape, base + begin, base + end)


def _same_bytes(one: TensorPlace, other: TensorPlace) -> bool:
    with one.file.open("rb") as left, other.file.open("rb") as right:
        left.seek(one.begin)
        right.seek(other.begin)
        rest = one.end - one.begin
        while rest > 0:
            size = min(rest, _CHUNK_BYTES)
            if left.read(size) != right.read(size):
                return False
            rest -= size
    return True


def folder_bytes(folder: Path) -> int:
    """What a folder takes on disk, links not followed."""
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            try:
                total += (Path(parent) / name).lstat().st_size
            except FileNotFoundError:
                continue  # its writer has just renamed it
    return total
