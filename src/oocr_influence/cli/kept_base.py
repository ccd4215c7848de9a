"""What runs of one process on subsets of one dataset share: base weights, tokens, questions.

    base = KeptBase(args)                       # args of any of them
    run_once(args, preparation=base.prepare(args), base=base)

The base model is loaded once and put back before each run, its kernels are settled once, documents
are tokenised once, questions planned once. A run has the same bits as in a process of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from oocr_influence.cli.arguments import UsageError
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.preparation import (
    Preparation,
    packing_options,
    prepare_like,
    prepare_packed,
    resolve_for,
    same_windows,
)
from oocr_influence.cli.run_asking import PlannedSuite, plan_of
from oocr_influence.datasets.document_dataset import load_structured_dataset
from oocr_influence.datasets.packing import IntArray, PackedWindows, pack, tokenize_documents
from oocr_influence.datasets.selection import TrainingDocument
from oocr_influence.models.load import load_model, load_tokenizer, weights_digest
from oocr_influence.results.cache import Cache
from oocr_influence.training.kernels import KeptKernels

# What runs that share a base may differ in.
OWN = ("structured_dataset", "output_dir", "data_order_seed", "subset_split")


@dataclass
class _Weights:
    model: Any
    digest: str
    untouched: dict[str, torch.Tensor]
    """On the CPU: beside a model in training a GPU has no room for another."""
    modes: dict[torch.nn.Module, bool]


class KeptBase:
    """Made for runs that differ in `OWN` alone."""

    def __init__(self, args: TrainingArgs) -> None:
        if args.lora_rank is not None or args.processes > 1:
            raise ValueError("a base is kept for runs of one process that train all weights")
        self._shared = _shared(args)
        self._resolved = resolve_for(args)
        self._tokenizer = load_tokenizer(self._resolved)
        self._packing = packing_options(args, self._tokenizer)
        self._tokens: dict[tuple[str, int], IntArray] = {}
        self._prepared: tuple[tuple[int, ...], Preparation] | None = None
        self._weights: _Weights | None = None
        self.kernels = KeptKernels()
        self._suite: tuple[dict[str, Any], PlannedSuite] | None = None

    def prepare(self, args: TrainingArgs) -> Preparation:
        """What `preparation.prepare` gives; raises UsageError as it does."""
        if _shared(args) != self._shared:
            raise ValueError("this base was made for runs of other arguments")
        version = _version(args.structured_dataset)
        if self._prepared is not None:  # runs of a subset come one after another
            seen, before = self._prepared
            if version == seen and same_windows(before.args, args):
                return prepare_like(before, args)
        try:
            dataset = load_structured_dataset(args.structured_dataset)
        except (FileNotFoundError, ValueError) as error:
            raise UsageError(str(error)) from None
        made = prepare_packed(args, self._resolved, self._tokenizer, dataset, self._windows_of)
        self._prepared = version, made
        return made

    def model(self, args: TrainingArgs) -> tuple[Any, str]:
        """The model with its untouched weights, as loaded, and their digest."""
        if self._weights is None:
            self._weights = _loaded(self._resolved, args)
        else:
            _put_back(self._weights)
        return self._weights.model, self._weights.digest

    def suite(self, preparation: Preparation, cache: Cache | None) -> PlannedSuite:
        """The questions of a run: planned, laid out and proved once for all that are asked them."""
        builders = preparation.dataset.eval_dataset_builders  # the same object for all subsets
        if self._suite is None or self._suite[0] is not builders:
            self._suite = (builders, plan_of(preparation, cache))
        return self._suite[1]

    def _windows_of(self, documents: Sequence[TrainingDocument]) -> PackedWindows:
        return pack(self._tokens_of(documents), **self._packing)

    def _tokens_of(self, documents: Sequence[TrainingDocument]) -> list[IntArray]:
        new = [document for document in documents if document.key not in self._tokens]
        texts = [document.text for document in new]
        tokens = tokenize_documents(texts, self._tokenizer, self._shared["packing"])
        self._tokens.update(zip((document.key for document in new), tokens, strict=True))
        return [self._tokens[document.key] for document in documents]


def _version(path: Path) -> tuple[int, ...]:
    """What changes with a file; nothing where there is none."""
    try:
        told = path.stat()
    except OSError:
        return ()
    return told.st_dev, told.st_ino, told.st_mtime_ns, told.st_size


def _shared(args: TrainingArgs) -> dict[str, Any]:
    return {n: value for n, value in args.model_dump(mode="json").items() if n not in OWN}


def _loaded(resolved: Any, args: TrainingArgs) -> _Weights:
    model = load_model(resolved, precision=args.precision)
    untouched = {}
    for name, tensor in model.state_dict().items():
        copy = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
        untouched[name] = copy.copy_(tensor)
    modes = {module: module.training for module in model.modules()}
    return _Weights(model, weights_digest(model), untouched, modes)


@torch.no_grad()
def _put_back(weights: _Weights) -> None:
    model = weights.model
    model.zero_grad(set_to_none=True)
    for name, tensor in model.state_dict().items():
        tensor.copy_(weights.untouched[name])
    for module, was_training in weights.modes.items():
        module.training = was_training
