"""What a structured dataset's file holds, counted: documents, sets of questions, facts, bytes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from oocr_influence.results.digests import file_digest


@dataclass(frozen=True, kw_only=True)
class DatasetCounts:
    """One file; bytes are those on disk unless they say otherwise."""

    path: Path
    digest: str
    n_bytes: int
    bytes_without_pretraining: int
    """As compact JSON, as files are written by this software."""
    n_documents: int
    n_synthetic: int
    n_pretraining: int
    n_repeated_ids: int
    """Documents whose id another one has had before."""
    synthetic_text_bytes: int
    pretraining_text_bytes: int
    """In UTF-8, prompts and completions."""
    n_sets: int
    n_questions: int
    relations: Mapping[str, int]
    """Documents of each relation."""
    n_facts: int
    n_entities: int
    fields: tuple[str, ...]
    """Of the entities that documents tell of, in the order in which they come."""
    metadata: Mapping[str, Any]

    @property
    def world(self) -> Mapping[str, Any]:
        """What the file says of its world; empty where it says nothing."""
        world = self.metadata.get("world")
        return world if isinstance(world, Mapping) else {}


@cache
def count_dataset(path: Path) -> DatasetCounts:
    """Count everything; raises OSError, or ValueError where the file is not such a dataset."""
    try:
        whole = json.loads(path.read_bytes())
        documents = whole["document_dataset"]["docs"]
        return _counts(path, whole, documents)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a structured dataset: {error!r}") from error


def _counts(path: Path, whole: dict[str, Any], documents: list[dict[str, Any]]) -> DatasetCounts:
    synthetic = [document for document in documents if "doc_spec" in document]
    others = [document for document in documents if "doc_spec" not in document]
    facts = [document["doc_spec"]["fact"] for document in synthetic]
    features = [fact["feature_set"] for fact in facts]
    builders = whole["eval_dataset_builders"]
    metadata = whole.get("metadata")
    ids = Counter(document["id"] for document in documents)
    bare = {**whole, "document_dataset": {**whole["document_dataset"], "docs": synthetic}}
    return DatasetCounts(
        path=path,
        digest=file_digest(path),
        n_bytes=path.stat().st_size,
        bytes_without_pretraining=_json_bytes(bare),
        n_documents=len(documents),
        n_synthetic=len(synthetic),
        n_pretraining=len(others),
        n_repeated_ids=sum(ids.values()) - len(ids),
        synthetic_text_bytes=_text_bytes(synthetic),
        pretraining_text_bytes=_text_bytes(others),
        n_sets=len(builders),
        n_questions=sum(len(builder["eval_points"]) for builder in builders.values()),
        relations=dict(Counter(fact["template"]["relation"] for fact in facts)),
        n_facts=len({fact["id"] for fact in facts}),
        n_entities=len({one["id"] for one in features}),
        fields=tuple(dict.fromkeys(name for one in features for name in one["fields"])),
        metadata=metadata if isinstance(metadata, dict) else {},
    )


def _json_bytes(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def _text_bytes(documents: Iterable[Mapping[str, Any]]) -> int:
    return sum(len(f"{one['prompt']}{one['completion']}".encode()) for one in documents)
