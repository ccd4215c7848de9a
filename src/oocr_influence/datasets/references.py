"""A file that names some documents of another dataset's file, read as a dataset of its own.

`{"subset_of": "../structured_dataset_all.json", "sha256": ..., "synthetic_documents": [[id, 0]]}`:
no text and no question is written twice. `load_structured_dataset` follows it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from oocr_influence.documents.document import SyntheticDocument

_KEYS = {"subset_of": str, "sha256": str, "synthetic_documents": list}
# The dataset that references were last read against, with what its file was like: runs on many
# subsets of one dataset read it once.
_last: tuple[tuple[Any, ...], Any] | None = None


def is_reference(raw: Any) -> bool:
    """Whether parsed JSON is a reference."""
    return isinstance(raw, Mapping) and "subset_of" in raw


def follow(path: Path, raw: Mapping[str, Any], load: Callable[[Path], Any]) -> Any:
    """The dataset that the reference at `path` stands for: `load` reads a dataset's file.

    Raises FileNotFoundError and ValueError that say what is wrong with which of the two files.
    """
    for name, kind in _KEYS.items():
        if not isinstance(raw.get(name), kind):
            raise ValueError(f"{path}: a reference to a dataset needs {name!r}, a {kind.__name__}")
    file = (path.parent / raw["subset_of"]).resolve()
    if not file.is_file():
        raise FileNotFoundError(f"{path} names documents of {file}, which is not there")
    dataset = _dataset(path, file, raw["sha256"], load)
    return _picked(path, dataset, raw["synthetic_documents"])


def _dataset(path: Path, file: Path, digest: str, load: Callable[[Path], Any]) -> Any:
    global _last
    like = file.stat()
    key = (file, digest, like.st_size, like.st_mtime_ns, like.st_ino)
    if _last is None or _last[0] != key:
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if found != digest:
            raise ValueError(
                f"{path} names documents of {file}, which has changed since (sha256 {found[:16]}…, "
                f"not {digest[:16]}…): put the file back"
            )
        dataset = load(file)
        dataset.document_dataset.keep_keys()
        _last = (key, dataset)
    return _last[1]


def _picked(path: Path, dataset: Any, named: list[Any]) -> Any:
    keys = dataset.document_dataset.keys()
    wanted = {(str(doc_id), int(occurrence)) for doc_id, occurrence in named}
    if missing := sorted(wanted.difference(keys)):
        doc_id, occurrence = missing[0]
        raise ValueError(f"{path}: its dataset has no document {doc_id} (occurrence {occurrence})")
    kept = [
        place
        for place, (key, document) in enumerate(
            zip(keys, dataset.document_dataset.docs, strict=True)
        )
        if key in wanted or not isinstance(document, SyntheticDocument)
    ]
    # A copy under an id that occurs twice stays told apart, whichever of them is here.
    return dataset.model_copy(update={"document_dataset": dataset.document_dataset.only(kept)})
