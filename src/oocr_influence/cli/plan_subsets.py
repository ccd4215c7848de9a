"""The part of a plan that tells of runs on subsets: counts of each subset, time by block, disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from oocr_influence.cli.plan_blocks import MeasuredBlocks
from oocr_influence.cli.plan_counts import AskedCounts, RunCounts, count_asked, count_run
from oocr_influence.cli.plan_figures import Basis, Figure, unknown, weakest
from oocr_influence.cli.plan_hardware import Hardware
from oocr_influence.cli.plan_measured import Measured
from oocr_influence.cli.plan_run import RunFigures, figures_of_run
from oocr_influence.cli.plan_time import Work, first_asking
from oocr_influence.cli.preparation import Preparation
from oocr_influence.cli.subset_counts import SubsetCounts, count_subsets
from oocr_influence.cli.subset_plan import SubsetPlan
from oocr_influence.datasets.subsets import SPLITS
from oocr_influence.results.cache import Cache
from oocr_influence.results.run_folder import ExperimentFolder


@dataclass(frozen=True)
class PlannedSubsets:
    """What runs on subsets do and take."""

    plan: SubsetPlan
    counts: SubsetCounts
    asked: AskedCounts
    figures: RunFigures
    start: Figure
    """Of a block (seconds)."""

    @property
    def basis(self) -> Basis:
        return "counted" if self.counts.is_exact else "projected"

    def total(self, amount: Callable[[RunCounts], float]) -> int:
        """Over all runs."""
        return round(self.counts.total(self.plan, amount))

    def works(self) -> list[Work]:
        """The jobs in their order."""
        mean, evaluations = self._mean_updates(), self._evaluations()
        first = first_asking(self.plan.args, count_run(self.counts.typical), self.asked)
        found = []
        for block in self.plan.blocks():
            own = [self.counts.of(run) for run in block]
            updates = sum(mean if counts is None else counts.updates for counts in own)
            n_asked = len(block) * evaluations
            # What the untouched model answers, the later runs of a block find.
            n_asked -= (len(block) - 1) * (first is not None)
            figure = self.figures.seconds(updates, n_asked)
            if figure.value is not None:
                beside = (len(block) - 1) * (self.figures.beside.value or 0.0)
                total = figure.value + beside + (self.start.value or 0.0)
                figure = Figure(total, self._basis(figure), figure.how)
            found.append(Work(figure, first, self.figures.evaluation.value or 0.0))
        return found

    def disk_bytes(self) -> tuple[int, int]:
        """What they leave, at least and at most (bytes)."""
        saved = [
            self.counts.checkpoint_bytes[run.split, run.index]
            for run in self.plan.runs
            if (run.split, run.index) in self.counts.checkpoint_bytes
        ]
        weights = round(sum(saved) * len(self.plan.runs) / max(len(saved), 1))
        least = weights + self._file_bytes()
        return least, least + self.plan.record_bytes() * len(self.plan.runs)

    def to_json(self) -> dict[str, Any]:
        """As it stands in plan.json."""
        counts = count_run(self.counts.typical)
        run = self.figures.seconds(self._mean_updates(), self._evaluations())
        blocks = self.plan.blocks()
        return {
            "splits": {split: self._split(split) for split in SPLITS if self.plan.subsets[split]},
            "n_runs": len(self.plan.runs),
            "n_jobs": len(blocks),
            "runs_per_job": max(map(len, blocks), default=0),
            "subsets_counted": len(self.counts.counted),
            "windows": self._spread(lambda one: one.windows),
            "updates": self._spread(lambda one: one.updates),
            "run": {**asdict(counts), "updates": counts.updates},
            "asked": asdict(self.asked),
            "update_seconds": self.figures.update.to_json(),
            "evaluation_seconds": self.figures.evaluation.to_json(),
            "beside_seconds": self.figures.beside.to_json(),
            "start_seconds": self.start.to_json(),
            "run_seconds": run.to_json(),
            "memory_bytes": self.figures.memory.to_json(),
            "checkpoint_bytes": self.counts.typical.checkpoint_bytes(),
            "run_bytes_at_most": self.plan.run_bytes(),
            "subset_file_bytes": self._file_bytes(),
        }

    def _split(self, split: Any) -> dict[str, Any]:
        sizes = [len(subset.places) for subset in self.plan.subsets[split]]
        return {
            "subsets": len(sizes),
            "runs_per_subset": self.plan.args.runs_of(split),
            "documents": [min(sizes), max(sizes)],
            "design": self.plan.args.subset_design,
        }

    def _spread(self, amount: Callable[[RunCounts], float]) -> dict[str, float]:
        """Over runs: the least, the mean, the most."""
        values = [amount(one) for one in self.counts.counted.values()]
        mean = self.counts.total(self.plan, amount) / max(len(self.plan.runs), 1)
        return {"fewest": min(values), "mean": mean, "most": max(values)}

    def _mean_updates(self) -> float:
        return self._spread(lambda counts: counts.updates)["mean"]

    def _evaluations(self) -> float:
        return self._spread(lambda counts: len(counts.evaluations))["mean"]

    def _basis(self, run: Figure) -> Basis:
        return weakest([run, self.start]) if self.start.value is not None else "projected"

    def _file_bytes(self) -> int:
        """Of the subsets' own files."""
        anywhere, total = ExperimentFolder(Path("anywhere")), 0
        for split in SPLITS:
            for index in range(len(self.plan.subsets[split])):
                reference = self.plan.reference(anywhere, split, index, digest="0" * 64)
                for content in (reference, self.plan.about(split, index)):
                    text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
                    total += len(text.encode())
        return total


def plan_of_subsets(
    plan: SubsetPlan,
    hardware: Hardware,
    *,
    mfu: float,
    cache: Cache | None,
    measure: Callable[[Preparation, AskedCounts], Measured | None],
    blocks: Callable[[Preparation], MeasuredBlocks | None],
) -> PlannedSubsets:
    """Count every subset; `measure` and `blocks` look for what has been seen before."""
    counts = count_subsets(plan)
    typical = counts.typical
    asked = count_asked(typical, hardware.kind, cache)
    seen, seen_blocks = measure(typical, asked), blocks(typical)
    figures = figures_of_run(typical, count_run(typical), asked, hardware, mfu=mfu, seen=seen)
    start = unknown("loading the base, once a job: no job of this model was seen")
    beside = unknown("preparing and writing: no job of this model was seen")
    if seen_blocks is not None:
        start = Figure(seen_blocks.start_seconds, "measured here", seen_blocks.source)
        beside = Figure(seen_blocks.beside_seconds, "measured here", seen_blocks.source)
    figures = RunFigures(figures.update, figures.evaluation, beside, figures.memory)
    return PlannedSubsets(plan, counts, asked, figures, start)
