"""Which documents taught it: score every document of a run for every question, by several methods.

    oocr attribute outputs/2026_… --to scored/final
    oocr attribute outputs/2026_…/checkpoint_e1_s42 --methods gradient ekfac --to scored/e1
    oocr attribution score scored/final --outcomes outputs/…/outcomes

A score is positive where training on the document raises the log-probability of the right answer.
How often each document was trained, TF-IDF and BM25 are always among the methods: what reads the
model must beat them. docs/attribution.md has each method's formula, unit and cost.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
import transformers
from pydantic import Field, model_validator

from oocr_influence.attribution.adam import moments_of
from oocr_influence.attribution.ekfac import EKFAC, missing_packages
from oocr_influence.attribution.gradients import Gradients
from oocr_influence.attribution.hidden_states import HiddenStates
from oocr_influence.attribution.lexical import BM25, Exposure, TfIdf
from oocr_influence.attribution.method import Method, Subject, attribute
from oocr_influence.attribution.queries import make_queries
from oocr_influence.attribution.statistics import needed
from oocr_influence.attribution.trained_documents import (
    SYNTHETIC,
    TrainedDocuments,
    UnknownDocumentsError,
    read_documents,
)
from oocr_influence.cli.arguments import CommandArguments, UsageError, run_command
from oocr_influence.cli.evaluate import chosen_sets
from oocr_influence.cli.evaluation_targets import Target, checkpoint_targets
from oocr_influence.evaluation.plan import build_plan
from oocr_influence.models.load import (
    WeightPrecision,
    load_config,
    load_model,
    load_tokenizer,
    parameter_count,
    pick_device,
    weights_digest,
)
from oocr_influence.results.attributions import Attributions
from oocr_influence.results.digests import file_digest
from oocr_influence.results.experiment_log import read_experiment_log
from oocr_influence.results.finding import find_runs
from oocr_influence.results.provenance import collect_provenance
from oocr_influence.results.run_folder import CHECKPOINT

MethodName = Literal[
    "exposure", "tfidf", "bm25", "hidden_states", "gradient", "gradient_adam", "ekfac"
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
    """added to the curvature's eigenvalues by ekfac (None: a tenth of each layer's mean)"""
    batch_tokens: int | None = Field(default=None, ge=1)
    """padded tokens of a forward pass of hidden_states; speed and memory alone (tokens; None: 2,048
    on the CPU, 16,384 on a GPU)"""
    ekfac_batch_size: int = Field(default=8, ge=1)
    """passages of a forward and backward pass of ekfac (passages)"""
    seed: int = 0
    """draws the projection, and the answers to which ekfac fits the curvature"""
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
        if "ekfac" in self.methods and (missing := missing_packages()):
            faults.append(f"--methods ekfac: {missing}")
        gradient = {"gradient", "gradient_adam"} & set(self.methods)
        owners = {
            "projection": bool(gradient),
            "last_layers": bool(gradient),
            "layers": "hidden_states" in self.methods,
            "batch_tokens": "hidden_states" in self.methods,
            "damping": "ekfac" in self.methods,
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


def main(args: AttributeArguments) -> int:
    """Score, write, say what took how long."""
    _check_packages()
    target = _target(args)
    device = pick_device() if args.device == "auto" else torch.device(args.device)
    log = read_experiment_log(target.folder.experiment_log)
    methods = _methods(args, target, log.args or {})
    builders = chosen_sets(target.dataset, args.sets)
    documents = _documents(args, target)
    plan = build_plan(builders, load_tokenizer(target.tokenizer))
    queries = make_queries(builders, plan, documents.facts)
    _check_sizes(methods, target, len(queries.rows), device)
    n = (len(queries.rows), len(documents.rows))
    print(f"{n[0]:,} queries of {len(builders)} sets × {n[1]:,} documents", flush=True)
    transformers.utils.logging.disable_progress_bar()
    model = load_model(target.model, precision=target.precision, device=device)
    about = {
        **_about(args, target, log.args or {}, log.log_dict),
        "plan_digest": plan.digest,
        "weights_digest": weights_digest(model),
        "device": str(device),
        "dtype": str(model.dtype),
    }
    found = _score(Subject(documents, queries, model, _progress), methods, about)
    found.save(args.to)
    for name, told in found.methods.items():
        print(f"  {name:24} {told['seconds']:8.1f} s  {told['unit']}")
    print(f"{args.to}: {len(found.methods)} methods; `oocr attribution score {args.to}`")
    return 0


def _score(subject: Subject, methods: list[Method], about: dict[str, Any]) -> Attributions:
    try:
        return attribute(subject, methods, about)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _check_packages() -> None:
    try:
        needed("sklearn.feature_extraction.text")
        needed("scipy.stats")
    except ImportError as error:
        raise UsageError(str(error)) from None


def _target(args: AttributeArguments) -> Target:
    (path,) = args.run
    name = args.checkpoint.removeprefix(CHECKPOINT)
    if path.name.startswith(CHECKPOINT) and path.is_dir():
        own = path.resolve().name.removeprefix(CHECKPOINT)
        if "checkpoint" in args.model_fields_set and own != name:
            raise UsageError(f"{path} is not the checkpoint {name}: leave --checkpoint out")
        path, name = path.resolve().parent, own
    if args.dataset is not None and not args.dataset.is_file():
        raise UsageError(f"--dataset {args.dataset}: no such file")
    runs = find_runs(path)
    if len(runs) != 1:
        some = "".join(f"\n       {run.path}" for run in runs[:5])
        raise UsageError(f"{path} holds {len(runs)} runs: name one{some}")
    targets, lacking = checkpoint_targets([path], [name], args.dataset, args.precision)
    if len(targets) != 1:
        raise UsageError("; ".join(lacking) or f"{path} has no checkpoint {name}")
    return targets[0]


def _methods(args: AttributeArguments, target: Target, run_args: dict[str, Any]) -> list[Method]:
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
        methods.append(EKFAC(args.damping, args.ekfac_batch_size, args.seed))
    return methods


def _documents(args: AttributeArguments, target: Target) -> TrainedDocuments:
    try:
        documents = read_documents(target.folder)
    except UnknownDocumentsError as error:
        raise UsageError(str(error)) from None
    if args.documents == "synthetic":
        documents = documents.only(SYNTHETIC)
    if not documents.rows:
        raise UsageError(f"{target.folder.path} trained no synthetic documents: --documents all")
    return documents


def _check_sizes(
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


def _about(
    args: AttributeArguments, target: Target, run_args: dict[str, Any], log: dict[str, Any]
) -> dict[str, Any]:
    """What was scored with what, as plain JSON; digests of the weights come with the model."""
    provenance = collect_provenance()
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": str(target.folder.path.resolve()),
        "checkpoint": target.name,
        "step": target.step,
        "model": run_args.get("model"),
        "revision": run_args.get("revision"),
        "model_commit": log.get("model_commit"),
        "packing": run_args.get("packing"),
        "train_set_digest": log.get("train_set_digest"),
        "dataset": str(target.dataset),
        "dataset_digest": file_digest(target.dataset),
        "trained_dataset_digest": log.get("dataset_digest"),
        "args": args.model_dump(mode="json"),
        "sign": "positive: training on the document raises the query's log-probability",
        "libraries": provenance["libraries"],
        "git": provenance["git"],
        "command": provenance["command"],
    }


def _progress(what: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done:,} of {total:,} {what}", end="\n" if done == total else "", file=sys.stderr)


if __name__ == "__main__":
    run_command(AttributeArguments, main)
