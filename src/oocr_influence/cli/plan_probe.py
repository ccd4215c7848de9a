"""`oocr plan --probe`: a few updates and one evaluation, really made, in a process of their own.

    measured = probe(preparation)           # seconds and peak memory of this machine

The process loads the model as a run does; whoever plans stays free of it, and of the GPU.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from oocr_influence.cli.adapters import base_of
from oocr_influence.cli.arguments import UsageError
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.plan_measured import Measured
from oocr_influence.cli.preparation import Preparation, prepare
from oocr_influence.cli.run_asking import loss_documents, plan_of
from oocr_influence.datasets.order import window_order
from oocr_influence.models.load import load_model, pick_device, recompute_activations
from oocr_influence.models.lora import add_adapter
from oocr_influence.results.cache import Cache
from oocr_influence.results.provenance import peak_memory
from oocr_influence.training.determinism import deterministic_algorithms
from oocr_influence.training.kernels import settle_kernels
from oocr_influence.training.loop import accumulate_gradients
from oocr_influence.training.optimizer import make_optimizer, set_rate

UPDATES = 3  # behind one that is not counted


def probe(preparation: Preparation) -> Measured:
    """Measure on this machine; raises UsageError where that fails, or cannot be done."""
    args = preparation.args
    if args.processes > 1:
        raise UsageError("--probe measures runs of one process: leave it out, or --gpus_per_job")
    if args.micro_batch_size == "auto":
        raise UsageError("--probe --micro_batch_size auto: name the number that is to be measured")
    command = [sys.executable, "-m", "oocr_influence.cli.plan_probe"]
    request = json.dumps(args.model_dump(mode="json"))
    done = subprocess.run(command, input=request, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise UsageError("--probe failed, see above: plan without it")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def measure(args: TrainingArgs) -> Measured:
    """Measure in this process."""
    preparation = prepare(args)
    device = pick_device()
    model = load_model(preparation.resolved, precision=args.precision, device=device)
    if (adapter := args.lora()) is not None:
        add_adapter(model, adapter, base_of(model, preparation, weights_digest=""))
    if args.gradient_checkpointing:
        recompute_activations(model)
    evaluation = _evaluation_of(preparation, model)
    peaks: list[int] = []
    per_label: list[float] = []

    def everything() -> None:
        per_label.append(_time_updates(preparation, model))
        if device.type == "cuda":
            peaks.append(torch.cuda.max_memory_allocated(device))

    process_peak = peak_memory(everything)
    return Measured(
        source=f"a probe of {UPDATES} updates and one evaluation",
        seconds_per_label=per_label[0],
        evaluation_seconds=_seconds_of(evaluation, device),
        beside_seconds=None,
        memory_bytes=peaks[0] if peaks else process_peak,
    )


def _time_updates(preparation: Preparation, model: Any) -> float:
    """Seconds a labelled token, at rate 0."""
    args, windows, schedule = preparation.args, preparation.windows, preparation.schedule
    kernels = settle_kernels(
        model,
        windows,
        attention=args.attention,
        compiled=args.compile,
        micro_batch_size=args.micro_batch,
    )
    optimizer = make_optimizer(model, args.optimizer_settings(), seed=args.data_order_seed)
    set_rate(optimizer, 0.0)
    order = window_order(len(windows), args.data_order_seed, 1)
    limit = float("inf") if args.max_grad_norm is None else args.max_grad_norm
    seconds, labels = 0.0, 0
    model.train()
    for number in range(1 + UPDATES):
        batch = order[schedule.batch(1 + number % schedule.steps_per_epoch)]

        found: list[int] = []

        def update() -> None:
            _, labelled = accumulate_gradients(
                model,
                windows,
                batch,  # noqa: B023 (it is called at once)
                micro_batch_size=args.micro_batch,
                attention=kernels.attention,
                z_loss=args.z_loss,
            )
            torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            found.append(labelled)  # noqa: B023

        taken = _seconds_of(update, model.device)
        if number:
            seconds, labels = seconds + taken, labels + found[0]
    return seconds / max(labels, 1)


def _evaluation_of(preparation: Preparation, model: Any) -> Callable[[], Any]:
    """What a run does at one evaluation."""
    args = preparation.args
    evaluator = plan_of(preparation, Cache.default() if args.eval_cache else None).evaluator
    losses = loss_documents(preparation)

    def ask() -> None:
        evaluator.evaluate(model, beam_search=args.beam_search == "every", ranks=args.ranks)
        if losses is not None:
            losses.measure(model)

    return ask


def _seconds_of(body: Callable[[], Any], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    body()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _answer(request: str) -> str:
    args = TrainingArgs.model_validate(json.loads(request))
    with deterministic_algorithms(args.deterministic):
        return json.dumps(vars(measure(args)))


if __name__ == "__main__":
    # What libraries print goes with the errors; the last line of the output is the answer.
    answer_to, sys.stdout = sys.stdout, sys.stderr
    answer_to.write(_answer(sys.stdin.read()) + "\n")
