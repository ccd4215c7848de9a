"""How far two runs of the same seed drift apart, with deterministic kernels and without.

    OMP_NUM_THREADS=1 python benchmarks/noise.py                 # on the CPU: all differences are 0
    python benchmarks/noise.py --model smollm2-135m --precision bf16 --epochs 3

Each run is a process of its own, `oocr train_extractive` with the same arguments. Two are made
without `--deterministic` and two with it. Of each pair: the largest difference between final
weights, between losses of the same update, and between ranks of the same question at the last
evaluation, with the share of questions whose rank differs. What remains without the flag is the
noise that a difference between two treatments has to exceed. A pair of other data orders, trained
without the flag, stands beside them: what a change of order does.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

import torch
from safetensors.torch import load_file

from oocr_influence.cli.generate import main as generate
from oocr_influence.cli.generate_options import GenerateArguments
from oocr_influence.results.finding import find_runs
from oocr_influence.results.run_folder import RunFolder
from oocr_influence.results.step_log import read_steps

# Pairs of runs: flags of the first and the second.
PAIRS = {
    "same seed": ([], []),
    "same seed, deterministic": (["--deterministic"], ["--deterministic"]),
    "another order": ([], ["--data_order_seed=43"]),
}


def trained(folder: Path, dataset: Path, flags: list[str]) -> tuple[RunFolder, float]:
    """One run in a process of its own; returns its folder and the seconds of its updates."""
    command = [sys.executable, "-m", "oocr_influence.cli.train_extractive"]
    command += [f"--structured_dataset={dataset}", f"--output_dir={folder}", "--no-eval_cache"]
    command += ["--epochs_per_eval=None", "--epochs_per_save=None", "--no-eval_first_step"]
    command += ["--n_pretraining_examples=0", "--no-save_first_checkpoint", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"error: {' '.join(command)}\n{done.stderr}")
    (run,) = find_runs(folder)
    return RunFolder(run.path), sum(row.seconds for row in read_steps(run.steps))


def weight_difference(one: RunFolder, other: RunFolder) -> float:
    """The largest over all elements of the final weights."""
    first, second = (
        load_file(run.checkpoint("final") / "model.safetensors") for run in (one, other)
    )
    return max(float((a.double() - second[name].double()).abs().max()) for name, a in first.items())


def loss_difference(one: RunFolder, other: RunFolder) -> float:
    """The largest between losses of updates of the same number."""
    pairs = zip(read_steps(one.steps), read_steps(other.steps), strict=True)
    return max(abs((a.loss or 0) - (b.loss or 0)) for a, b in pairs)


def rank_differences(one: RunFolder, other: RunFolder) -> list[float]:
    """Of every question that is ranked, at the last evaluation."""

    def ranks(run: RunFolder) -> list[tuple[str, str, float]]:
        return [
            (row["set"], row["id"], row["rank"])
            for row in run.read_records("final").to_pylist()
            if row.get("rank") is not None
        ]

    first, second = ranks(one), ranks(other)
    assert [row[:2] for row in first] == [row[:2] for row in second]
    return [abs(a[2] - b[2]) for a, b in zip(first, second, strict=True)]


def main() -> None:
    """Two runs a pair, and a line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="olmo2-tiny")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--epochs", default="1")
    parser.add_argument("--learning_rate", default="1e-3")
    parser.add_argument("--docs_per_fact", type=int, default=8)
    parser.add_argument("--chunk_size", default="256")
    args = parser.parse_args()
    flags = [
        f"--{name}={getattr(args, name)}"
        for name in ("model", "precision", "epochs", "learning_rate", "chunk_size")
    ]
    flags.append("--beam_search=never")
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{name}, torch {torch.__version__}, {' '.join(flags)}")
    print(f"{'':26} weights      losses       ranks, most  differ  seconds")
    with tempfile.TemporaryDirectory() as scratch:
        dataset = Path(scratch) / "facts.json"
        with redirect_stdout(io.StringIO()):
            generate(
                GenerateArguments(
                    world="mayors",
                    docs_per_fact=args.docs_per_fact,
                    pretraining_docs=0,
                    length="short",
                    output=dataset,
                )
            )
        for number, (pair, both) in enumerate(PAIRS.items()):
            began = time.perf_counter()
            runs = [
                trained(Path(scratch) / f"{number}_{i}", dataset, [*flags, *own])
                for i, own in enumerate(both)
            ]
            (one, seconds), (other, more) = runs
            ranks = rank_differences(one, other)
            share = sum(rank > 0 for rank in ranks) / len(ranks)
            print(
                f"{pair:26} {weight_difference(one, other):<12.3g} "
                f"{loss_difference(one, other):<12.3g} {max(ranks):<12.3g} {share:6.1%}  "
                f"{(seconds + more) / 2:.1f} of {time.perf_counter() - began:.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
