"""What is different between two datasets, in documents, facts, eval sets and metadata.

difference = compare_datasets(load_structured_dataset(a), load_structured_dataset(b))
print(describe(difference))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from oocr_influence.datasets.document_dataset import StructuredDataset, document_keys

EXAMPLES = 10  # named in words; the JSON has all

Difference = dict[str, Any]


def compare_datasets(first: StructuredDataset, second: StructuredDataset) -> Difference:
    """Plain JSON: for documents, facts and eval sets what was added, removed and changed.

    Documents are matched by (id, occurrence), facts by id, sets by name; of what changed the places
    inside are named. `order` says whether what both have comes in another order. `same` is true
    only for two files of the same content.
    """
    documents = [_documents(dataset) for dataset in (first, second)]
    facts = [_facts(dataset) for dataset in (first, second)]
    sets = [
        {name: _dump(builder) for name, builder in dataset.eval_dataset_builders.items()}
        for dataset in (first, second)
    ]
    rest = [_rest(dataset) for dataset in (first, second)]
    parts = {
        "documents": _compare(*documents),
        "facts": _compare(*facts),
        "eval_sets": _compare(*sets),
    }
    elsewhere = sorted(_places(rest[0], rest[1], ""))
    same = not elsewhere and not any(
        part["added"] or part["removed"] or part["changed"] or part["order"]
        for part in (parts["documents"], parts["eval_sets"])
    )
    return {"same": same, **parts, "elsewhere": elsewhere}


def describe(difference: Difference) -> str:
    """The difference in words."""
    if difference["same"]:
        return "the same documents, eval sets and metadata"
    lines = []
    for name in ("documents", "facts", "eval_sets"):
        part = difference[name]
        told = f"{part['same']:,} the same"
        for what in ("added", "removed", "changed"):
            if part[what]:
                told += f", {len(part[what]):,} {what}"
        told += ", in another order" if part["order"] else ""
        lines.append(f"{name.replace('_', ' ')}: {told}")
        for what in ("added", "removed"):
            lines += _listed(what, part[what])
        lines += _listed("changed", [f"{k}: {', '.join(v)}" for k, v in part["changed"].items()])
    if difference["elsewhere"]:
        lines.append(f"elsewhere: {len(difference['elsewhere']):,} places differ")
        lines += _listed("differs", difference["elsewhere"])
    return "\n".join(lines)


def _listed(what: str, items: Sequence[str]) -> list[str]:
    shown = [f"  {what} {item}" for item in items[:EXAMPLES]]
    more = len(items) - len(shown)
    return [*shown, f"  … and {more:,} more {what}"] if more else shown


def _documents(dataset: StructuredDataset) -> dict[str, Any]:
    docs = dataset.document_dataset.docs
    return {
        doc_id if not occurrence else f"{doc_id} ({occurrence + 1})": _dump(document)
        for (doc_id, occurrence), document in zip(document_keys(docs), docs, strict=True)
    }


def _facts(dataset: StructuredDataset) -> dict[str, Any]:
    return {d.doc_spec.fact.id: _dump(d.doc_spec.fact) for d in dataset.synthetic_documents}


def _rest(dataset: StructuredDataset) -> dict[str, Any]:
    rest = _dump(dataset.model_copy(update={"eval_dataset_builders": {}, "document_dataset": None}))
    return rest | {
        "document_dataset": _dump(dataset.document_dataset.model_copy(update={"docs": []}))
    }


def _compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    shared = [key for key in first if key in second]
    changed = {
        key: sorted(_places(first[key], second[key], ""))
        for key in shared
        if first[key] != second[key]
    }
    return {
        "same": len(shared) - len(changed),
        "added": [key for key in second if key not in first],
        "removed": [key for key in first if key not in second],
        "changed": changed,
        "order": shared != [key for key in second if key in first],
    }


def _places(first: Any, second: Any, place: str) -> Iterator[str]:
    """Where two JSON values differ, as paths; a list counts as one place unless of equal length."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in first.keys() | second.keys():
            inner = f"{place}.{key}" if place else str(key)
            if (key in first) != (key in second):
                yield inner
            else:
                yield from _places(first[key], second[key], inner)
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for index, pair in enumerate(zip(first, second, strict=True)):
            yield from _places(*pair, f"{place}[{index}]")
    elif first != second or type(first) is not type(second):
        yield place


def _dump(record: Any) -> dict[str, Any]:
    dumped: dict[str, Any] = record.model_dump(mode="json", exclude_unset=True, warnings=False)
    return dumped
