"""A document as data: synthetic (it states a fact) or pretraining text."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from oocr_influence.universe.facts import Fact, Record, sha256_hex


class DocumentSpec(Record):
    """What a synthetic document was written for: its fact, its kind and the idea behind it."""

    id: str
    fact: Fact
    doc_type: str
    doc_idea: str
    reversal_curse: bool
    additional_text: str = ""


class SyntheticDocument(Record):
    """A document that states `doc_spec.fact`; the text that is trained is `prompt + completion`."""

    id: str
    type: Literal["synthetic_document"]
    prompt: str
    completion: str
    doc_spec: DocumentSpec


class PretrainingDocument(Record):
    """Ordinary text beside the facts; the text that is trained is `prompt + completion`."""

    id: str
    type: Literal["pretraining_document"]
    prompt: str
    completion: str


Document = Annotated[SyntheticDocument | PretrainingDocument, Field(discriminator="type")]


def document_id(fact_id: str, doc_type: str, doc_idea: str, n: int) -> str:
    """sha256 hex of `"{fact_id}-{doc_type}-{doc_idea}-{n}"`."""
    return sha256_hex(f"{fact_id}-{doc_type}-{doc_idea}-{n}")


def make_pretraining_document(text: str, prompt: str = "") -> PretrainingDocument:
    """A pretraining document whose id is the sha256 hex of prompt and text."""
    return PretrainingDocument(
        id=sha256_hex(prompt + text), type="pretraining_document", prompt=prompt, completion=text
    )
