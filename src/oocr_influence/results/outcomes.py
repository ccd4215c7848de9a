"""What runs on subsets of the documents trained, and what they then answered: one array a metric.

    outcomes = Outcomes.load(folder)
    outcomes.means("logprob")        # (subsets, questions), over the runs of each subset
    outcomes.trained                 # (subsets, documents): how often each document was trained

The arrays are memory-mapped. Shapes: S subsets, K runs a subset, D documents, Q questions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from oocr_influence.results.atomic import remove_folder, write_json, writing_folder

Floats = npt.NDArray[np.floating[Any]]
Row = Mapping[str, Any]
VERSION = 1
_ABOUT, _TRAINED, _SEEDS = "about.json", "trained.npy", "seeds.npy"
_TRAINED_RUNS = "trained_runs.npy"
_TABLES = ("subsets", "documents", "questions")


@dataclass(frozen=True)
class Outcomes:
    """One sweep over subsets, as far as it has come.

    A run that has not completed is NaN in every metric. Rows of `subsets` have `split` and
    `dataset_id`, those of `documents` `id`, `occurrence`, `fact_id` and `relation` (None for
    pretraining text), those of `questions` `set`, `index` and what else is known of them.
    """

    subsets: Sequence[Row]
    documents: Sequence[Row]
    questions: Sequence[Row]
    trained: Floats
    """(S, D) times that each document was trained, as the runs' own accounts have it: their mean,
    where runs of a subset ended within an epoch."""
    seeds: npt.NDArray[np.int64]
    """(S, K) data order seed of each run; -1 where a subset has fewer runs."""
    metrics: Mapping[str, Floats] = field(repr=False)
    """(S, K, Q) by name."""
    trained_runs: Floats | None = None
    """(S, K, D), where runs of a subset differ in what they trained."""

    def __post_init__(self) -> None:
        shape = (len(self.subsets), self.seeds.shape[-1], len(self.questions))
        wrong = [
            f"{name} {array.shape}, not {wanted}"
            for name, array, wanted in (
                ("trained", self.trained, (shape[0], len(self.documents))),
                ("seeds", self.seeds, shape[:2]),
                *((name, array, shape) for name, array in self.metrics.items()),
            )
            if array.shape != wanted
        ]
        if wrong:
            raise ValueError(f"arrays of outcomes do not fit: {'; '.join(wrong)}")

    @classmethod
    def of_runs(
        cls,
        subsets: Sequence[Row],
        documents: Sequence[Row],
        questions: Sequence[Row],
        trained_runs: Floats,
        seeds: npt.NDArray[np.int64],
        metrics: Mapping[str, Floats],
    ) -> Outcomes:
        """Out of what each run trained, (S, K, D); runs that have not completed count for none."""
        whole = cls(subsets, documents, questions, trained_runs[:, 0], seeds, metrics)
        done_SK1 = whole.completed()[:, :, None]
        count_S1 = np.maximum(done_SK1.sum(axis=1), 1)
        mean_SD = ((trained_runs * done_SK1).sum(axis=1) / count_S1).astype(trained_runs.dtype)
        differ = bool((done_SK1 & (trained_runs != mean_SD[:, None])).any())
        return replace(whole, trained=mean_SD, trained_runs=trained_runs if differ else None)

    def trained_by_run(self) -> Floats:
        """(S, K, D); zeros of a run that has not completed."""
        if self.trained_runs is not None:
            return self.trained_runs
        return np.asarray(self.trained)[:, None] * self.completed()[:, :, None]

    def values(self, metric: str) -> Floats:
        """(S, K, Q); ValueError for a metric that was not measured."""
        if metric not in self.metrics:
            raise ValueError(f"no metric {metric!r} here: {', '.join(sorted(self.metrics))}")
        return self.metrics[metric]

    def means(self, metric: str) -> npt.NDArray[np.float64]:
        """(S, Q) over the completed runs of each subset; NaN where there is none."""
        values_SKQ = np.asarray(self.values(metric), dtype=np.float64)
        there_SKQ = np.isfinite(values_SKQ)
        count_SQ = there_SKQ.sum(axis=1)
        total_SQ = np.where(there_SKQ, values_SKQ, 0.0).sum(axis=1)
        return np.where(count_SQ > 0, total_SQ / np.maximum(count_SQ, 1), np.nan)

    def completed(self) -> npt.NDArray[np.bool_]:
        """(S, K): which runs have answered."""
        first = next(iter(self.metrics.values()), None)
        if first is None:
            return np.zeros(self.seeds.shape, dtype=bool)
        return np.asarray(np.isfinite(first).any(axis=2))

    def where(
        self, *, subsets: Sequence[int] | None = None, questions: Sequence[int] | None = None
    ) -> Outcomes:
        """These subsets and questions alone, by their places."""
        s = np.arange(len(self.subsets)) if subsets is None else np.asarray(subsets, dtype=int)
        q = np.arange(len(self.questions)) if questions is None else np.asarray(questions, int)
        return replace(
            self,
            subsets=[self.subsets[i] for i in s],
            questions=[self.questions[i] for i in q],
            trained=self.trained[s],
            trained_runs=None if self.trained_runs is None else self.trained_runs[s],
            seeds=self.seeds[s],
            metrics={name: array[s][:, :, q] for name, array in self.metrics.items()},
        )

    def split(self, name: str) -> Outcomes:
        """The subsets of one split, `train` or `test`, that have a completed run.

        Where the other split has more runs a subset, its further places are left out.
        """
        done_S = np.asarray(self.completed().any(axis=1))
        own = self.where(
            subsets=[i for i, s in enumerate(self.subsets) if s["split"] == name and done_S[i]]
        )
        n_runs = int((np.asarray(own.seeds) >= 0).any(axis=0).sum())
        return replace(
            own,
            seeds=own.seeds[:, :n_runs],
            trained_runs=None if own.trained_runs is None else own.trained_runs[:, :n_runs],
            metrics={metric: values[:, :n_runs] for metric, values in own.metrics.items()},
        )

    def save(self, folder: Path) -> None:
        """Write it whole, in the place of earlier ones; the same outcomes are the same bytes."""
        if folder.exists():
            remove_folder(folder)
        with writing_folder(folder) as to:
            for name in _TABLES:
                rows = [dict(row) for row in getattr(self, name)]
                pq.write_table(pa.Table.from_pylist(rows), to / f"{name}.parquet")
            np.save(to / _TRAINED, self.trained)
            np.save(to / _SEEDS, self.seeds)
            if self.trained_runs is not None:
                np.save(to / _TRAINED_RUNS, self.trained_runs)
            for name, array in self.metrics.items():
                np.save(to / f"metric_{name}.npy", array)
            write_json(to / _ABOUT, {"version": VERSION, "metrics": sorted(self.metrics)})

    @classmethod
    def load(cls, folder: Path) -> Outcomes:
        """Read what `save` wrote; FileNotFoundError and ValueError name the file."""
        about_file = folder / _ABOUT
        if not about_file.is_file():
            raise FileNotFoundError(f"{about_file} is not there: no outcomes of subsets")
        about = json.loads(about_file.read_text(encoding="utf-8"))
        if about.get("version") != VERSION:
            raise ValueError(f"{about_file}: version {about.get('version')!r}, not {VERSION}")

        def array(name: str) -> Any:
            return np.load(folder / name, mmap_mode="r", allow_pickle=False)

        tables = {name: pq.read_table(folder / f"{name}.parquet").to_pylist() for name in _TABLES}
        return cls(
            **tables,
            trained=array(_TRAINED),
            seeds=array(_SEEDS),
            trained_runs=array(_TRAINED_RUNS) if (folder / _TRAINED_RUNS).is_file() else None,
            metrics={name: array(f"metric_{name}.npy") for name in about["metrics"]},
        )
