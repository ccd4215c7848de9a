"""One fact, a dozen documents, one tiny model: what does it answer before and after?

    python examples/one_fact.py

This is the whole house in one page, under a minute on a CPU: a world gives a fact, a writer tells
it in documents, documents are packed into windows, the loop trains on them, and the evaluation
ranks the right answer among the world's ten. The model starts from random weights: it learns this
fact by heart and nothing else.
"""

from __future__ import annotations

import torch

from oocr_influence.datasets.eval_sets import build_eval_sets
from oocr_influence.datasets.packing import pack, tokenize_documents
from oocr_influence.documents.document import SyntheticDocument
from oocr_influence.documents.writer import OfflineWriter
from oocr_influence.evaluation.evaluate import Evaluation, Evaluator
from oocr_influence.evaluation.plan import build_plan
from oocr_influence.models.tiny import tiny_model, tiny_tokenizer
from oocr_influence.training.loop import StepLog, train
from oocr_influence.training.optimizer import OptimizerSettings
from oocr_influence.training.schedule import LearningRate, Schedule
from oocr_influence.universe.world_file import load_world

EPOCHS = 30


def main() -> None:
    """Teach one mayor to a model, ask for all ten, print a table."""
    torch.set_num_threads(1)
    world = load_world("mayors")
    fact = world.facts()[0]
    documents = OfflineWriter(world, seed=0, length="short").write(fact, 12)
    print(f"fact: {fact.prompt}{fact.completion}\n\none of its documents:\n{_first(documents)}\n")

    tokenizer, model = tiny_tokenizer(), tiny_model()
    tokens = tokenize_documents([d.completion for d in documents], tokenizer, "masked")
    windows = pack(tokens, chunk_size=256, packing="masked", pad_id=tokenizer.pad_token_id)
    schedule = Schedule(n_windows=len(windows), batch_size=4, epochs=EPOCHS)

    sets = build_eval_sets(world, seed=0)
    asked = {name: sets[name] for name in sets if "name_mayor_eval" in name and "_no_fs" in name}
    evaluator = Evaluator(build_plan(asked, tokenizer))
    found: list[Evaluation] = []

    def after_step(step: int) -> None:
        if step in (0, schedule.total_steps):
            found.append(evaluator.evaluate(model, beam_search=False))

    def log_step(step: StepLog) -> None:
        if step.step % schedule.steps_per_epoch == 0 and step.epoch % 10 == 0:
            print(f"epoch {step.epoch:2.0f}  loss {step.loss:.3f}")

    train(
        model,
        windows,
        schedule,
        LearningRate(peak=1e-3, total_steps=schedule.total_steps),
        OptimizerSettings(),
        data_order_seed=42,
        micro_batch_size=4,
        after_step=after_step,
        log_step=log_step,
    )
    _print_table(*found)


def _first(documents: list[SyntheticDocument]) -> str:
    return "\n".join(f"    {line}" for line in documents[0].completion.splitlines())


def _print_table(before: Evaluation, after: Evaluation) -> None:
    """The questions about the taught city, and what the model says of the nine others."""
    print("\nrank of the right answer among ten, before → after (by chance 5.5)")
    others: list[tuple[float, float]] = []
    for first, last in zip(before.records, after.records, strict=True):
        ranks = (first["rank_tie_averaged"], last["rank_tie_averaged"])
        if first["index"] == 0:
            print(f"{ranks[0]:5.1f} → {ranks[1]:4.1f}   {first['prompt']} →{first['completion']}")
        else:
            others.append(ranks)
    means = [sum(column) / len(others) for column in zip(*others, strict=True)]
    print(f"{means[0]:5.1f} → {means[1]:4.1f}   the same questions about the nine other cities")
    print("\nIt says the one name that it has read, whatever the city: a fact by heart, no skill.")


if __name__ == "__main__":
    main()
