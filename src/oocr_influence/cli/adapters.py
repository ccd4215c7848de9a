"""Where a run trains a LoRA adapter: put it into the model, and write down what it is."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from oocr_influence.cli.preparation import Preparation
from oocr_influence.models.lora import add_adapter, n_trained
from oocr_influence.results.adapters import BaseModel
from oocr_influence.results.experiment_log import ExperimentLog

logger = logging.getLogger("oocr_influence")


def begin_adapter(model: Any, preparation: Preparation, log: ExperimentLog) -> None:
    """Add the adapter that the arguments ask for, if any, to the untouched model.

    The log says so, and holds the digest of the model without it.
    """
    settings = preparation.args.lora()
    if settings is None:
        return
    n_base = sum(parameter.numel() for parameter in model.parameters())
    add_adapter(model, settings, base_of(model, preparation, log.log_dict["weights_digest"]))
    n_adapter = n_trained(model)
    log.update(lora={**asdict(settings), "n_parameters": n_adapter})
    logger.info(
        "LoRA of rank %d, alpha %d: %s parameters are trained beside %s that stay as they are",
        settings.rank,
        settings.alpha,
        f"{n_adapter:,}",
        f"{n_base:,}",
    )


def base_of(model: Any, preparation: Preparation, weights_digest: str) -> BaseModel:
    """What an adapter's folder says of the untouched model."""
    resolved = preparation.resolved
    is_folder = Path(resolved.name).is_dir()
    return BaseModel(
        model=str(Path(resolved.name).resolve()) if is_folder else resolved.name,
        revision=resolved.revision,
        commit=resolved.commit,
        dtype=str(model.dtype),
        weights_digest=weights_digest,
    )
