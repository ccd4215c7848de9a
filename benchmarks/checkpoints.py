"""What saving, going on and starting cost a run, against what a researcher would run instead.

    OMP_NUM_THREADS=1 python benchmarks/checkpoints.py              # on the CPU
    python benchmarks/checkpoints.py --parts stall --rounds 5

- stall: how long training stands still for a checkpoint that is written under an evaluation, and
  for one that is written under the next update alone, against a blocking `save_pretrained` of the
  same model in the same process, in turns.
- resume: what an interruption costs: the seconds that a run of two processes takes beyond those of
  one, and how many of them go into what. Both end with the same weights.
- start: from the start of the process to the first update: `oocr train_extractive` and a script
  that trains the same model on the same documents with transformers alone.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from oocr_influence.cli.generate import main as generate
from oocr_influence.cli.generate_options import GenerateArguments
from oocr_influence.cli.one_run import run_once
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.run_context import Control, RunStopped
from oocr_influence.cli.run_saving import RunSaving
from oocr_influence.datasets.document_dataset import (
    load_structured_dataset,
    save_structured_dataset,
)
from oocr_influence.models.load import save_checkpoint
from oocr_influence.models.tiny import tiny_tokenizer, untrained_model
from oocr_influence.results.checkpoints import same_weights
from oocr_influence.results.run_folder import RunFolder

PARTS = ("stall", "resume", "start")
WIDE = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8}
STEPS = 8


def made(folder: Path) -> tuple[Path, Path]:
    """A dataset with a dozen sets of questions, and a model of random weights."""
    dataset, model = folder / "facts.json", folder / "model"
    generate(
        GenerateArguments(
            world="mayors", docs_per_fact=8, pretraining_docs=0, length="short", output=dataset
        )
    )
    whole = load_structured_dataset(dataset)
    names = list(whole.eval_dataset_builders)[::20]
    asked = {name: whole.eval_dataset_builders[name] for name in names}
    save_structured_dataset(whole.model_copy(update={"eval_dataset_builders": asked}), dataset)
    save_checkpoint(
        untrained_model(0, num_attention_heads=8, num_key_value_heads=8, **WIDE),
        tiny_tokenizer(),
        model,
    )
    return dataset, model


def arguments(dataset: Path, model: Path, output: Path, **changes: Any) -> TrainingArgs:
    """A run of a few updates; it saves and asks at every second one."""
    given: dict[str, Any] = {
        "structured_dataset": dataset,
        "model": str(model),
        "output_dir": output,
        "n_pretraining_examples": 0,
        "chunk_size": 256,
        "batch_size": 4,
        "micro_batch_size": 4,
        "max_steps": STEPS,
        "epochs": 10,
        "epochs_per_save": None,
        "steps_per_save": 2,
        "epochs_per_eval": None,
        "steps_per_eval": 2,
        "beam_search": "never",
        "n_loss_documents": 0,
        "save_state": False,
    }
    return TrainingArgs(**{**given, **changes})


# --- stall ---------------------------------------------------------------------------------------


def stall(dataset: Path, model: Path, folder: Path, rounds: int) -> None:
    """Seconds a checkpoint, of those that are neither the first nor linked."""
    ways: dict[str, Callable[[int], list[float]]] = {
        "under an evaluation": lambda n: stalls(arguments(dataset, model, folder / f"a{n}")),
        "under the next update": lambda n: stalls(
            arguments(dataset, model, folder / f"b{n}", steps_per_eval=None)
        ),
        "save_pretrained": lambda n: blocking(model, folder / f"c{n}"),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            seconds = way(number)
            found[name] += seconds if number else []
    size = (model / "model.safetensors").stat().st_size
    print(f"\nstall of a checkpoint of {size / 1e6:,.0f} MB, median (most) seconds")
    base = statistics.median(found["save_pretrained"])
    for name, seconds in found.items():
        middle = statistics.median(seconds)
        share = f"{100 * middle / base:6.1f} % of it" if name != "save_pretrained" else ""
        print(f"{name:22} {middle:7.4f} ({max(seconds):.4f}) {share}")


def stalls(args: TrainingArgs) -> list[float]:
    """How long each checkpoint kept training: what begins it, and the wait before the update."""
    waited: list[float] = []
    begin, fence = RunSaving.after_step, RunSaving.fence

    def timed(own: Callable[..., None], new: bool) -> Callable[..., None]:
        def call(saving: RunSaving, *given: Any, **named: Any) -> None:
            writes = not new and saving._pending is not None
            began = time.perf_counter()
            own(saving, *given, **named)
            seconds = time.perf_counter() - began
            if new and saving._pending is not None:
                waited.append(seconds)
            elif writes:
                waited[-1] += seconds

        return call

    RunSaving.after_step = timed(begin, new=True)  # type: ignore[method-assign]
    RunSaving.fence = timed(fence, new=False)  # type: ignore[method-assign]
    try:
        run_once(args)
    finally:
        RunSaving.after_step, RunSaving.fence = begin, fence  # type: ignore[method-assign]
        shutil.rmtree(args.output_dir)
    assert len(waited) == STEPS // 2, waited
    return waited


def blocking(source: Path, folder: Path) -> list[float]:
    """Seconds of `save_pretrained`, flushed to the disk as ours is, weights and tokenizer."""
    from transformers import AutoModelForCausalLM

    model, tokenizer = AutoModelForCausalLM.from_pretrained(source), tiny_tokenizer()
    seconds = []
    for number in range(STEPS // 2):
        began = time.perf_counter()
        save_checkpoint(model, tokenizer, folder / str(number))
        subprocess.run(["sync", "-d", folder / str(number) / "model.safetensors"], check=True)
        seconds.append(time.perf_counter() - began)
    shutil.rmtree(folder)
    return seconds


# --- resume --------------------------------------------------------------------------------------


def resume(dataset: Path, model: Path, folder: Path, rounds: int) -> None:
    """The price of one interruption, in processes of their own."""
    extra, whole_seconds = [], []
    for number in range(rounds):
        base = {"save_state": True, "steps_per_eval": None}
        whole = arguments(dataset, model, folder / f"whole{number}", **base)
        parts = arguments(dataset, model, folder / f"parts{number}", **base)
        seconds, one = timed_run(whole)
        first, other = timed_run(parts, stop_after=STEPS // 2)
        second, _ = timed_run(parts, unfinished=other)
        last = [RunFolder(run).checkpoint("final") for run in (one, other)]
        assert same_weights(*last), "an interruption changed the weights"
        extra.append(first + second - seconds)
        whole_seconds.append(seconds)
        for run in (one, other):
            shutil.rmtree(run)
    print(f"\none interruption of a run of {STEPS} updates, process starts and imports counted in")
    print(
        f"whole {statistics.median(whole_seconds):.1f} s; in two parts "
        f"{statistics.median(extra):+.1f} s; the same weights"
    )


def timed_run(
    args: TrainingArgs, *, stop_after: int = 0, unfinished: Path | None = None
) -> tuple[float, Path]:
    """Seconds of a process that trains this run, and the run."""
    request = json.dumps([args.model_dump(mode="json"), stop_after, str(unfinished or "")])
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, "--train", request], capture_output=True, text=True, check=True
    )
    return time.perf_counter() - began, Path(done.stdout.splitlines()[-1])


def train(request: str) -> None:
    """In a process of its own: one run, or its part."""
    given, stop_after, unfinished = json.loads(request)
    made_updates = 0

    def report(values: Any) -> None:
        nonlocal made_updates
        made_updates += "tok/s" in values["message"]

    control = Control(report, stop_requested=lambda: 0 < stop_after <= made_updates)
    folder = RunFolder(Path(unfinished)) if unfinished else None
    try:
        print(run_once(TrainingArgs.model_validate(given), control, unfinished=folder)["run"])
    except RunStopped as stopped:
        print(stopped.folder)


# --- start ---------------------------------------------------------------------------------------

BY_TRANSFORMERS = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
torch.set_num_threads(1)
dataset, folder = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
docs = json.load(open(dataset))["document_dataset"]["docs"]
tokens = [token for doc in docs for token in tokenizer(str(doc["completion"])).input_ids]
batch = torch.tensor(tokens[: 4 * 256]).view(4, 256)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
model(batch, labels=batch).loss.backward()
optimizer.step()
"""


