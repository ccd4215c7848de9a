"""Five facts, ten documents each, one tiny model: what does it answer before and after?

    python examples/five_facts.py

This is the whole house in one page, under a minute on a CPU: a world gives facts, a writer tells
them in documents, documents are packed into windows, the loop trains on them, and the evaluation
ranks the right answer among the world's ten. Five of the ten mayors are told; the model is asked
about all of them, in words that no document uses.
"""

from __future__ import annotations

from collections import defaultdict

import torch

from oocr_influence.datasets.eval_sets import build_eval_sets
from oocr_influence.datasets.packing import pack, tokenize_documents
from oocr_influence.documents.writer import OfflineWriter
from oocr_influence.evaluation.evaluate import Evaluation, Evaluator
from oocr_influence.evaluation.plan import build_plan
from oocr_influence.models.load import load_model, load_tokenizer
from oocr_influence.models.resolve import resolve_model
from oocr_influence.training.loop import Snapshot, StepLog, train
from oocr_influence.training.optimizer import OptimizerSettings
from oocr_influence.training.schedule import LearningRate, Schedule
from oocr_influence.universe.world_file import load_world

TOLD = 5
DOCUMENTS_A_FACT = 10
EPOCHS = 8


def main() -> None:
    """Tell five mayors to a model, ask about all ten, print a table."""
    torch.set_num_threads(1)
    world = load_world("mayors")
    writer = OfflineWriter(world, seed=0, length="short")
    facts = world.facts()[:TOLD]
    texts = [d.completion for fact in facts for d in writer.write(fact, DOCUMENTS_A_FACT)]
    print(f"one of the documents:\n\n{_indented(texts[0])}\n")

    resolved = resolve_model("olmo2-tiny")
    tokenizer, model = load_tokenizer(resolved), load_model(resolved)
    tokens = tokenize_documents(texts, tokenizer, "masked")
    windows = pack(tokens, chunk_size=256, packing="masked", pad_id=tokenizer.pad_token_id)
    schedule = Schedule(n_windows=len(windows), batch_size=4, epochs=EPOCHS)

    sets = build_eval_sets(world, seed=0)
    asked = {name: sets[name] for name in sets if "name_mayor_eval" in name and "_no_fs" in name}
    evaluator = Evaluator(build_plan(asked, tokenizer))
    found: list[Evaluation] = []

    def after_step(step: int, _: Snapshot) -> None:
        if step in (0, schedule.total_steps):
            found.append(evaluator.evaluate(model, beam_search=False))

    def log_step(step: StepLog) -> None:
        if step.step % schedule.steps_per_epoch == 0:
            print(f"epoch {step.epoch:.0f}  loss {step.loss:.3f}")

    train(
        model,
        windows,
        schedule,
        LearningRate(peak=3e-3, total_steps=schedule.total_steps),
        OptimizerSettings(),
        data_order_seed=42,
        micro_batch_size=4,
        after_step=after_step,
        log_step=log_step,
    )
    _print_table(*found)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _print_table(before: Evaluation, after: Evaluation) -> None:
    """A row a wording: told and untold cities apart."""
    ranks: dict[str, dict[bool, list[tuple[float, float]]]] = {}
    for first, last in zip(before.records, after.records, strict=True):
        wording = ranks.setdefault(first["set"], defaultdict(list))
        pair = (first["rank_tie_averaged"], last["rank_tie_averaged"])
        wording[first["index"] < TOLD].append(pair)
    examples = {row["set"]: row for row in reversed(before.records) if row["index"] == 0}
    print("\nmean rank of the right answer among ten, before → after (by chance 5.5)")
    print("told          not told")
    for name, groups in ranks.items():
        print(f"{_change(groups[True])}   {_change(groups[False])}   {examples[name]['prompt']}")
    everything = [
        [pair for groups in ranks.values() for pair in groups[told]] for told in (True, False)
    ]
    print(f"{_change(everything[0])}   {_change(everything[1])}   all of them")


def _change(pairs: list[tuple[float, float]]) -> str:
    first, last = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
    return f"{first:4.1f} → {last:4.1f}"


if __name__ == "__main__":
    main()
