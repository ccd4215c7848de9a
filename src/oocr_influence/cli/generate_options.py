"""Flags of `oocr generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from oocr_influence.cli.arguments import CommandArguments
from oocr_influence.cli.llm_options import LLMWriterFlags
from oocr_influence.cli.pretraining_options import PretrainingFlags
from oocr_influence.documents.near_duplicates import THRESHOLD
from oocr_influence.documents.plan import plan_of
from oocr_influence.documents.variety import Variety


class VarietyFlags(CommandArguments):
    """How much the offline writer's documents of one fact differ (docs/documents.md)."""

    paraphrases: int | None = Field(None, ge=1)
    """wordings that state a relation's facts, so many of each order (wordings; None: all)"""
    permute_sentences: bool = True
    """give each document's sentences an order of their own, or else all the same"""
    name_repetition: float = Field(1.0, ge=0, le=1)
    """share of the later sentences about the subject that say its name; the others say "the city",
    "this person" (0 to 1)"""
    max_overlap: float = Field(THRESHOLD, gt=0, le=1)
    """draw a document anew whose 5-gram Jaccard index with an earlier one reaches this (0 to 1; 1:
    copies alone)"""

    @property
    def variety(self) -> Variety:
        return Variety(**{name: getattr(self, name) for name in VarietyFlags.model_fields})


class DatasetFlags(PretrainingFlags):
    """What is told, how often, and what stands beside it."""

    world: str = Field("mayors", description="a built-in world, or the path of a world's YAML file")
    entities: int | None = Field(
        None,
        ge=1,
        description="entities of the world: its own first, then invented ones, with as many "
        "controls (entities; None: its own)",
    )
    entity_seed: int = Field(0, description="seed of the invented entities")
    docs_per_fact: int = Field(100, ge=1, description="documents that state each fact (documents)")
    length: str = Field(
        "long",
        description="length of the synthetic documents: short (about 80), long (about 570), a "
        "number (300: within a tenth of it) or a range (250-400) (words)",
    )
    reversed_share: float = Field(
        0.3,
        ge=0,
        le=1,
        description="share of the documents of a fact that state it in reversed order too (0 to 1)",
    )
    controls: bool = Field(
        True,
        description="add control sets, about matched entities that no document mentions, or that "
        "documents mention without this fact: what a set would show had nothing been learned",
    )
    untold_docs: int | None = Field(
        None,
        ge=0,
        description="documents that mention each of the latter entities, last in the file "
        "(documents; None: a tenth of docs_per_fact, at least one; 0: none, and no such sets)",
    )
    distractor_docs: int | None = Field(
        None,
        ge=0,
        description="documents of each fact of the world's distractors, which no set asks for "
        "(documents; None: docs_per_fact)",
    )
    held_out_docs: int = Field(
        64,
        ge=0,
        description="further documents of the facts that are kept for nobody to train, so that a "
        "run can tell what it knows from what it knows by heart (documents)",
    )
    seed: int = Field(42, description="seed of documents, few-shot examples and choice of text")
    output: Path | None = Field(
        None,
        description="file to write; by default "
        "datasets/structured_dataset_<world>_<docs_per_fact>[_w_pretrain].json",
    )
    overwrite: bool = Field(False, description="replace an existing output file")

    @field_validator("length")
    @classmethod
    def _can_be_written(cls, length: str) -> str:
        plan_of(length)
        return length


class GenerateArguments(LLMWriterFlags, VarietyFlags, DatasetFlags):
    """What `oocr generate` is asked for."""

    @model_validator(mode="after")
    def _of_the_offline_writer(self) -> GenerateArguments:
        stated = VarietyFlags.model_fields.keys() & self.model_fields_set
        if self.writer == "llm" and stated:
            faults = [f"--{name} goes with --writer offline" for name in sorted(stated)]
            raise ValueError("\n       ".join(faults))
        return self

    def of_the_dataset(self, exclude: set[str]) -> dict[str, Any]:
        offline = self.writer == "offline"
        unused = set() if offline else set(VarietyFlags.model_fields)
        return super().of_the_dataset(exclude | unused)
