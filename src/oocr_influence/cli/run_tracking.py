"""What a run tells its trackers: steps, means of its evaluations, what it is.

    tracking = RunTracking.begin(preparation, folder, log, rewound_to=None)
    tracking.step(row, memory_bytes=…)
    tracking.evaluation(42, eval_sets, document_losses)
    tracking.close("completed")

Numbers alone, and all of them lie in the run's folder as well: an attempt that goes on tells what
an earlier one could not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psutil
import torch

from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.preparation import Preparation
from oocr_influence.cli.tracker_choice import trackers_of
from oocr_influence.cli.tracker_thread import Telling, TrackerThread
from oocr_influence.cli.trackers import TrackedRun
from oocr_influence.datasets.eval_sets import describe_set
from oocr_influence.datasets.set_names import asked, kind_named
from oocr_influence.results.experiment_log import ExperimentLog
from oocr_influence.results.naming import readable_number
from oocr_influence.results.run_folder import RunFolder
from oocr_influence.results.step_log import StepRow, read_steps

_LETTERS_OF_A_STAMP = len("2026_01_20_23-26-34_2Q653")
_TOLD_OF_THE_RUN = (
    "sweep_id",
    "commit_hash",
    "model_commit",
    "dataset_digest",
    "n_documents",
    "n_tokens",
    "n_labels",
    "n_windows",
    "steps_per_epoch",
    "total_steps",
    "burn_in_steps",
)


class RunTracking:
    """The trackers of one run; without any, it does nothing.

    `groups` names the groups of each set. Steps are counted with those of burn-in, which come
    first; step 0 comes before them.
    """

    def __init__(
        self,
        threads: Sequence[TrackerThread] = (),
        *,
        burn_in_steps: int = 0,
        groups: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._threads = list(threads)
        self._burn_in_steps = burn_in_steps
        self._groups = groups or {}
        self._is_closed = False

    @classmethod
    def begin(
        cls,
        preparation: Preparation,
        folder: RunFolder,
        log: ExperimentLog,
        *,
        rewound_to: tuple[bool, int] | None,
    ) -> RunTracking:
        """Start the trackers that the run's arguments ask for.

        `rewound_to` is where an attempt goes on: whether in burn-in, and after which step.
        """
        args = preparation.args
        makers = trackers_of(args.logging_type, args.wandb_project)
        if not makers:
            return cls()
        tracking = cls(
            burn_in_steps=preparation.schedule.burn_in_steps, groups=_groups_of(preparation)
        )
        run = TrackedRun(
            id=folder.name[:_LETTERS_OF_A_STAMP],
            name=_name(args),
            group=args.sweep_id,
            config={
                **args.model_dump(mode="json"),
                **{name: log.log_dict.get(name) for name in _TOLD_OF_THE_RUN},
            },
            folder=folder.trackers,
            rewound_to=None if rewound_to is None else (tracking._count(*rewound_to), 1),
        )
        before = [] if rewound_to is None else list(tracking._told_by(folder, log))
        tracking._threads = [
            TrackerThread(name, make, run, before) for name, make in makers.items()
        ]
        return tracking

    @property
    def is_on(self) -> bool:
        return bool(self._threads)

    def step(self, row: StepRow, device: torch.device) -> None:
        """Tell of one update."""
        if self._threads:
            self._tell(self._of_step(row, {"train/memory_bytes": memory_bytes(device)}))

    def evaluation(
        self,
        step: int,
        eval_sets: Mapping[str, Mapping[str, Any]],
        document_losses: Mapping[str, Mapping[str, Any]] | None,
        seconds: float,
    ) -> None:
        """Tell of one evaluation: the means of its groups of sets."""
        if self._threads:
            self._tell(self._of_evaluation(step, eval_sets, document_losses, seconds))

    def close(self, status: str) -> None:
        """Let the trackers come to their end; waits a little."""
        if not self._is_closed:
            self._is_closed = True
            for thread in self._threads:
                thread.close(status)

    def record(self) -> dict[str, Any]:
        """For the run's log, by tracker."""
        return {thread.name: thread.record() for thread in self._threads}

    def _tell(self, telling: Telling) -> None:
        for thread in self._threads:
            thread.tell(*telling)

    def _told_by(self, folder: RunFolder, log: ExperimentLog) -> Iterator[Telling]:
        """What the run's own files say has happened, in order."""
        rows = read_steps(folder.steps) if folder.steps.exists() else iter(())
        tellings = [self._of_step(row, {}) for row in rows]
        for entry in log.history:
            tellings.append(
                self._of_evaluation(
                    entry["step_num"],
                    entry.get("eval_results") or {},
                    entry.get("document_losses"),
                    60 * entry["eval_time"],
                )
            )
        yield from sorted(tellings, key=lambda telling: telling[0])

    def _of_step(self, row: StepRow, beside: Mapping[str, float]) -> Telling:
        values = {
            "train/loss": row.loss,
            "train/learning_rate": row.learning_rate,
            "train/grad_norm": row.grad_norm,
            "train/tokens_per_second": row.labelled_tokens / max(row.seconds, 1e-9),
            "train/epoch": row.epoch,
            "train/step": row.step,
            "train/burn_in": int(row.burn_in),
            **beside,
        }
        return (self._count(row.burn_in, row.step), 0), _numbers(values)

    def _of_evaluation(
        self,
        step: int,
        eval_sets: Mapping[str, Mapping[str, Any]],
        document_losses: Mapping[str, Mapping[str, Any]] | None,
        seconds: float,
    ) -> Telling:
        values: dict[str, Any] = dict(group_means(eval_sets, self._groups))
        for group, loss in (document_losses or {}).items():
            values[f"eval/documents/{group}/mean_loss"] = loss.get("mean_loss")
        values["eval/seconds"] = seconds
        return (self._count(False, step), 1), _numbers(values)

    def _count(self, in_burn_in: bool, step: int) -> int:
        return step if in_burn_in or step == 0 else self._burn_in_steps + step


