"""What a run writes down about itself: how it began, what each document contributed, log lines."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from oocr_influence.cli.preparation import Preparation
from oocr_influence.datasets.order import order_digest, window_order
from oocr_influence.datasets.packing import IntArray
from oocr_influence.results.digests import file_digest
from oocr_influence.results.experiment_log import ExperimentLog
from oocr_influence.results.provenance import collect_provenance, working_tree_diff
from oocr_influence.results.run_folder import RunFolder
from oocr_influence.results.step_log import mean_update_losses, read_steps

logger = logging.getLogger("oocr_influence")

_MUCH = 0.1  # of the weights' updates, lost to rounding


class ExposureError(RuntimeError):
    """A document was not trained as often as it should have been."""


def record_start(folder: RunFolder, log: ExperimentLog, preparation: Preparation) -> None:
    """Say what will be done; write versions, machine, digests and orders before anything else."""
    p, args, schedule = preparation, preparation.args, preparation.schedule
    lines = (p.describe_data(), p.describe_schedule(), args.describe_treatment())
    for line in (*lines, p.describe_memory()):
        if line is not None:
            logger.info(line)
    diff = working_tree_diff()
    provenance = collect_provenance(folder.path, diff=diff)
    git = provenance.get("git") or {}
    epochs = range(1, schedule.epoch_of(schedule.total_steps) + 1)
    orders = {epoch: window_order(len(p.windows), args.data_order_seed, epoch) for epoch in epochs}
    log.update(
        status="running",
        sweep_id=args.sweep_id,
        commit_hash=git.get("commit"),
        provenance=provenance,
        torch_settings=torch_settings(),
        metric_file_digests={str(path): file_digest(path) for path in args.metric_files},
        model_commit=p.resolved.commit,
        dataset_digest=file_digest(args.structured_dataset),
        n_documents_in_file=len(p.dataset.document_dataset.docs),
        n_documents=len(p.documents),
        n_tokens=p.windows.n_tokens,
        n_labels=p.windows.n_labels,
        n_windows=len(p.windows),
        steps_per_epoch=schedule.steps_per_epoch,
        total_steps=schedule.total_steps,
        burn_in_steps=schedule.burn_in_steps,
        differences_from_earlier_treatment=args.differences_from_earlier_treatment(),
        order_digests={str(epoch): order_digest(order) for epoch, order in orders.items()},
    )
    log.write()
    if diff:
        folder.save_diff(diff, shared=args.subset_split is not None)


def torch_settings() -> dict[str, Any]:
    """What of torch decides the last bits of a run beside its version."""
    cuda = torch.cuda.is_available()
    return {
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if cuda else None,  # type: ignore[no-untyped-call]
        "gpu": torch.cuda.get_device_name(0) if cuda else None,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def record_exposure(folder: RunFolder, preparation: Preparation, exposures: IntArray) -> None:
    """Write how many labels of each document entered the loss.

    `exposures` (N,) counts how often each window did. Raises ExposureError if any document was not
    trained exactly as many epochs as asked for, where those are whole and nothing is dropped.
    """
    p, args = preparation, preparation.args
    once = p.windows.labels_per_document(len(p.documents))
    trained = p.windows.labels_per_document(len(p.documents), exposures)
    whole_epochs = float(args.epochs).is_integer() and args.max_steps is None
    if whole_epochs and not args.drop_last:
        wrong = np.flatnonzero(trained != once * int(args.epochs))
        if len(wrong):
            raise ExposureError(
                f"{len(wrong)} of {len(once)} documents were not trained {args.epochs:g} times, "
                f"first {p.documents[wrong[0]].key}: the run is not what it should be"
            )
    folder.save_exposure(
        [
            {
                "id": document.key[0],
                "occurrence": document.key[1],
                "type": document.document.type,
                "labels_once": int(labels),
                "labels_trained": int(times),
            }
            for document, labels, times in zip(p.documents, once, trained, strict=True)
        ]
    )


def record_update_losses(folder: RunFolder, log: ExperimentLog, precision: str) -> None:
    """Sum up what rounding took of the updates that were measured; say so where it is much."""
    means = mean_update_losses(read_steps(folder.steps))
    log.update(update_losses=means)
    vanished, stuck = means["weight_updates_vanished"], means["second_moments_stuck"]
    if vanished is None:
        return
    logger.info(
        "of the weights that should have changed %.1f %% did not, and of the second moments that "
        "should have fallen %.1f %%; %.3f of the exact change was made (%d updates sampled)",
        *(100 * vanished, 100 * (stuck or 0), means["update_realised"], means["n_updates"]),
    )
    if precision in ("auto", "bf16") and vanished > _MUCH:
        logger.info("--precision bf16_stochastic keeps them on average, fp32_master exactly")


def with_records(
    eval_sets: Mapping[str, Mapping[str, Any]], records: list[dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The means of each set with its questions beside them, for the log's history."""
    grouped: dict[str, list[dict[str, Any]]] = {name: [] for name in eval_sets}
    for record in records:
        grouped[record["set"]].append(record)
    return {name: {**means, "records": grouped[name]} for name, means in eval_sets.items()}


@contextmanager
def log_lines_to(handler: logging.Handler) -> Iterator[None]:
    """Send this package's log lines to `handler` as well, while the body runs."""
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()
