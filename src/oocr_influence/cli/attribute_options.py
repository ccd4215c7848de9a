"""What `oocr attribute` is asked for: its arguments, the methods they name, whether these fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from pydantic import Field, model_validator

from oocr_influence.attribution import bergson, ekfac
from oocr_influence.attribution.adam import moments_of
from oocr_influence.attribution.gradients import Gradients
from oocr_influence.attribution.hidden_states import HiddenStates
from oocr_influence.attribution.lexical import BM25, Exposure, TfIdf
from oocr_influence.attribution.method import Method
from oocr_influence.cli.arguments import CommandArguments, UsageError
from oocr_influence.cli.evaluation_targets import Target
from oocr_influence.models.load import WeightPrecision, load_config, parameter_count

MethodName = Literal[
    "exposure", "tfidf", "bm25", "hidden_states", "gradient", "gradient_adam", "ekfac", "bergson"
]
ALWAYS: tuple[MethodName, ...] = ("exposure", "tfidf", "bm25")


class AttributeArguments(CommandArguments):
    """Which model answers what, and how documents are scored for it."""

    run: list[Path] = Field(json_schema_extra={"positional": True})
    """the folder of a run, or of one of its checkpoints"""
    checkpoint: str = "final"
    """whose weights: start, e1_s42, final"""
    methods: list[MethodName] = ["hidden_states", "gradient"]
    """beside exposure, tfidf and bm25, which are always there"""
    sets: list[str] = ["*_no_fs"]
    """patterns of the names of the sets whose questions are explained"""
    dataset: Path | None = None
    """the structured dataset whose sets are asked (JSON; None: the run's own)"""
    documents: Literal["synthetic", "all"] = "synthetic"
    """which documents are scored: those that state facts, or pretraining text too"""
    to: Path
    """a new folder, for scores.parquet and about.json"""
    projection: int | None = Field(default=None, ge=0)
    """rows and columns kept of each parameter's gradient; 0 is exact (None: exact where gradients
    of all queries take no more than 2 GiB, else 16)"""
    last_layers: int | None = Field(default=None, ge=1)
    """gradients by the parameters of so many last layers alone (layers; None: by all trained)"""
    layers: list[int] | None = None
    """layers whose states hidden_states compares, from 1 (layers; None: all)"""
    damping: float | None = Field(default=None, gt=0)
    """added to the curvature's eigenvalues by ekfac and bergson (None: a tenth of each layer's
    mean)"""
    batch_tokens: int | None = Field(default=None, ge=1)
    """padded tokens of a forward pass of hidden_states; speed and memory alone (tokens; None: 2,048
    on the CPU, 16,384 on a GPU)"""
    ekfac_batch_size: int = Field(default=8, ge=1)
    """passages of a forward and backward pass of ekfac (passages)"""
    seed: int = 0
    """draws the projection, and the answers to which ekfac and bergson fit the curvature"""
    precision: WeightPrecision = "auto"
    """of the weights; auto is the run's own"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where it runs; auto is the first visible GPU, or the CPU"""

    @model_validator(mode="after")
    def _consistent(self) -> AttributeArguments:
        faults = []
        if len(self.run) != 1:
            faults.append(f"{len(self.run)} folders are named; scores are of one run's checkpoint")
        if self.device == "cuda" and not torch.cuda.is_available():
            faults.append("--device cuda: there is no GPU")
        if self.to.exists():
            faults.append(f"--to {self.to} is there already: name a new folder")
        for name, find in (
            ("ekfac", ekfac.missing_packages),
            ("bergson", bergson.missing_packages),
        ):
            if name in self.methods and (missing := find()):
                faults.append(f"--methods {name}: {missing}")
        gradient = {"gradient", "gradient_adam"} & set(self.methods)
        owners = {
            "projection": bool(gradient),
            "last_layers": bool(gradient),
            "layers": "hidden_states" in self.methods,
            "batch_tokens": "hidden_states" in self.methods,
            "damping": bool({"ekfac", "bergson"} & set(self.methods)),
            "ekfac_batch_size": "ekfac" in self.methods,
        }
        faults += [
            f"--{name} has no effect on --methods {' '.join(self.methods)}"
            for name, used in owners.items()
            if name in self.model_fields_set and not used
        ]
        if faults:
            raise ValueError("\n       ".join(faults))
        return self


def chosen_methods(
    args: AttributeArguments, target: Target, run_args: dict[str, Any]
) -> list[Method]:
    """The methods that the arguments name, and those that are always there."""
    wanted = set(args.methods) | set(ALWAYS)
    gradients: dict[str, Any] = {
        "projection": args.projection,
        "last_layers": args.last_layers,
        "z_loss": float(run_args.get("z_loss") or 0.0),
        "seed": args.seed,
    }
    methods: list[Method] = [Exposure(), TfIdf(), BM25()]
    if "hidden_states" in wanted:
        layers = None if args.layers is None else tuple(args.layers)
        methods.append(HiddenStates(layers, args.batch_tokens))
    if "gradient" in wanted:
        methods.append(Gradients(**gradients))
    if "gradient_adam" in wanted:
        moments = moments_of(target.folder.checkpoint(target.name))
        methods.append(Gradients(**gradients, moments=str(moments)))
    if "ekfac" in wanted:
        methods.append(ekfac.EKFAC(args.damping, args.ekfac_batch_size, args.seed))
    if "bergson" in wanted:
        methods.append(_bergson(args, target))
    return methods


def _bergson(args: AttributeArguments, target: Target) -> bergson.BergsonEKFAC:
    """Raises UsageError where the weights do not lie in a folder that bergson can load."""
    folder, tokenizer = target.model.folder, target.tokenizer.folder
    if target.model.adapter is not None or folder is None or tokenizer is None:
        raise UsageError(
            "--methods bergson loads whole weights from a folder, which an adapter is not: "
            "`oocr export` writes its sum with its base, ekfac takes it as it is"
        )
    return bergson.BergsonEKFAC(str(folder), str(tokenizer), args.damping, args.seed)


def check_sizes(
    methods: list[Method], target: Target, n_queries: int, device: torch.device
) -> None:
    """Layers that there are, and room for exact gradients: known before weights are read."""
    config = load_config(target.model)
    faults = []
    for method in methods:
        if isinstance(method, HiddenStates):
            try:
                method.chosen_layers(config.num_hidden_layers)
            except ValueError as error:
                faults.append(f"--layers: {error}")
        if isinstance(method, Gradients):
            n_layers = int(config.num_hidden_layers)
            if method.last_layers is not None and method.last_layers > n_layers:
                faults.append(f"--last_layers {method.last_layers}: the model has {n_layers}")
            elif method.projection == 0 and method.last_layers is None:
                faults += _room_faults(4 * n_queries * parameter_count(config), target, device)
    if faults:
        raise UsageError("\n       ".join(dict.fromkeys(faults)))


def _room_faults(needed_bytes: int, target: Target, device: torch.device) -> list[str]:
    if target.model.adapter is not None:  # its own parameters are few
        return []
    room = (
        torch.cuda.mem_get_info(device)[0]
        if device.type == "cuda"
        else psutil.virtual_memory().available
    )
    if needed_bytes < room:
        return []
    return [
        f"--projection 0: exact gradients of all queries take {needed_bytes / 2**30:,.1f} GiB of "
        f"{room / 2**30:,.1f}: fewer --sets, --last_layers, or a --projection such as 16"
    ]
