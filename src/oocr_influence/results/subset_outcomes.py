"""The outcomes of a sweep over subsets, gathered from its runs and kept beside them.

    outcomes = subset_outcomes("outputs/2026_…_mayors")      # in 100 subsets × 20 runs: a second
    outcomes.split("train").means("logprob")

What a run answered and trained is read once and kept in `outcomes/`, which may be deleted: it is
made again. A sweep that goes on can be read at any time; its missing runs are NaN.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from oocr_influence.results.atomic import write_json
from oocr_influence.results.experiment_log import read_experiment_log
from oocr_influence.results.finding import find_experiments
from oocr_influence.results.outcomes import Outcomes
from oocr_influence.results.run_folder import ExperimentFolder, RunFolder

SPLITS = ("train", "test")
EVALUATION = "final"
_SOURCES = "sources.json"
_OF_A_QUESTION = (
    *("set", "index", "id", "entity", "prompt", "completion", "world", "relation", "kind"),
    *("control", "answer_format", "style", "phrasing", "shots"),
)


@dataclass(frozen=True)
class _Cell:
    """A run's place in the arrays: subset s, run k."""

    s: int
    k: int
    run: RunFolder

    def source(self) -> list[Any]:
        """What says whether the run was read already."""
        stat = self.run.records(EVALUATION).stat()
        return [self.run.name, stat.st_size, stat.st_mtime_ns]


def subset_outcomes(path: str | os.PathLike[str]) -> Outcomes:
    """The outcomes of the experiment at `path`, as far as it has come.

    Raises FileNotFoundError where it has no subsets, and ValueError for two runs that were asked
    other questions.
    """
    experiment = subset_experiment(Path(path))
    subsets = list(_subsets(experiment))
    seeds = _seeds(experiment, [subset["n_runs"] for subset in subsets])
    cells = _completed(experiment, subsets, seeds)
    kept, sources = _kept(experiment, subsets, seeds)
    wanted = {f"{cell.s},{cell.k}": cell.source() for cell in cells}
    if kept is not None and sources == wanted:
        return kept
    outcomes = _gathered(experiment, subsets, seeds, cells, kept, sources)
    # Another reader may write the same this moment, and the folder may be read-only.
    with suppress(OSError):
        outcomes.save(experiment.outcomes)
        write_json(experiment.outcomes / _SOURCES, wanted)
        return Outcomes.load(experiment.outcomes)
    return outcomes


def subset_experiment(path: Path) -> ExperimentFolder:
    """The one experiment with subsets at `path`; FileNotFoundError for none and for several."""
    found = find_experiments(path)
    with_subsets = [one for one in found if any(map(one.subset_numbers, SPLITS))]
    if len(with_subsets) != 1:
        raise FileNotFoundError(
            f"{path} has {len(with_subsets)} experiments with subsets of documents: name one that "
            "was run with --n_datasets_train or --n_datasets_test"
        )
    return with_subsets[0]


def _subsets(experiment: ExperimentFolder) -> Iterator[dict[str, Any]]:
    for split in SPLITS:
        for index in experiment.subset_numbers(split):
            about = json.loads(experiment.subset_metadata(split, index).read_text("utf-8"))
            del about["docs_included"]  # what was trained says the runs' own account
            about.get("removal", {}).pop("removed", None)
            yield {"split": split, **about}


def _seeds(experiment: ExperimentFolder, n_runs: Sequence[int]) -> np.ndarray[Any, Any]:
    """(S, K) as planned; -1 where a subset has fewer runs."""
    args = read_experiment_log(experiment.experiment_log).args or {}
    first = int(args.get("all_docs_data_order_seed", 42))
    place_K = np.arange(max(n_runs))
    return np.where(place_K < np.array(n_runs)[:, None], first + place_K, -1)


def _completed(
    experiment: ExperimentFolder,
    subsets: Sequence[Mapping[str, Any]],
    seeds_SK: np.ndarray[Any, Any],
) -> list[_Cell]:
    cells = []
    for s, subset in enumerate(subsets):
        found: dict[int, RunFolder] = {}
        for run in experiment.runs_of_subset(subset["split"], subset["dataset_idx"]):
            try:
                logged = read_experiment_log(run.experiment_log)
            except (OSError, ValueError):
                continue  # killed before it had a log
            if logged.status == "completed" and run.records(EVALUATION).exists():
                found.setdefault(int((logged.args or {})["data_order_seed"]), run)
        for k, seed in enumerate(seeds_SK[s]):
            if int(seed) in found:
                cells.append(_Cell(s, k, found[int(seed)]))
    return cells