def group_means(
    eval_sets: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """Means over all questions of the sets of a group, as `eval/<group>/<metric>`.

    A set that has no such mean does not count for it.
    """
    sums: dict[str, tuple[float, int]] = {}
    for name, means in eval_sets.items():
        count = int(means.get("n") or 0)
        for metric, value in means.items():
            if not _is_mean(metric) or not isinstance(value, int | float):
                continue
            for group in groups.get(name, ()):
                key = f"eval/{group}/{metric}"
                total, n = sums.get(key, (0.0, 0))
                sums[key] = total + count * value, n + count
    return {key: total / n for key, (total, n) in sums.items() if n}


def memory_bytes(device: torch.device) -> int:
    """The most that was allocated on the GPU so far; on the CPU what this process holds now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return int(psutil.Process().memory_info().rss)


def _groups_of(preparation: Preparation) -> dict[str, list[str]]:
    """By the kind of a set's questions, and by relation and kind."""
    groups = {}
    for name, builder in preparation.dataset.eval_dataset_builders.items():
        about = describe_set(name, builder)
        kind = _safe(asked(kind_named(about.kind, about.control), about.answer_format))
        groups[name] = [kind, f"{_safe(about.relation)}/{kind}"]
    return groups


def _is_mean(metric: str) -> bool:
    return metric == "accuracy" or metric.startswith(("mean_", "accuracy_"))


def _safe(text: str) -> str:
    """What both services take as a part of a name."""
    return re.sub(r"[^\w.-]+", "_", text)


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def _name(args: TrainingArgs) -> str:
    rate = readable_number(args.learning_rate)
    epochs = readable_number(args.epochs)
    seed = args.data_order_seed
    return f"{args.experiment_name}_epochs_{epochs}_lr_{rate}_seed_{seed}"
