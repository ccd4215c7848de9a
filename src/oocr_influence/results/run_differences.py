"""How two runs differ in what was asked for and what they were run with, in words.

    for difference in differences(record_of(run_a), record_of(run_b)).found:
        print(difference.part, difference.words)

Names and places of runs, and flags that change no result, are not compared.
"""

from __future__ import annotations

from typing import Any

from oocr_influence.results.differing import (
    MISSING,
    Differences,
    Record,
    compare_logged,
    compare_values,
)
from oocr_influence.results.place_differences import differences_of_place

# Names, places, and what changes no result; a dataset is compared by its digest.
_NOT_COMPARED = {
    "experiment_name",
    "output_dir",
    "sweep_id",
    "structured_dataset",
    "metric_files",
    "eval_cache",
    "force_local_model_cache",
    "logging_type",
}
_OF_THE_ORDER = ("data_order_seed", "packing_seed", "document_order", "seed")
_OF_THE_MODEL = ("model", "revision", "model_commit")
_OF_THE_DATA = {
    "dataset_digest": "the dataset's file",
    "n_documents": "documents that were trained",
    "n_tokens": "tokens",
    "n_windows": "windows",
    "packing_digest": "the windows",
    "eval_suite_digest": "the questions",
    "n_eval_sets": "sets of questions",
}
# What transformers writes into a configuration of its own accord.
_NOT_OF_A_MODEL = {"transformers_version", "_name_or_path", "torch_dtype", "dtype", "use_cache"}


def differences(a: Record, b: Record) -> Differences:
    """All but the results (see run_outcomes.py)."""
    found = Differences()
    for compare in (_configuration, _model, _data, _order):
        compare(a, b, found)
    of_the_place = differences_of_place(a, b)
    found.found += of_the_place.found
    found.unknown += of_the_place.unknown
    return found


def effective_args(record: Record) -> dict[str, Any]:
    """The arguments with what `auto` became, as far as the run wrote that down."""
    args, logged = dict(record.args), record.log_dict
    if logged.get("attention") is not None:
        args["attention"] = logged["attention"]
    if logged.get("compiled") is not None:
        args["compile"] = "on" if logged["compiled"] else "off"
    if args.get("precision") == "auto" and logged.get("dtype") is not None:
        known = {"torch.float32": "fp32", "torch.bfloat16": "bf16"}
        args["precision"] = known.get(logged["dtype"], logged["dtype"])
    return args


def _configuration(a: Record, b: Record, found: Differences) -> None:
    left, right = effective_args(a), effective_args(b)
    others = {*_NOT_COMPARED, *_OF_THE_ORDER, *_OF_THE_MODEL}
    for name in sorted((left.keys() | right.keys()) - others):
        compare_values(
            found, "configuration", name, left.get(name, MISSING), right.get(name, MISSING)
        )


def _model(a: Record, b: Record, found: Differences) -> None:
    commits = [one.log_dict.get("model_commit") for one in (a, b)]
    same_commit = commits[0] is not None and commits[0] == commits[1]
    for name in ("model",) if same_commit else ("model", "revision"):
        compare_values(found, "model", name, a.args.get(name, MISSING), b.args.get(name, MISSING))
    compare_logged(found, a, b, "model", "model_commit", "the model's commit")
    compare_logged(found, a, b, "model", "weights_digest", "the untouched weights")
    left, right = (_shape_of(one.log_dict.get("model_config")) for one in (a, b))
    for name in sorted(left.keys() & right.keys()):
        compare_values(found, "model", f"config.{name}", left[name], right[name])


def _shape_of(config: Any) -> dict[str, Any]:
    if not isinstance(config, dict):
        return {}
    return {name: value for name, value in config.items() if name not in _NOT_OF_A_MODEL}


def _data(a: Record, b: Record, found: Differences) -> None:
    for name, words in _OF_THE_DATA.items():
        compare_logged(found, a, b, "data", name, words)
    metrics = [one.log_dict.get("metric_file_digests", MISSING) for one in (a, b)]
    left, right = (sorted(one.values()) if isinstance(one, dict) else MISSING for one in metrics)
    compare_values(found, "data", "the files of own metrics", left, right)


def _order(a: Record, b: Record, found: Differences) -> None:
    for name in _OF_THE_ORDER:
        left, right = a.args.get(name, MISSING), b.args.get(name, MISSING)
        compare_values(found, "data order", name, left, right)
    left, right = (one.log_dict.get("order_digests") or {} for one in (a, b))
    if not left or not right:
        found.unknown.append("the order of windows in each epoch")
    for epoch in sorted(left.keys() & right.keys(), key=int):
        compare_values(
            found,
            "data order",
            f"order_digests.{epoch}",
            left[epoch],
            right[epoch],
            lambda *_, epoch=epoch: f"the windows of epoch {epoch} come in another order",
        )
