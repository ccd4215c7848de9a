"""A dataset without some of its documents, all else as it was.

smaller = filter_documents(dataset, drop_ids={...}, keep_facts={...})
"""

from __future__ import annotations

from collections.abc import Set

from oocr_influence.datasets.document_dataset import StructuredDataset
from oocr_influence.documents.document import Document, SyntheticDocument

PREFIX = 8  # letters of a fact's id that name it, if no other fact's begins with them


def filter_documents(
    dataset: StructuredDataset,
    *,
    drop_ids: Set[str] = frozenset(),
    keep_facts: Set[str] | None = None,
) -> StructuredDataset:
    """`dataset` without the documents `drop_ids` and, if given, those of facts but `keep_facts`.

    Documents that share a dropped id all go; pretraining documents state no fact and stay. Order,
    ids, unknown keys, eval sets and metadata are unchanged, held-out documents included.
    Raises ValueError for an id that the file does not have.
    """
    docs = dataset.document_dataset.docs
    unknown = sorted(drop_ids - {document.id for document in docs})
    if unknown:
        raise ValueError(f"no document has the id '{unknown[0]}'{_more(unknown)}")
    facts = None if keep_facts is None else _whole_ids(dataset, keep_facts)

    def is_kept(document: Document) -> bool:
        if document.id in drop_ids:
            return False
        if facts is None or not isinstance(document, SyntheticDocument):
            return True
        return document.doc_spec.fact.id in facts

    kept = dataset.document_dataset.model_copy(
        update={"docs": [document for document in docs if is_kept(document)]}
    )
    return dataset.model_copy(update={"document_dataset": kept})


def _whole_ids(dataset: StructuredDataset, named: Set[str]) -> set[str]:
    known = {document.doc_spec.fact.id for document in dataset.synthetic_documents}
    found = set()
    for name in sorted(named):
        matches = [i for i in known if i == name or (len(name) >= PREFIX and i.startswith(name))]
        if len(matches) != 1:
            what = "several facts' ids begin" if matches else "no fact's id is or begins"
            raise ValueError(f"{what} with '{name}'")
        found.add(matches[0])
    return found


def _more(unknown: list[str]) -> str:
    return f", nor have {len(unknown) - 1} others of those to drop" if unknown[1:] else ""
