"""OLMo-2-7B on one 80 GB card: speed, memory, stalls, and from these the published run's hours.

    python benchmarks/training_gpu.py            # under nine minutes on an H100; 32 GB of disk
    python benchmarks/training_gpu.py --tiny     # the same on a small model, on any device

Weights are random, of OLMo-2-1124-7B's shape; documents of some 90 tokens in windows of 2048,
batches of 8. Every part is a process of its own that may use 79.6 GiB.

- ours: the loop of `training/loop.py`, as a run calls it.
- eager: the same windows, masks and updates with transformers' own forward pass and loss, and
  fused AdamW.
- earlier: eager with micro-batches of one window and AdamW over lists of tensors, and a checkpoint
  that is written while nothing else happens.
- checkpoint: ours, written under an evaluation's passes: what the next update waits, and by how
  much the passes are slower meanwhile. Then a third of a training state, which a run writes before
  each checkpoint between its ends: `state` is three times its seconds.
- evaluation: 98 sets of ten questions, as at every fifth of an epoch; the tokenizer is the built-in
  one, whose tokens are shorter than OLMo-2's.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from oocr_influence.datasets.order import window_order
from oocr_influence.datasets.packing import PackedWindows, pack
from oocr_influence.models.loss import attention_mask
from oocr_influence.models.norms import fuse_rms_norms
from oocr_influence.models.streaming import CheckpointLayout, stream_checkpoint
from oocr_influence.models.tiny import tiny_config, tiny_tokenizer
from oocr_influence.results.atomic import writing_file, writing_folder
from oocr_influence.training.kernels import settle_kernels
from oocr_influence.training.loop import StepLog, to_device, train
from oocr_influence.training.optimizer import OptimizerSettings
from oocr_influence.training.schedule import LearningRate, Schedule

CAP_BYTES = 79.6 * 2**30
H100_FLOPS = 989e12  # bf16, dense
BATCH, LENGTH, STEPS = 8, 2048, 8
SEED_STEPS, SEED_EVALUATIONS, SEED_CHECKPOINTS = 209, 6, 6
PARTS = ("ours", "eager", "earlier", "checkpoint", "evaluation")
WIDE = {
    "vocab_size": 100_352,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
}
SMALL = {**WIDE, "vocab_size": 8192, "hidden_size": 128, "intermediate_size": 256}
SMALL |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4}


class Setting:
    """The model's shape and where it is trained."""

    def __init__(self, *, tiny: bool) -> None:
        self.shape = SMALL if tiny else WIDE
        self.length = 256 if tiny else LENGTH
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self.device.type == "cpu" and not tiny:
            sys.exit("error: no GPU is visible; --tiny runs the same on a small model")

    def cap(self) -> str:
        """Take no more than CAP_BYTES from now on; returns what this runs on.

        For a part's own process: whoever asks a GPU anything holds half a GiB of it.
        """
        if self.device.type == "cpu":
            return "CPU"
        total = torch.cuda.get_device_properties(self.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, CAP_BYTES / total))
        return torch.cuda.get_device_name()

    def model(self, *, fused: bool) -> Any:
        """bf16 on a GPU; `fused` as a run loads it."""
        from transformers import AutoModelForCausalLM

        torch.manual_seed(0)
        config = tiny_config(**self.shape)
        config._attn_implementation = "sdpa"
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        with self.device:
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        if fused and self.device.type == "cuda":
            fuse_rms_norms(model)
        return model

    def windows(self) -> PackedWindows:
        """As many as the updates take, full of documents of 40 to 140 tokens."""
        draw = np.random.default_rng(0)
        documents = [
            np.array([0, *draw.integers(2, 4096, draw.integers(40, 140)), 0])
            for _ in range(int(1.15 * STEPS * BATCH * self.length / 90))
        ]
        packed = pack(documents, chunk_size=self.length, packing="masked", pad_id=1)
        n = STEPS * BATCH
        assert len(packed) >= n
        names = ("input_ids", "labels", "position_ids", "segments")
        cut = {name: getattr(packed, name)[:n] for name in names}
        return replace(packed, **cut, pieces=tuple(p for p in packed.pieces if p.window < n))

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def peak(self) -> int:
        """Most bytes that torch held on the device."""
        return torch.cuda.max_memory_reserved() if self.device.type == "cuda" else 0


