"""Files that appear whole or not at all: written beside under a hidden name, flushed, renamed.

A reader, a `find` or a killed process never sees half a file: until the rename there is only a
name that begins with `.writing_`, which no pattern of a run folder matches.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TEMPORARY_PREFIX = ".writing_"
READ_ONLY = 0o444


@contextmanager
def writing_file(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the body succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its name when the body succeeds.

    Raises FileExistsError at once if `path` is there: what is published is never replaced.
    """
    if path.exists():
        raise FileExistsError(f"{path} is there already and is not replaced")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        for written in [*temporary.rglob("*"), temporary]:
            _flush(written)
        temporary.rename(path)
        _flush(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text`, atomically."""
    with writing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by strict JSON, atomically; non-finite numbers are refused (ValueError)."""
    write_text(path, json.dumps(value, allow_nan=False, ensure_ascii=False, indent=1) + "\n")


def plain(value: Any) -> Any:
    """`value` as plain JSON: non-finite numbers become None, numpy scalars and paths plain values.

    For logs, where a loss that diverged must not cost the log. Objects without a JSON form raise
    TypeError rather than being pickled or printed.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value) if isinstance(value, set | frozenset) else value
        return [plain(item) for item in items]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        return plain(value.tolist())
    raise TypeError(f"{type(value).__name__} has no plain JSON form: {value!r:.100}")


def link_file(source: Path, path: Path) -> None:
    """Make `path` another name of `source`'s bytes, or a copy where links cannot be, atomically."""
    with writing_file(path) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def link_folder(source: Path, folder: Path) -> None:
    """Fill an empty folder with other names of the files directly in `source`, all read-only."""
    for file in sorted(source.iterdir()):
        try:
            os.link(file, folder / file.name)
        except OSError:
            shutil.copyfile(file, folder / file.name)
        (folder / file.name).chmod(READ_ONLY)


def remove_folder(path: Path) -> None:
    """Delete a folder, which no reader sees half deleted."""
    temporary = _temporary(path)
    path.rename(temporary)
    shutil.rmtree(temporary)


def remove_temporaries(folder: Path) -> list[Path]:
    """Delete what killed writers left directly in `folder`; the caller owns the folder."""
    left = sorted(folder.glob(TEMPORARY_PREFIX + "*"))
    for path in left:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return left


def _temporary(path: Path) -> Path:
    # A cut name, since a file's name may already have the most bytes that a file system allows.
    stem = path.name.encode()[:150].decode(errors="ignore")
    return path.with_name(f"{TEMPORARY_PREFIX}{stem}_{os.getpid()}_{secrets.token_hex(4)}")


def _flush(path: Path) -> None:
    """Ask the disk to keep it: a rename must not outlive the data it names in a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network file systems know no fsync of folders
    finally:
        os.close(descriptor)
