"""`--micro_batch_size auto`: tried out in a process of its own, once for all runs of a sweep.

    preparation = settle(preparation)           # its arguments now name a number

The trial loads the model as a run does; whoever plans the sweep stays free of it, and of the GPU.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import psutil
import torch

from oocr_influence.cli.adapters import base_of
from oocr_influence.cli.arguments import UsageError
from oocr_influence.cli.disk import gigabytes
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.preparation import Preparation, prepare
from oocr_influence.models.load import load_model, pick_device, recompute_activations
from oocr_influence.models.lora import add_adapter
from oocr_influence.results.provenance import peak_memory
from oocr_influence.training.determinism import deterministic_algorithms
from oocr_influence.training.kernels import settle_kernels
from oocr_influence.training.micro_batches import Measure, Trial, largest_that_fits, try_sizes

# Of the memory that is free: evaluations, fragments and other processes want some as well.
GPU_SHARE, CPU_SHARE = 0.95, 0.8


def settle(preparation: Preparation, *, runs_at_once: int = 1) -> Preparation:
    """The same with a number for `auto`, and how it was found.

    Where not even one window fits, activations are computed anew in the backward pass, if then one
    does. Runs at once share the memory of this machine, where they train on its CPU. Raises
    UsageError if nothing fits, or if the trial fails.
    """
    args = preparation.args
    if args.micro_batch_size != "auto":
        return preparation
    size, trial = _choose(args, runs_at_once)
    if size is None and not args.gradient_checkpointing:
        args = args.model_copy(update={"gradient_checkpointing": True})
        size, with_recomputing = _choose(args, runs_at_once)
        trial = {**with_recomputing, "without_checkpointing": trial["trials"]}
    if size is None:
        raise UsageError(_nothing_fits(args, trial))
    args = args.model_copy(update={"micro_batch_size": size})
    return replace(preparation, args=args, micro_batch_trial=trial)


def tried_as(preparation: Preparation, other: Preparation) -> Preparation:
    """The same with the number that was found for another run that takes as much memory."""
    names = ("micro_batch_size", "gradient_checkpointing")
    found = {name: getattr(other.args, name) for name in names}
    args = preparation.args.model_copy(update=found)
    return replace(preparation, args=args, micro_batch_trial=other.micro_batch_trial)


def describe_trial(trial: Mapping[str, Any]) -> str:
    """One line: what each size took of what there is."""
    tried = ", ".join(f"{one['size']}: {gigabytes(one['peak_bytes'])}" for one in trial["trials"])
    recomputed = "without_checkpointing" in trial
    why = "; activations are recomputed (--gradient_checkpointing): not one window fitted else"
    return (
        f"micro-batches tried on {trial['device']}, of which {gigabytes(trial['limit_bytes'])} may "
        f"be used (windows: most memory): {tried}{why if recomputed else ''}"
    )


def _choose(args: TrainingArgs, runs_at_once: int) -> tuple[int | None, dict[str, Any]]:
    request = json.dumps({"args": args.model_dump(mode="json"), "runs_at_once": runs_at_once})
    done = _ask_another_process(request)
    if done.returncode != 0:
        raise UsageError(
            "--micro_batch_size auto: the trial failed, see above; name a number instead"
        )
    answer = json.loads(done.stdout.splitlines()[-1])
    trials = [Trial(**trial) for trial in answer["trials"]]
    return largest_that_fits(trials, answer["limit_bytes"]), answer


def _nothing_fits(args: TrainingArgs, trial: Mapping[str, Any]) -> str:
    took = gigabytes(trial["trials"][0]["peak_bytes"]) if trial["trials"] else "more"
    remedy = "lower --chunk_size, or free some memory"
    if args.processes > 1:  # a trial knows nothing of shares
        remedy += f"; or name a number, since {args.processes} processes share what one tried out"
    return (
        f"--micro_batch_size auto: one window of {args.chunk_size} tokens takes {took}, "
        f"activations recomputed, and {gigabytes(trial['limit_bytes'])} are free on "
        f"{trial['device']}: {remedy}"
    )


def _ask_another_process(request: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "oocr_influence.cli.micro_batch"]
    return subprocess.run(command, input=request, stdout=subprocess.PIPE, text=True, check=False)


def try_out(args: TrainingArgs, *, runs_at_once: int) -> dict[str, Any]:
    """Measure in this process: `trials`, `limit_bytes` and `device`, as plain values."""
    preparation = prepare(args.model_copy(update={"micro_batch_size": 1}))
    device = pick_device()
    limit = _limit(device, runs_at_once)
    model = load_model(preparation.resolved, precision=args.precision, device=device)
    if (adapter := args.lora()) is not None:
        add_adapter(model, adapter, base_of(model, preparation, weights_digest=""))
    if args.gradient_checkpointing:
        recompute_activations(model)
    kernels = settle_kernels(
        model,
        preparation.windows,
        attention=args.attention,
        compiled=args.compile,
        micro_batch_size=1,
    )
    trials = try_sizes(
        model,
        preparation.windows,
        args.optimizer_settings(),
        attention=kernels.attention,
        # Each process is to have one: more windows than its part of a batch leave others idle.
        batch_size=-(-args.batch_size // args.processes),
        limit_bytes=limit,
        measure=_measure_on(device),
    )
    return {
        "trials": [asdict(trial) for trial in trials],
        "limit_bytes": int(limit),
        "device": _name(device),
    }


def _limit(device: torch.device, runs_at_once: int) -> float:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return GPU_SHARE * free
    return CPU_SHARE * psutil.virtual_memory().available / runs_at_once


def _measure_on(device: torch.device) -> Measure:
    if device.type != "cuda":
        return peak_memory

    def measure(update: Any) -> int:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        update()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_reserved(device)

    return measure


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "this machine's CPU"


def _answer(request: str) -> str:
    asked = json.loads(request)
    args = TrainingArgs.model_validate(asked["args"])
    with deterministic_algorithms(args.deterministic):
        return json.dumps(try_out(args, runs_at_once=asked["runs_at_once"]))


if __name__ == "__main__":
    # What libraries print goes with the errors; the last line of the output is the answer.
    answer_to, sys.stdout = sys.stdout, sys.stderr
    answer_to.write(_answer(sys.stdin.read()) + "\n")