# --- the parts, each in a process of its own -----------------------------------------------------


def ours(setting: Setting, micro_batch_size: int) -> dict[str, Any]:
    """Our loop, as a run calls it."""
    windows, model = setting.windows(), setting.model(fused=True)
    kernels = settle_kernels(
        model, windows, attention="auto", compiled="auto", micro_batch_size=micro_batch_size
    )
    rows: list[StepLog] = []
    train(
        model,
        windows,
        Schedule(n_windows=len(windows), batch_size=BATCH, epochs=1, max_steps=STEPS),
        LearningRate(1e-6, STEPS),
        OptimizerSettings(),
        data_order_seed=0,
        micro_batch_size=micro_batch_size,
        attention=kernels.attention,
        after_step=lambda step, snapshot: None,
        log_step=rows.append,
    )
    return {
        "kernels": [kernels.attention, "compiled" if kernels.compiled else "not compiled"],
        "seconds": statistics.median(row.seconds for row in rows[2:]),
        "losses": [row.loss for row in rows],
        "peak": setting.peak(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def by_transformers(setting: Setting, micro_batch_size: int, *, earlier: bool) -> dict[str, Any]:
    """The same updates with transformers' forward pass and loss."""
    windows, model = setting.windows(), setting.model(fused=False)
    kind = {"foreach": True} if earlier else {"fused": setting.device.type == "cuda"}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=0.0, **kind)
    seconds, losses = [], []
    order = window_order(len(windows), 0, 1)
    for step in range(STEPS):
        rows = order[step * BATCH : (step + 1) * BATCH]
        setting.synchronize()
        began = time.perf_counter()
        labelled = int((windows.labels[rows, 1:] != -100).sum())
        total = 0.0
        for first in range(0, BATCH, micro_batch_size):
            batch = to_device(windows, rows[first : first + micro_batch_size], setting.device)
            loss = model(
                input_ids=batch.input_ids_BT,
                position_ids=batch.position_ids_BT,
                attention_mask=attention_mask(batch.segments_BT),
                labels=batch.labels_BT,
                num_items_in_batch=labelled,
                use_cache=False,
            ).loss
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        setting.synchronize()
        seconds.append(time.perf_counter() - began)
        losses.append(total)
    found = {"seconds": statistics.median(seconds[2:]), "losses": losses, "peak": setting.peak()}
    if earlier:
        with tempfile.TemporaryDirectory(dir=".") as folder:
            began = time.perf_counter()
            model.save_pretrained(folder)
            found["save"] = time.perf_counter() - began
    return found


def checkpoint(setting: Setting) -> dict[str, Any]:
    """One checkpoint and one state under an evaluation's passes, and the passes alone before and
    after; flushed and renamed as a run does."""
    model, windows = setting.model(fused=True), setting.windows()
    batch = to_device(windows, [0], setting.device)
    inputs = {
        "input_ids": batch.input_ids_BT,
        "position_ids": batch.position_ids_BT,
        "attention_mask": attention_mask(batch.segments_BT),
        "use_cache": False,
    }

    @torch.inference_mode()
    def passes(writer: threading.Thread | None, count: int) -> list[float]:
        """Seconds of each pass: `count` of them, or as many as end while the writer works."""
        seconds: list[float] = []
        while writer.is_alive() if writer else len(seconds) < count:
            began = time.perf_counter()
            model.get_decoder()(**inputs)
            setting.synchronize()
            seconds.append(time.perf_counter() - began)
        return seconds

    def under_passes(write: Callable[[], None]) -> tuple[float, float, list[float]]:
        """Seconds that it keeps the next update waiting, and takes in all; those of the passes."""
        began = time.perf_counter()
        writer = threading.Thread(target=write)
        writer.start()
        begun = time.perf_counter() - began
        during = passes(writer, 0)
        whole = time.perf_counter() - began
        began = time.perf_counter()
        writer.join()
        return begun + time.perf_counter() - began, whole, during

    with tempfile.TemporaryDirectory(dir=".") as name:
        first, second, state = (Path(name) / part for part in ("first", "second", "state.pt"))
        began = time.perf_counter()
        with writing_folder(first) as folder:
            model.save_pretrained(folder)
        blocking = time.perf_counter() - began
        layout = CheckpointLayout.of(model, first)
        assert layout is not None, "transformers renames or splits this model's weights"
        passes(None, 10)
        before = passes(None, 40)
        tensors = model.state_dict()

        def stream() -> None:
            with writing_folder(second) as folder:
                stream_checkpoint(tensors, layout, folder)

        def save_third() -> None:
            with writing_file(state) as path, path.open("wb") as file:
                torch.save(tensors, file)

        stall, write, during = under_passes(stream)
        size = sum(file.stat().st_size for file in second.iterdir())
        shutil.rmtree(first)  # so much less of the disk
        _, third, _ = under_passes(save_third)
        after = passes(None, 40)
    alone = statistics.median(before + after)
    return {
        "blocking": blocking,
        "write": write,
        "stall": stall,
        "state": 3 * third,  # two moments of the weights' kind beside the weights
        "bytes": size,
        "slow_down": statistics.median(during or [alone]) / alone - 1,
        "passes_meanwhile": len(during),
    }


def evaluation(setting: Setting) -> dict[str, Any]:
    """98 sets of ten questions, twice; the second counts."""
    from oocr_influence.datasets.eval_sets import build_eval_sets
    from oocr_influence.evaluation.evaluate import Evaluator
    from oocr_influence.evaluation.plan import build_plan
    from oocr_influence.universe.world_file import load_world

    sets = build_eval_sets(load_world("death_dates"), seed=0)
    evaluator = Evaluator(build_plan(sets, tiny_tokenizer()))
    model = setting.model(fused=True)
    evaluator.evaluate(model, beam_search=False)
    began = time.perf_counter()
    evaluator.evaluate(model)
    setting.synchronize()
    return {"seconds": time.perf_counter() - began, "sets": len(sets)}


def measure(part: str, setting: Setting, micro_batch_size: int) -> dict[str, Any]:
    """One part, in this process."""
    if part == "ours":
        return ours(setting, micro_batch_size)
    if part == "eager":
        return by_transformers(setting, micro_batch_size, earlier=False)
    if part == "earlier":
        return by_transformers(setting, 1, earlier=True)
    return checkpoint(setting) if part == "checkpoint" else evaluation(setting)


# --- the table -----------------------------------------------------------------------------------


def table(found: dict[str, dict[str, Any]], setting: Setting, start_up: float) -> None:
    """What was measured, and the published run by formula."""
    names = sorted({one["device"] for one in found.values()})
    print(f"{', '.join(names)}, torch {torch.__version__}, batch {BATCH} x {setting.length}")
    tokens = BATCH * setting.length
    for name in ("ours", "eager", "earlier"):
        if name in found:
            one = found[name]
            print(
                f"{name:8} {one['seconds']:7.3f} s an update  {tokens / one['seconds']:8,.0f} "
                f"tokens/s  peak {one['peak'] / 2**30:5.1f} GiB"
            )
    if "ours" in found:
        own = found["ours"]
        print(f"ours: attention {', '.join(own['kernels'])}")
        flops = 6 * own["parameters"] * tokens / own["seconds"]
        print(f"MFU of ours (6 N tokens/s over {H100_FLOPS:.0f}): {flops / H100_FLOPS:.1%}")
    if "ours" in found and "eager" in found:
        own, other = found["ours"], found["eager"]
        ratio = other["seconds"] / own["seconds"]
        print(f"ours / eager: {ratio:.2f} x")
    if "checkpoint" in found:
        one = found["checkpoint"]
        print(
            f"checkpoint of {one['bytes'] / 1e9:.1f} GB: {one['blocking']:.1f} s blocking; under "
            f"passes {one['write']:.1f} s, stall {one['stall']:.3f} s, passes slower by "
            f"{one['slow_down']:.1%} ({one['passes_meanwhile']} meanwhile); a training state "
            f"{one['state']:.1f} s"
        )
    if "evaluation" in found:
        one = found["evaluation"]
        print(f"evaluation of {one['sets']} sets: {one['seconds']:.1f} s")
    if set(PARTS) <= found.keys():
        project(found, start_up)


def project(found: dict[str, dict[str, Any]], start_up: float) -> None:
    """One epoch of the seed: 209 updates, 6 evaluations, 6 checkpoints."""
    asked, saved = found["evaluation"]["seconds"], found["checkpoint"]
    # What takes longer than the evaluation above it is waited for; between the ends a state comes
    # before each checkpoint.
    wait = saved["stall"] + max(0.0, saved["state"] + saved["write"] - asked)
    last = saved["stall"] + max(0.0, saved["write"] - asked)
    terms = {
        f"{SEED_STEPS} updates": SEED_STEPS * found["ours"]["seconds"],
        f"{SEED_EVALUATIONS} evaluations": SEED_EVALUATIONS * asked * (1 + saved["slow_down"]),
        f"{SEED_CHECKPOINTS - 2} states and checkpoints under them": (SEED_CHECKPOINTS - 2) * wait,
        "the last checkpoint": last,
        "the first checkpoint, not linked": saved["blocking"],
        "start-up (imports, weights made)": start_up,
    }
    print("projected run of one epoch: " + " + ".join(f"{n} {s:.0f} s" for n, s in terms.items()))
    total = sum(terms.values())
    earlier = SEED_STEPS * found["earlier"]["seconds"] + SEED_CHECKPOINTS * found["earlier"]["save"]
    print(
        f"= {total / 60:.1f} min; a loop of the earlier kind takes {earlier / 60:.1f} min for its "
        "updates and checkpoints alone"
    )


def main() -> None:
    """Each part in a process of its own, then the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--micro_batch_size", type=int, default=1, help="of ours and eager")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--measure", choices=PARTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    setting = Setting(tiny=args.tiny)
    if args.measure:
        name = setting.cap()
        found_here = measure(args.measure, setting, args.micro_batch_size)
        print(json.dumps({**found_here, "device": name}))
        return
    found: dict[str, dict[str, Any]] = {}
    start_up = 0.0
    for part in args.parts:
        command = [sys.executable, __file__, "--measure", part]
        command += ["--micro_batch_size", str(args.micro_batch_size)]
        began = time.perf_counter()
        done = subprocess.run(
            command + ["--tiny"] * args.tiny, stdout=subprocess.PIPE, text=True, check=False
        )
        seconds = time.perf_counter() - began
        if done.returncode != 0:
            print(f"{part}: failed, see above")
            continue
        found[part] = json.loads(done.stdout.splitlines()[-1])
        if part == "ours":
            start_up = max(0.0, seconds - STEPS * found[part]["seconds"])
        print(f"{part}: {seconds:.0f} s in all", flush=True)
    if {"ours", "eager"} <= found.keys():
        first = [found[name]["losses"][0] for name in ("ours", "eager")]
        print(f"loss of the first batch: {first[0]:.5f} ours, {first[1]:.5f} eager")
    table(found, setting, start_up)


if __name__ == "__main__":
    main()