def start(dataset: Path, model: Path, folder: Path, rounds: int) -> None:
    """Seconds from the start of the process to the end of the first update."""
    ours, theirs = [], []
    for number in range(rounds + 1):
        began = time.perf_counter()
        output = folder / f"start{number}"
        args = arguments(
            dataset, model, output, max_steps=1, eval_first_step=False, eval_final_step=False
        )
        process = subprocess.Popen(
            [
                sys.executable,
                __file__,
                "--train",
                json.dumps([args.model_dump(mode="json"), 0, ""]),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not any(log.stat().st_size for log in output.glob("*/saved_objects/steps.jsonl")):
            time.sleep(0.01)
        first = time.perf_counter() - began
        process.wait()
        began = time.perf_counter()
        command = [sys.executable, "-c", BY_TRANSFORMERS, str(dataset), str(model)]
        subprocess.run(command, check=True, capture_output=True)
        if number:  # the first round fills the disk's cache, and ours
            ours.append(first)
            theirs.append(time.perf_counter() - began)
    print("\nfrom the start of the process to the first update")
    print(f"ours                 {statistics.median(ours):5.1f} s  (packs, records, saves a start)")
    print(f"transformers, alone  {statistics.median(theirs):5.1f} s")


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--train", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if args.train:
        train(args.train)
        return
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as name:
        dataset, model = made(Path(name))
        for part in args.parts:
            {"stall": stall, "resume": resume, "start": start}[part](
                dataset, model, Path(name), args.rounds
            )


if __name__ == "__main__":
    main()
