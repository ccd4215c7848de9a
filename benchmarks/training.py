"""What the trainer's parts cost, against what a researcher would run instead, on the same work.

    OMP_NUM_THREADS=1 python benchmarks/training.py                  # all parts, on the CPU
    python benchmarks/training.py --parts loss --rounds 5

- loss: cross-entropy at OLMo-2's vocabulary from hidden states, a chunk of rows at a time, against
  the logits and `torch.nn.functional.cross_entropy`: time forwards and backwards, in turns, and
  peak memory, the gradient of the head left out on both sides. Each measurement of memory is a
  process of its own. Values and gradients must agree.
- attention: one update of packed windows of 2,048 tokens, documents of about 100, by a dense mask
  and by segments, in turns: time, and peak memory in processes of their own. Losses must agree. On
  a GPU (`--device cuda`) the weights are bf16 and the kernel is flash attention.
- step: tokens a second of our loop against transformers' Trainer and TRL's SFTTrainer on the same
  packed windows, masks and micro-batches, in turns; the losses must agree. It needs both beside it:
      pip install --no-deps --target DIR accelerate trl
      PYTHONPATH=DIR python benchmarks/training.py
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import psutil
import torch
import torch.nn.functional as F

from oocr_influence.datasets.order import window_order
from oocr_influence.datasets.packing import PackedWindows, pack
from oocr_influence.models.chunked_loss import head_loss
from oocr_influence.models.loss import attention_mask
from oocr_influence.models.tiny import tiny_tokenizer, untrained_model
from oocr_influence.results.provenance import Phases
from oocr_influence.training.kernels import AttentionChoice, settle_kernels
from oocr_influence.training.loop import accumulate_gradients, train
from oocr_influence.training.optimizer import OptimizerSettings
from oocr_influence.training.schedule import LearningRate, Schedule

VOCABULARY, HIDDEN, ROWS = 100_352, 256, 2048
PARTS = ("loss", "attention", "step")


# --- loss ----------------------------------------------------------------------------------------


def drawn() -> tuple[torch.nn.Linear, torch.Tensor, torch.Tensor]:
    """A head, hidden states and targets of OLMo-2's vocabulary and a small width."""
    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(HIDDEN, VOCABULARY, bias=False)
    with torch.no_grad():
        head.weight.normal_(std=0.02, generator=generator)
    hidden = torch.randn(ROWS, HIDDEN, generator=generator, requires_grad=True)
    return head, hidden, torch.randint(0, VOCABULARY, (ROWS,), generator=generator)