def _kept(
    experiment: ExperimentFolder,
    subsets: Sequence[Mapping[str, Any]],
    seeds_SK: np.ndarray[Any, Any],
) -> tuple[Outcomes | None, dict[str, list[Any]]]:
    try:
        kept = Outcomes.load(experiment.outcomes)
        sources = json.loads((experiment.outcomes / _SOURCES).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, pa.ArrowException):
        return None, {}
    same = list(kept.subsets) == list(subsets) and np.array_equal(kept.seeds, seeds_SK)
    return (kept, sources) if same else (None, {})


def _gathered(
    experiment: ExperimentFolder,
    subsets: Sequence[Mapping[str, Any]],
    seeds_SK: np.ndarray[Any, Any],
    cells: Sequence[_Cell],
    kept: Outcomes | None,
    sources: Mapping[str, list[Any]],
) -> Outcomes:
    """Read the runs that are not kept yet, beside those that are."""
    documents = _documents(experiment)
    place = {(d["id"], d["occurrence"]): i for i, d in enumerate(documents)}
    shape = seeds_SK.shape
    trained_SKD = np.zeros((*shape, len(documents)), dtype=np.float32)
    questions = None if kept is None else [dict(row) for row in kept.questions]
    metrics: dict[str, Any] = {}
    if kept is not None and kept.trained_by_run().shape == trained_SKD.shape:
        trained_SKD[:] = kept.trained_by_run()
        metrics = {name: np.array(values) for name, values in kept.metrics.items()}
    else:
        sources = {}
    for cell in cells:
        if sources.get(f"{cell.s},{cell.k}") == cell.source():
            continue
        asked, answers = _answers(cell.run)
        if questions is None:
            questions = asked
        elif asked != questions:
            raise ValueError(
                f"{cell.run.path} was asked other questions than the runs before it: its outcomes "
                "cannot stand beside theirs"
            )
        for name, values_Q in answers.items():
            if name not in metrics:
                metrics[name] = np.full((*shape, len(asked)), np.nan, dtype=np.float64)
            metrics[name][cell.s, cell.k] = values_Q
        trained_SKD[cell.s, cell.k] = _times_trained(cell.run, place)
    here = {(cell.s, cell.k) for cell in cells}
    for s, k in np.argwhere(seeds_SK >= 0).tolist():
        if (s, k) not in here:  # it was deleted since
            trained_SKD[s, k] = 0
            for values in metrics.values():
                values[s, k] = np.nan
    return Outcomes.of_runs(
        subsets, documents, questions or [], trained_SKD, np.asarray(seeds_SK), metrics
    )


def _answers(run: RunFolder) -> tuple[list[dict[str, Any]], dict[str, np.ndarray[Any, Any]]]:
    """A run's questions in a fixed order, and the numbers that it gave for each."""
    table = pq.read_table(run.records(EVALUATION)).sort_by(
        [("set", "ascending"), ("index", "ascending")]
    )
    asked = table.select([c for c in _OF_A_QUESTION if c in table.column_names]).to_pylist()
    numbers = {}
    for column in table.schema:
        is_number = pa.types.is_floating(column.type) or pa.types.is_integer(column.type)
        if is_number and column.name not in _OF_A_QUESTION:
            values = table.column(column.name).cast(pa.float64()).to_numpy(zero_copy_only=False)
            if not np.isnan(values).all():
                numbers[column.name] = values
    return asked, numbers


def _times_trained(run: RunFolder, place: Mapping[tuple[str, int], int]) -> Any:
    """(D,) how often each document was trained: of its labels, by the loop's own count."""
    times_D = np.zeros(len(place), dtype=np.float32)
    for row in pq.read_table(run.exposure).to_pylist():
        if row["labels_once"]:
            key = (row["id"], row["occurrence"])
            times_D[place[key]] = row["labels_trained"] / row["labels_once"]
    return times_D


def _documents(experiment: ExperimentFolder) -> list[dict[str, Any]]:
    raw = json.loads(experiment.structured_dataset.read_text(encoding="utf-8"))
    seen: dict[str, int] = {}
    rows = []
    for document in raw["document_dataset"]["docs"]:
        fact = (document.get("doc_spec") or {}).get("fact") or {}
        doc_id = document["id"]
        rows.append(
            {
                "id": doc_id,
                "occurrence": seen.get(doc_id, 0),
                "type": document["type"],
                "fact_id": fact.get("id"),
                "relation": (fact.get("template") or {}).get("relation"),
                "entity": (fact.get("feature_set") or {}).get("id"),
            }
        )
        seen[doc_id] = seen.get(doc_id, 0) + 1
    return rows


__all__ = ["EVALUATION", "subset_experiment", "subset_outcomes"]
