"""Write a structured dataset: a world's facts told in documents, pretraining text, eval sets.

    oocr generate --world mayors --docs_per_fact 100 --pretraining_docs 11000

writes datasets/structured_dataset_mayors_100_w_pretrain.json, and beside it a table of what each
set asks. Without further flags the pretraining text is the documentation inside Python's standard
library and, where that is too little, numpy: short texts that every machine has, for
demonstrations. Name your own with --pretraining_source.

    oocr generate --writer llm --llm_model gpt-4.1-mini --price_in 0.4 --price_out 1.6 --max_cost 20

has a language model write the documents instead, and checks them: docs/llm_writer.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from oocr_influence.cli.arguments import UsageError, run_command
from oocr_influence.cli.generate_options import GenerateArguments
from oocr_influence.cli.generate_summary import summary
from oocr_influence.cli.llm_writing import Assignment, check_cost, llm_writer, report
from oocr_influence.cli.pretraining_options import pretraining_text
from oocr_influence.datasets.document_dataset import StructuredDataset, save_structured_dataset
from oocr_influence.datasets.eval_sets import eval_set_table
from oocr_influence.datasets.generate import document_orders, generate_dataset
from oocr_influence.documents.pretraining import PretrainingTextError
from oocr_influence.documents.telling import WriterError
from oocr_influence.universe.invention import InventionError, with_invented
from oocr_influence.universe.world import World
from oocr_influence.universe.world_file import WorldError, load_world


def main(args: GenerateArguments) -> int:
    """Generate, write, say what was written."""
    try:
        world = sized_world(args.world, args.entities, args.entity_seed)
        output = args.output or default_output(
            world.id, args.docs_per_fact, args.wants_pretraining()
        )
        if output.exists() and not args.overwrite:
            raise UsageError(f"{output} exists; --overwrite replaces it, --output writes elsewhere")
        assignment = _assignment(args, world)
        if args.writer == "llm":
            check_cost(assignment)
            if args.dry_run:
                return 0
        text = pretraining_text(args, world, args.seed)
        generate = partial(
            generate_dataset,
            world,
            docs_per_fact=args.docs_per_fact,
            seed=args.seed,
            pretraining=text,
            length=args.length,
            reversed_share=args.reversed_share,
            controls=args.controls,
            untold_docs=_untold_docs(args),
            distractor_docs=_distractor_docs(args),
            held_out_docs=args.held_out_docs,
            # Where the file lies is no part of what it is: the same file has the same bytes.
            arguments=args.of_the_dataset(exclude={"output", "overwrite"}),
        )
        dataset, status = _written(args, assignment, generate)
    except (WorldError, InventionError, WriterError, PretrainingTextError) as error:
        raise UsageError(str(error)) from None
    save_structured_dataset(dataset, output)
    table = output.with_suffix(".eval_sets.md")
    table.write_text(eval_set_table(dataset.eval_dataset_builders), encoding="utf-8")
    print(summary(dataset, output, table))
    return status


def _assignment(args: GenerateArguments, world: World) -> Assignment:
    return Assignment(
        world=world,
        orders=document_orders(
            world,
            docs_per_fact=args.docs_per_fact,
            held_out_docs=args.held_out_docs,
            untold_docs=_untold_docs(args),
            distractor_docs=_distractor_docs(args),
        ),
        flags=args,
        seed=args.seed,
        length=args.length,
        reversed_share=args.reversed_share,
    )


def _written(
    args: GenerateArguments, assignment: Assignment, generate: Callable[..., StructuredDataset]
) -> tuple[StructuredDataset, int]:
    """The dataset by whoever writes it, and the exit status."""
    if args.writer == "offline":
        return generate(variety=args.variety), 0
    with llm_writer(assignment) as writer:
        dataset = generate(writer=writer)
    return dataset, report(writer, assignment)


def sized_world(name: str, entities: int | None, seed: int) -> World:
    """The world, with invented entities up to the number asked for; says what that leaves out.

    Raises WorldError or InventionError.
    """
    world = load_world(name)
    if entities is None:
        return world
    if entities < len(world.entities):
        raise InventionError(
            f"--entities {entities}: world '{world.id}' has {len(world.entities)} of its own"
        )
    sized = with_invented(world, entities=entities, seed=seed)
    left_out = [hop for hop in world.two_hops if hop not in sized.two_hops]
    if left_out:
        print(
            f"two-hop questions left out, since no document tells what joins their facts for an "
            f"invented entity: {', '.join(left_out)}"
        )
    return sized


def default_output(world: str, docs_per_fact: int, pretraining_docs: int) -> Path:
    """The name that the experiments' commands expect."""
    ending = "_w_pretrain" if pretraining_docs else ""
    return Path("datasets") / f"structured_dataset_{world}_{docs_per_fact}{ending}.json"


def _untold_docs(args: GenerateArguments) -> int:
    if not args.controls:
        return 0
    return max(1, args.docs_per_fact // 10) if args.untold_docs is None else args.untold_docs


def _distractor_docs(args: GenerateArguments) -> int:
    return args.docs_per_fact if args.distractor_docs is None else args.distractor_docs


if __name__ == "__main__":
    run_command(GenerateArguments, main)
