"""The plan of a sweep as plain JSON: what it does, what it takes, and what each number rests on.

    plan = plan_sweep(args, planned, hardware_of(), mfu=0.4)
    plan["whole"]["seconds"]            # {"value": 5400.0, "basis": "projected", "how": "…"}

Counts are exact. Seconds and memory are measured where earlier runs, or a probe, have seen the
same; else they follow from formulas whose terms are told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from launcher.ledger import utc_now
from oocr_influence.cli.device_memory import trained_layout
from oocr_influence.cli.grid import point_label
from oocr_influence.cli.plan_blocks import MeasuredBlocks, blocks_before
from oocr_influence.cli.plan_counts import AskedCounts, RunCounts, count_asked, count_run
from oocr_influence.cli.plan_figures import Figure, unknown
from oocr_influence.cli.plan_hardware import Hardware
from oocr_influence.cli.plan_measured import Measured, measured_before
from oocr_influence.cli.plan_run import RunFigures, figures_of_run
from oocr_influence.cli.plan_subsets import PlannedSubsets, plan_of_subsets
from oocr_influence.cli.plan_time import Work, first_asking, makespan
from oocr_influence.cli.preparation import OTHER_BYTES_PER_RUN, Preparation
from oocr_influence.cli.subset_plan import SubsetPlan
from oocr_influence.cli.sweep_arguments import DataModelingArgs
from oocr_influence.cli.sweep_plan import Planned, needed
from oocr_influence.results.atomic import plain
from oocr_influence.results.cache import Cache

MFU = 0.4
"""Share of a GPU's peak that is used: 0.33 to 0.46 are published for training 7 and 8 billion
parameters (torchtitan, llm-foundry), and evaluations on an H100 reach 0.42 (docs/log.md)."""

Measure = Callable[[Preparation, AskedCounts], Measured | None]


def plan_sweep(
    args: DataModelingArgs,
    planned: Sequence[Planned],
    hardware: Hardware,
    *,
    mfu: float = MFU,
    measure: Measure | None = None,
    subsets: SubsetPlan | None = None,
) -> dict[str, Any]:
    """Points, runs on subsets, and the whole; `measure` looks for what has been seen before."""

    def look(preparation: Preparation, asked: AskedCounts) -> Measured | None:
        return measured_before(args.output_dir, _pinned(preparation), hardware, asked.suite)

    def look_for_blocks(preparation: Preparation) -> MeasuredBlocks | None:
        return blocks_before(args.output_dir, _pinned(preparation), hardware)

    cache = Cache.default() if args.eval_cache else None
    points = [_Point(one, hardware, mfu, measure or look, cache) for one in planned if one.runs]
    on_subsets = None
    if subsets is not None:
        on_subsets = plan_of_subsets(
            subsets,
            hardware,
            mfu=mfu,
            cache=cache,
            measure=measure or look,
            blocks=look_for_blocks,
        )
    works = [work for point in points for work in point.works()]
    works += [] if on_subsets is None else on_subsets.works()
    at_once = _runs_at_once(args, len(works), hardware)
    found: dict[str, Any] = {
        "made": utc_now(),
        "hardware": {**asdict(hardware), "runs_at_once": at_once},
        "mfu": mfu,
        "points": [point.to_json() for point in points],
        "whole": _Whole(args, planned, points, on_subsets).to_json(works, at_once, hardware),
    }
    if on_subsets is not None:
        found["subsets"] = on_subsets.to_json()
    plain_plan: dict[str, Any] = plain(found)
    return plain_plan


def _pinned(preparation: Preparation) -> Any:
    return preparation.args.model_copy(update={"model_commit": preparation.resolved.commit})


class _Point:
    """The runs of one point, on all documents."""

    def __init__(
        self, one: Planned, hardware: Hardware, mfu: float, measure: Measure, cache: Cache | None
    ) -> None:
        self.planned, self.preparation = one, one.preparation
        self.counts = count_run(self.preparation)
        self.asked = count_asked(self.preparation, hardware.kind, cache)
        seen = measure(self.preparation, self.asked)
        self.figures: RunFigures = figures_of_run(
            self.preparation, self.counts, self.asked, hardware, mfu=mfu, seen=seen
        )
        self.seconds = self.figures.seconds(self.counts.updates, len(self.counts.evaluations))

    @property
    def n_runs(self) -> int:
        return len(self.planned.runs)

    def works(self) -> list[Work]:
        first = first_asking(self.planned.args, self.counts, self.asked)
        return [Work(self.seconds, first, self.figures.evaluation.value or 0.0)] * self.n_runs

    def to_json(self) -> dict[str, Any]:
        return {
            "label": point_label(self.planned.point),
            "n_runs": self.n_runs,
            "run": {**asdict(self.counts), "updates": self.counts.updates},
            "asked": asdict(self.asked),
            "update_seconds": self.figures.update.to_json(),
            "evaluation_seconds": self.figures.evaluation.to_json(),
            "beside_seconds": self.figures.beside.to_json(),
            "run_seconds": self.seconds.to_json(),
            "memory_bytes": self.figures.memory.to_json(),
            "checkpoint_bytes": self.preparation.checkpoint_bytes(),
            "run_bytes_at_most": self.preparation.run_bytes(),
            "passing_bytes": self.preparation.passing_bytes(),
        }


def _runs_at_once(args: DataModelingArgs, n_jobs: int, hardware: Hardware) -> int:
    if args.execution_mode == "in_process":
        return 1
    each = max(1, args.gpus_per_job) if hardware.kind == "cuda" else 1
    slots = max(1, hardware.units // each)
    return max(1, min(slots, args.max_workers or slots, n_jobs))


@dataclass(frozen=True)
class _Whole:
    args: DataModelingArgs
    planned: Sequence[Planned]
    points: Sequence[_Point]
    subsets: PlannedSubsets | None

    def to_json(self, works: Sequence[Work], at_once: int, hardware: Hardware) -> dict[str, Any]:
        seconds = makespan(works, at_once)
        gpu_hours = unknown("a run's time is")
        if hardware.kind == "cpu":
            gpu_hours = Figure(0.0, "counted", "no GPU is used")
        elif seconds.value is not None:
            busy = sum(work.seconds.value or 0.0 for work in works)
            hours = busy * max(1, self.args.gpus_per_job) / 3600
            gpu_hours = Figure(hours, seconds.basis, "all runs, each on its GPUs")
        return {
            "runs": sum(point.n_runs for point in self.points)
            + (0 if self.subsets is None else len(self.subsets.plan.runs)),
            "jobs": len(works),
            "updates": self._sum(lambda counts: counts.updates),
            "evaluations": self._sum(lambda counts: len(counts.evaluations)),
            "checkpoints": self._sum(lambda counts: len(counts.checkpoints)),
            "questions": self._questions(),
            "tokens": self._sum(lambda counts: counts.trained_tokens),
            "counts_basis": "counted" if self.subsets is None else self.subsets.basis,
            "seconds": seconds.to_json(),
            "gpu_hours": gpu_hours.to_json(),
            "disk_bytes": self._disk(),
            "disk_reserved": needed(self.args, list(self.planned))
            + (0 if self.subsets is None else self.subsets.plan.needed_bytes()),
        }

    def _sum(self, amount: Callable[[RunCounts], int]) -> int:
        on_all = sum(point.n_runs * amount(point.counts) for point in self.points)
        return on_all + (0 if self.subsets is None else self.subsets.total(amount))

    def _questions(self) -> int:
        asked = sum(
            point.n_runs * len(point.counts.evaluations) * point.asked.questions
            for point in self.points
        )
        if self.subsets is None:
            return asked
        each = self.subsets.total(lambda counts: len(counts.evaluations))
        return asked + each * self.subsets.asked.questions

    def _disk(self) -> list[int]:
        least, most = disk_bounds(self.planned)
        if self.subsets is None:
            return [least, most]
        more = self.subsets.disk_bytes()
        return [least + more[0], most + more[1]]


def disk_bounds(planned: Sequence[Planned]) -> tuple[int, int]:
    """What a sweep leaves on the disk, at least and at most (bytes).

    Weights and the copy of the dataset are known; windows, records and logs are at most what is
    reserved for them. The first checkpoint is stored once for all runs of the same model.
    """
    least = planned[0].preparation.args.structured_dataset.stat().st_size
    starts: set[tuple[Any, ...]] = set()
    for one in planned:
        if not one.runs:
            continue
        preparation = one.preparation
        others = preparation.run_bytes() - OTHER_BYTES_PER_RUN
        if any(moment.step == 0 for moment in preparation.checkpoints):
            others -= preparation.checkpoint_bytes()
            args, layout = preparation.args, trained_layout(preparation.args)
            kind = (args.model, args.revision, layout.weight, args.lora(), args.keep_checkpoints)
            if kind not in starts:
                least += preparation.checkpoint_bytes()
            starts.add(kind)
        least += others * len(one.runs)
    return least, least + OTHER_BYTES_PER_RUN * sum(len(one.runs) for one in planned)