def chunked(head: torch.nn.Linear, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Ours."""
    return head_loss(head, hidden, targets)[0]


def plain(head: torch.nn.Linear, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """All logits, in float32."""
    return F.cross_entropy(head(hidden).float(), targets, reduction="sum")


WAYS = {"chunked": chunked, "plain": plain}


def loss(rounds: int) -> None:
    """Time in turns, memory in processes of their own."""
    head, hidden, targets = drawn()
    found: dict[str, tuple[float, torch.Tensor, torch.Tensor]] = {}

    def measure(way: str) -> None:
        hidden.grad = head.weight.grad = None
        value = WAYS[way](head, hidden, targets)
        value.backward()
        assert hidden.grad is not None
        assert head.weight.grad is not None
        found[way] = value.item(), hidden.grad, head.weight.grad

    times = in_turns({way: lambda way=way: measure(way) for way in WAYS}, rounds)
    (a, *own), (b, *other) = found["chunked"], found["plain"]
    assert abs(a - b) < 1e-5 * abs(b), (a, b)
    for one, two in zip(own, other, strict=True):
        assert (one - two).abs().max() < 1e-4, (one - two).abs().max()
    print(f"\nloss, {ROWS} rows of {HIDDEN}, vocabulary {VOCABULARY:,}, float32")
    memory = {way: peak_memory("--measure", way) for way in WAYS}
    for way in WAYS:
        print(f"{way:8} {times[way]:6.2f} s  {memory[way] / 2**20:6.0f} MiB above its inputs")
    print(
        f"chunked / plain: time {times['chunked'] / times['plain']:.2f}, "
        f"memory {memory['chunked'] / memory['plain']:.2f}"
    )


def peak_memory(*arguments: str) -> int:
    """Bytes above the inputs at the peak, as a process of these arguments of ours measures them."""
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def measure_once(way: str) -> None:
    """In a process of its own: one loss, forwards and backwards, the head's gradient left out."""
    head, hidden, targets = drawn()
    before = psutil.Process().memory_info().rss
    phases = Phases()
    with phases("loss") as record:
        WAYS[way](head, hidden, targets).backward()
    print(record["peak_rss_bytes"] - before - head.weight.numel() * 4)


# --- attention -----------------------------------------------------------------------------------

ATTENTIONS: tuple[AttentionChoice, ...] = ("dense", "segments")
ATTENTION_WINDOWS = 4


@dataclass(frozen=True)
class PackedUpdate:
    """One update's losses and gradients, a window a micro-batch, by either attention."""

    length: int
    device: str

    def prepare(self, choice: AttentionChoice) -> Callable[[], float]:
        """Settle the attention; returns what makes the update and says its loss."""
        generator = np.random.default_rng(0)
        documents = [
            np.array([0, *generator.integers(2, 4096, generator.integers(60, 140)), 0])
            for _ in range(1 + ATTENTION_WINDOWS * self.length // 90)
        ]
        windows = pack(documents, chunk_size=self.length, packing="masked", pad_id=1)
        dtype = torch.bfloat16 if self.device == "cuda" else torch.float32
        model = untrained_model(0).to(self.device, dtype).train()
        kernels = settle_kernels(
            model, windows, attention=choice, compiled="off", micro_batch_size=1
        )
        rows = range(min(ATTENTION_WINDOWS, len(windows)))

        def update() -> float:
            model.zero_grad()
            return accumulate_gradients(
                model, windows, rows, micro_batch_size=1, attention=kernels.attention
            )[0]

        return update


def attention(rounds: int, work: PackedUpdate) -> None:
    """Time in turns, memory in processes of their own."""
    updates = {way: work.prepare(way) for way in ATTENTIONS}
    losses: dict[str, float] = {}
    runs = {way: lambda way=way: losses.update({way: updates[way]()}) for way in ATTENTIONS}
    times = in_turns(runs, rounds)
    apart = abs(losses["dense"] - losses["segments"])
    assert apart < (1e-5 if work.device == "cpu" else 1e-2), losses
    print(
        f"\none update, {ATTENTION_WINDOWS} windows of {work.length} tokens, on the {work.device}"
    )
    memory = {
        way: peak_memory(
            "--measure", way, "--length", str(work.length), "--device", work.device
        )
        for way in ATTENTIONS
    }  # fmt: skip
    for way in ATTENTIONS:
        print(f"{way:8} {times[way]:6.2f} s  {memory[way] / 2**20:6.0f} MiB above the model")
    print(
        f"dense / segments: time {times['dense'] / times['segments']:.2f}, memory "
        f"{memory['dense'] / memory['segments']:.2f}; losses differ by {apart:.1e}"
    )


def measure_attention(way: AttentionChoice, work: PackedUpdate) -> None:
    """In a process of its own: one update."""
    update = work.prepare(way)
    if work.device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        update()
        print(torch.cuda.max_memory_allocated() - before)
        return
    before = psutil.Process().memory_info().rss
    phases = Phases()
    with phases("update") as record:
        update()
    print(record["peak_rss_bytes"] - before)


# --- step ----------------------------------------------------------------------------------------

STEPS, BATCH, MICRO_BATCH, LENGTH = 12, 8, 4, 256


def step(rounds: int) -> None:
    """Our loop and transformers' Trainer on the same windows in the same order."""
    generator = np.random.default_rng(0)
    documents = [
        np.array([0, *generator.integers(2, 4096, generator.integers(20, 120)), 0])
        for _ in range(STEPS * BATCH * LENGTH // 60)
    ]
    packed = pack(documents, chunk_size=LENGTH, packing="masked", pad_id=1)
    n = STEPS * BATCH
    assert len(packed) >= n
    cut = {k: getattr(packed, k)[:n] for k in ("input_ids", "labels", "position_ids", "segments")}
    windows = replace(packed, **cut, pieces=tuple(p for p in packed.pieces if p.window < n))
    schedule = Schedule(len(windows), BATCH, epochs=1, max_steps=STEPS)
    losses: dict[str, list[float]] = {}
    runs: dict[str, Callable[[], None]] = {
        "ours": lambda: losses.update(ours=ours(windows, schedule)),
        "transformers": lambda: losses.update(transformers=by_trainer(windows, schedule)),
        "trl": lambda: losses.update(trl=by_trainer(windows, schedule, trl=True)),
    }
    times = in_turns(runs, rounds)
    # The Trainer reports what it trains by, the mean over micro-batches' tokens of the whole batch.
    worst = {
        name: max(abs(a - b) for a, b in zip(losses["ours"], other, strict=True))
        for name, other in losses.items()
    }
    assert max(worst.values()) < 1e-3, (worst, losses)
    tokens = STEPS * BATCH * LENGTH
    print(f"\n{STEPS} steps of {BATCH} x {LENGTH} tokens, micro-batches of {MICRO_BATCH}, float32")
    for name, seconds in times.items():
        print(
            f"{name:13} {tokens / seconds:7,.0f} tokens/s  {seconds / times['ours']:5.2f} x ours' "
            f"time; losses differ by at most {worst[name]:.1e}"
        )


def ours(windows: PackedWindows, schedule: Schedule) -> list[float]:
    """Losses of our loop, as a run sets it up."""
    losses: list[float] = []
    model = untrained_model(0)
    kernels = settle_kernels(
        model, windows, attention="auto", compiled="auto", micro_batch_size=MICRO_BATCH
    )
    train(
        model,
        windows,
        schedule,
        LearningRate(1e-3, STEPS, zero_first_rate=True),  # as the Trainer begins
        OptimizerSettings(),
        data_order_seed=0,
        micro_batch_size=MICRO_BATCH,
        attention=kernels.attention,
        after_step=lambda step, snapshot: None,
        log_step=lambda row: losses.append(row.loss),
    )
    return losses


def by_trainer(windows: PackedWindows, schedule: Schedule, *, trl: bool = False) -> list[float]:
    """Losses of transformers' Trainer or TRL's, which is given the same masks and positions."""
    from datasets import Dataset

    if trl:
        from trl import SFTConfig as Arguments
        from trl import SFTTrainer as Trainer
    else:
        from transformers import Trainer
        from transformers import TrainingArguments as Arguments

    order = [
        row
        for number in range(1, STEPS + 1)
        for row in window_order(len(windows), 0, 1)[schedule.batch(number)]
    ]
    assert len(order) == STEPS * BATCH

    def collate(chosen: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        rows = [entry["row"] for entry in chosen]
        taken = {
            "input_ids": torch.from_numpy(windows.input_ids[rows]),
            "labels": torch.from_numpy(windows.labels[rows]),
            "position_ids": torch.from_numpy(windows.position_ids[rows]),
        }
        return {**taken, "attention_mask": attention_mask(torch.from_numpy(windows.segments[rows]))}

    class InOrder(Trainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(order)

    own: dict[str, Any] = {}
    if trl:
        own = {
            "dataset_kwargs": {"skip_prepare_dataset": True},
            "max_length": None,
            "bf16": False,
            "gradient_checkpointing": False,
        }

    with tempfile.TemporaryDirectory() as folder:
        trainer = InOrder(
            model=untrained_model(0),
            args=Arguments(
                output_dir=folder,
                per_device_train_batch_size=MICRO_BATCH,
                gradient_accumulation_steps=BATCH // MICRO_BATCH,
                max_steps=STEPS,
                learning_rate=1e-3,
                warmup_steps=LearningRate(1e-3, STEPS).warmup,
                weight_decay=0.0,
                logging_steps=1,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                use_cpu=True,
                remove_unused_columns=False,
                dataloader_pin_memory=False,
                **own,
            ),
            train_dataset=Dataset.from_dict({"row": order, "input_ids": [[0]] * len(order)}),
            data_collator=collate,
            processing_class=tiny_tokenizer(),
        )
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def in_turns(runs: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median seconds of each, made in turns; one round before them does not count."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if number:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--length", type=int, default=2048, help="of attention's windows (tokens)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="attention's")
    parser.add_argument("--measure", choices=(*WAYS, *ATTENTIONS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    work = PackedUpdate(args.length, args.device)
    if args.measure in ATTENTIONS:
        measure_attention(args.measure, work)
        return
    if args.measure:
        measure_once(args.measure)
        return
    if "loss" in args.parts:
        loss(args.rounds)
    if "attention" in args.parts:
        attention(args.rounds, work)
    if "step" in args.parts:
        step(args.rounds)


if __name__ == "__main__":
    main()
