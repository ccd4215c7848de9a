"""Which documents taught it: score every document of a run for every question, by several methods.

    oocr attribute outputs/2026_… --to scored/final
    oocr attribute outputs/2026_…/checkpoint_e1_s42 --methods gradient ekfac --to scored/e1
    oocr attribution score scored/final --outcomes outputs/…_subsets

A score is positive where training on the document raises the log-probability of the right answer.
How often each document was trained, TF-IDF and BM25 are always among the methods: what reads the
model must beat them. docs/attribution.md has each method's formula, unit and cost.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

import torch
import transformers

from oocr_influence.attribution.method import Method, Subject, attribute
from oocr_influence.attribution.queries import make_queries
from oocr_influence.attribution.statistics import needed
from oocr_influence.attribution.trained_documents import (
    SYNTHETIC,
    TrainedDocuments,
    UnknownDocumentsError,
    read_documents,
)
from oocr_influence.cli.arguments import UsageError, run_command
from oocr_influence.cli.attribute_options import AttributeArguments, check_sizes, chosen_methods
from oocr_influence.cli.evaluate import chosen_sets
from oocr_influence.cli.evaluation_targets import Target, checkpoint_targets
from oocr_influence.evaluation.plan import build_plan
from oocr_influence.models.load import load_model, load_tokenizer, pick_device, weights_digest
from oocr_influence.results.attributions import Attributions
from oocr_influence.results.digests import file_digest
from oocr_influence.results.experiment_log import read_experiment_log
from oocr_influence.results.finding import find_runs
from oocr_influence.results.provenance import collect_provenance, installed
from oocr_influence.results.run_folder import CHECKPOINT

# Beside those that every run records.
PACKAGES = ("scikit-learn", "scipy", "kronfluence", "bergson", "accelerate")


def main(args: AttributeArguments) -> int:
    """Score, write, say what took how long."""
    _check_packages()
    target = _target(args)
    device = pick_device() if args.device == "auto" else torch.device(args.device)
    log = read_experiment_log(target.folder.experiment_log)
    methods = chosen_methods(args, target, log.args or {})
    builders = chosen_sets(target.dataset, args.sets)
    documents = _documents(args, target)
    plan = build_plan(builders, load_tokenizer(target.tokenizer))
    queries = make_queries(builders, plan, documents.facts)
    check_sizes(methods, target, len(queries.rows), device)
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
        "libraries": {**provenance["libraries"], **installed(PACKAGES)},
        "git": provenance["git"],
        "command": provenance["command"],
    }


def _progress(what: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done:,} of {total:,} {what}", end="\n" if done == total else "", file=sys.stderr)


if __name__ == "__main__":
    run_command(AttributeArguments, main)
