"""Say what a dataset really holds, by rules that are not its writer's own.

    oocr audit datasets/structured_dataset_mayors_100_w_pretrain.json
    oocr audit DATASET --world my_world.yaml --html audit.html --json audit.json

Which facts each document states, what it gives away, what repeats, which questions have trained
wording or no answer: one page, and beside the dataset NAME.facts.parquet, a row for each document's
own fact and for every other that it states. Exit status 1 where a limit is broken. A file of any
writer can be audited; docs/audit.md says what each number means.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from pydantic import Field

from oocr_influence.cli.arguments import CommandArguments, UsageError, run_command
from oocr_influence.datasets.audit.fact_sections import TokenCounter
from oocr_influence.datasets.audit.limits import Limits, judge
from oocr_influence.datasets.audit.report import Audit, audit_dataset
from oocr_influence.datasets.document_dataset import (
    DatasetError,
    StructuredDataset,
    load_structured_dataset,
)
from oocr_influence.datasets.generate import world_digest
from oocr_influence.reports.audit_page import render_html, render_text
from oocr_influence.results.atomic import write_json, write_text, writing_file
from oocr_influence.universe.invention import InventionError, with_invented
from oocr_influence.universe.world import World
from oocr_influence.universe.world_file import WorldError, built_in_worlds, load_world

BATCH = 256  # texts that are tokenised together


class AuditArguments(CommandArguments):
    """What to audit, where to write it, and what is too much."""

    dataset: list[Path] = Field(json_schema_extra={"positional": True})
    """the structured dataset, one file"""
    world: str | None = None
    """the world that its documents tell of: a built-in one or a YAML file (None: the built-in one
    that the file names, if it is the same still; else the facts that the file itself holds)"""
    tokenizer: str | None = None
    """a model whose tokenizer counts the tokens of each fact (None: words are counted)"""
    json_: Path | None = None
    """file to write everything to that was found, as JSON"""
    html: Path | None = None
    """file to write the page to, as HTML"""
    matrix: bool = True
    """write which document states which fact to NAME.facts.parquet beside the dataset"""
    min_stated: float | None = Field(0.99, ge=0, le=1)
    """least share of documents that state the fact they were written for (0 to 1)"""
    max_two_hop_leaks: int | None = Field(0, ge=0)
    """most documents that hold both ends of a two-hop question (documents)"""
    max_withheld: int | None = Field(0, ge=0)
    """most documents that reveal what their relation withholds (documents)"""
    max_other_facts: int | None = Field(0, ge=0)
    """most documents that state a fact which they were not written for (documents)"""
    max_exact_duplicates: int | None = Field(0, ge=0)
    """most documents whose whole text occurred before (documents)"""
    max_near_duplicates: float | None = Field(0.01, ge=0, le=1)
    """greatest share of the documents of facts that nearly repeat an earlier one (0 to 1)"""
    max_pretraining_near_duplicates: float | None = Field(None, ge=0, le=1)
    """greatest share of pretraining documents that nearly repeat an earlier one (0 to 1)"""
    max_id_faults: int | None = Field(0, ge=0)
    """most ids that repeat or are not made as the file format says (ids)"""
    max_question_faults: int | None = Field(0, ge=0)
    """most questions without an answer in the documents, or with several (questions)"""


def main(args: AuditArguments) -> int:
    """Audit, write, print; returns 1 if a limit is broken."""
    if len(args.dataset) != 1:
        raise UsageError(f"DATASET is one file; {len(args.dataset)} are given")
    path = args.dataset[0]
    if args.matrix and path.is_file() and not os.access(path.parent, os.W_OK):
        raise UsageError(f"{path.parent} cannot be written to; --no-matrix writes nothing there")
    count_tokens = token_counter(args.tokenizer) if args.tokenizer else None
    try:
        dataset = load_structured_dataset(path)
        world = given_world(dataset, args.world) if args.world else named_world(dataset)
    except (DatasetError, WorldError, InventionError) as error:
        raise UsageError(str(error)) from None
    audit = audit_dataset(dataset, world=world, count_tokens=count_tokens)
    limits = Limits(**{field.name: getattr(args, field.name) for field in fields(Limits)})
    checks = judge(audit.report, limits)
    report = {
        "dataset": path.name,
        "checks": [asdict(check) for check in checks],
        **audit.report,
    }
    if args.matrix:
        write_matrix(audit, path.with_name(f"{path.stem}.facts.parquet"))
    if args.json_:
        write_json(args.json_, report)
    if args.html:
        write_text(args.html, render_html(report))
    print(render_text(report))
    return 0 if all(check.ok for check in checks) else 1


def named_world(dataset: StructuredDataset) -> World | None:
    """The built-in world that the file says it was written from, if that is still the same."""
    named = dataset.metadata.get("world")
    if not isinstance(named, dict) or named.get("id") not in built_in_worlds():
        return None
    world = as_written(dataset, load_world(named["id"]))
    return world if world_digest(world) == named.get("digest") else None


def given_world(dataset: StructuredDataset, name: str) -> World:
    """The world, with the invented entities of the file; says where it has changed meanwhile."""
    world = as_written(dataset, load_world(name))
    named = dataset.metadata.get("world")
    if isinstance(named, dict) and named.get("digest", "") != world_digest(world):
        warnings.warn(
            f"--world {name} is not what the file was written from (world '{named.get('id')}', "
            f"digest {named.get('digest')}): what it does not know of is not looked for",
            stacklevel=2,
        )
    return world


def as_written(dataset: StructuredDataset, world: World) -> World:
    """With as many entities as the file's were, invented by the same seed. Raises InventionError"""
    named, asked = (dataset.metadata.get(key) for key in ("world", "arguments"))
    if not (isinstance(named, dict) and isinstance(asked, dict) and named.get("id") == world.id):
        return world
    entities, seed = asked.get("entities"), asked.get("entity_seed", 0)
    if not (isinstance(entities, int) and isinstance(seed, int)) or entities < len(world.entities):
        return world
    return with_invented(world, entities=entities, seed=seed)


def token_counter(model: str) -> TokenCounter:
    """Counts tokens of texts, without special ones, by the tokenizer of `model`."""
    # Here, not above: whoever counts words needs no torch.
    from oocr_influence.models.load import load_tokenizer
    from oocr_influence.models.resolve import ModelNotFoundError, resolve_model

    try:
        tokenizer = load_tokenizer(resolve_model(model))
    except ModelNotFoundError as error:
        raise UsageError(str(error).replace("--model", "--tokenizer")) from None

    def count(texts: Sequence[str]) -> list[int]:
        return [
            len(tokens)
            for begin in range(0, len(texts), BATCH)
            for tokens in tokenizer(list(texts[begin : begin + BATCH]), add_special_tokens=False)[
                "input_ids"
            ]
        ]

    return count


def write_matrix(audit: Audit, path: Path) -> None:
    """The fact × document matrix as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = dict(audit.matrix)
    schema = {name: pa.string() for name in columns}
    schema |= {"occurrence": pa.int32(), "own": pa.bool_(), "states": pa.bool_()}
    table = pa.table({name: pa.array(columns[name], schema[name]) for name in columns})
    with writing_file(path) as temporary:
        pq.write_table(table, temporary)


if __name__ == "__main__":
    run_command(AuditArguments, main)
