"""The one place that knows every name in an experiment's and a run's folder.

    experiment = ExperimentFolder.create(Path("outputs"), "mayors_1epoch")
    run = RunFolder.create(experiment.all_docs_runs, "mayors_1epoch", epochs=1, learning_rate=1e-4)
    with run.writing_checkpoint("e1_s42") as folder:
        model.save_pretrained(folder)
    run.write_evaluation("e1_s42", step_num=42, epoch_num=0.2, eval_seconds=3.1, ...)

Names are the seed's, odd ones included: `tokenizer.json/` and run names in `.json` are folders.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oocr_influence.results import (
    atomic,
    dataset_files,
    evaluation_files,
    naming,
    ownership,
    step_log,
)
from oocr_influence.results.digests import text_digest

STRUCTURED_DATASET = "structured_dataset_all.json"
CHECKPOINT = "checkpoint_"
EVALUATION = "eval_results_"
RECORDS = "records_"
ALL_DOCS_RUNS = "all_docs_runs"
_OF_JOBS = ("spec.json", "state.json")
DATA_MODELING_RUNS = ("data_modeling_runs_train", "data_modeling_runs_test")
RUNS_FOLDERS = (ALL_DOCS_RUNS, *DATA_MODELING_RUNS)
SUBSET_BUILDER = "_dataset_builder.json"
SUITE_LETTERS = 16
# An evaluation that was added later: its checkpoint and the suite that was asked.
_ADDED = re.compile(rf"(.+)__([0-9a-f]{{{SUITE_LETTERS}}})", re.DOTALL)


@dataclass(frozen=True)
class _Folder:
    """What an experiment's and a run's folder have in common."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def experiment_log(self) -> Path:
        return self.path / "experiment_log.json"

    @property
    def text_log(self) -> Path:
        return self.path / "experiment.log"


@dataclass(frozen=True)
class RunFolder(_Folder):
    """One run: checkpoints, what was asked, what was answered, what was trained on."""

    @classmethod
    def create(
        cls,
        parent: Path,
        experiment_name: str,
        epochs: float,
        learning_rate: float,
        dataset_file: str = STRUCTURED_DATASET,
        kind: str = "all_docs",
    ) -> RunFolder:
        """Make a new folder in `parent`, owned by this process.

        Raises ValueError where the experiment's name cannot be part of a folder's.
        """
        naming.check_experiment_name(experiment_name)
        file_name = Path(dataset_file).name
        name = naming.run_name(experiment_name, kind, epochs, learning_rate, file_name)
        run = cls(naming.create_stamped(parent, name))
        run.claim()
        return run

    @property
    def experiment(self) -> ExperimentFolder:
        """The experiment whose `all_docs_runs/` (or the like) holds this run.

        A run that was made on its own is its own experiment.
        """
        inside = self.path.parent.name in RUNS_FOLDERS
        return ExperimentFolder(self.path.parent.parent if inside else self.path)

    @property
    def owner_file(self) -> Path:
        return self.path / "owner.json"

    @property
    def tokenizer(self) -> Path:
        """A folder, although its name is `tokenizer.json`."""
        return self.path / "tokenizer.json"

    @property
    def train_set(self) -> Path:
        return self.path / "train_set"

    @property
    def train_set_documents(self) -> Path:
        """The rows exactly as trained, where packing is masked."""
        return self.path / "train_set_documents"

    @property
    def eval_datasets(self) -> Path:
        return self.path / "eval_datasets"

    @property
    def eval_results(self) -> Path:
        return self.path / "eval_results"

    @property
    def saved_objects(self) -> Path:
        return self.path / "saved_objects"

    @property
    def steps(self) -> Path:
        """The step log: one line of JSON an update."""
        return self.saved_objects / "steps.jsonl"

    @property
    def trackers(self) -> Path:
        """What W&B and TensorBoard keep of this run, and how far each has been told."""
        return self.saved_objects / "trackers"

    @property
    def exposure(self) -> Path:
        """How many labels of each document entered the loss: one row a document."""
        return self.saved_objects / "exposure.parquet"

    @property
    def training_state(self) -> Path:
        """What exact resuming takes, beside the last checkpoint; gone when the run is complete."""
        return self.path / "training_state.pt"

    @property
    def profile(self) -> Path:
        """With `--profile`: where the time and the memory of a few updates went."""
        return self.saved_objects / "profile"

    @property
    def working_tree_diff(self) -> Path:
        """How the code differed from its commit when the run began; not there where it did not."""
        return self.saved_objects / "working_tree.diff"

    def later_diff(self, digest: str) -> Path:
        """The same, by its digest, of when the run was gone on with."""
        return self.saved_objects / f"working_tree_{digest[:16]}.diff"

    def save_diff(self, diff: str, *, shared: bool = False) -> None:
        """Keep how the code differs from its commit; the first stays beside later ones.

        `shared`: thousands of runs of an experiment have it, and share the bytes of one file.
        """
        path = self.working_tree_diff
        if path.exists():
            if path.read_text(encoding="utf-8") == diff:
                return
            path = self.later_diff(text_digest(diff))
        if not shared:
            atomic.write_text(path, diff)
            return
        one = self.experiment.path / self.later_diff(text_digest(diff)).name
        if not one.exists():
            atomic.write_text(one, diff)
        atomic.link_file(one, path)

    def checkpoint(self, name: str) -> Path:
        """Where the checkpoint `start`, `e1_s42` or `final` lies."""
        return self.path / f"{CHECKPOINT}{naming.escaped(name)}"

    def evaluation(self, name: str, suite: str | None = None) -> Path:
        """Means of an evaluation: the run's own, or one that was added later with `suite`."""
        return self.eval_results / f"{EVALUATION}{_evaluation_name(name, suite)}.json"

    def records(self, name: str, suite: str | None = None) -> Path:
        """Questions of an evaluation (see `evaluation`)."""
        return self.eval_results / f"{RECORDS}{_evaluation_name(name, suite)}.parquet"

    def eval_dataset(self, set_name: str) -> Path:
        """Holds `eval_dataset/` and `eval_functions.json` of a set."""
        return self.eval_datasets / naming.escaped(set_name)

    def checkpoints(self) -> list[str]:
        """Names of the checkpoints that are there, in the order of their steps."""
        found = [path.name for path in self.path.glob(f"{CHECKPOINT}*") if path.is_dir()]
        return sorted((name.removeprefix(CHECKPOINT) for name in found), key=_by_step)

    def evaluations(self) -> list[str]:
        """Names of the run's own evaluations that are there, in the order of their steps."""
        names = [name for name in self._evaluation_names() if not _ADDED.fullmatch(name)]
        return sorted(names, key=_by_step)

    def added_evaluations(self) -> list[tuple[str, str]]:
        """Checkpoint and suite of the evaluations that were added later, in the same order."""
        found = [match for name in self._evaluation_names() if (match := _ADDED.fullmatch(name))]
        return sorted(((m[1], m[2]) for m in found), key=lambda pair: (_by_step(pair[0]), pair[1]))

    def _evaluation_names(self) -> list[str]:
        found = self.eval_results.glob(f"{EVALUATION}*.json")
        return [path.stem.removeprefix(EVALUATION) for path in found]

    def unfinished(self) -> list[Path]:
        """What killed writers left behind, anywhere in the run."""
        return sorted(self.path.rglob(f"{atomic.TEMPORARY_PREFIX}*"))

    def claim(self) -> ownership.Owner:
        """Make this process the owner; raises RunOwnedError if another live one is."""
        owner = ownership.claim(self.owner_file)
        for folder in (self.path, self.eval_results, self.saved_objects, self.eval_datasets):
            if folder.is_dir():
                atomic.remove_temporaries(folder)
        return owner

    def writing_training_state(self) -> AbstractContextManager[Path]:
        """A temporary file that replaces the training state when the body succeeds."""
        return atomic.writing_file(self.training_state)

    def rewind(self, step: int, *, in_burn_in: int | None) -> list[str]:
        """Take back what the owner wrote after `step`, which will be made again; returns names.

        `in_burn_in` is the last burn-in update, while `step` is 0. Checkpoints, evaluations and
        lines of the step log are removed; evaluations that were added later are not the owner's.
        """
        later = {
            name
            for name in {*self.checkpoints(), *self.evaluations()}
            if _by_step(name)[0] > max(step, 0)
        }
        removed = []
        for name in sorted(later, key=_by_step):
            if self.checkpoint(name).is_dir():
                removed.append(self.checkpoint(name).name)
                self.remove_checkpoint(name)
            for path in (self.evaluation(name), self.records(name)):
                if path.exists():
                    removed.append(path.name)
                    path.unlink()
        if self.steps.exists():
            step_log.cut_after(self.steps, step, in_burn_in=in_burn_in)
        return removed

    def release(self) -> None:
        """Note that its owner is done with the run."""
        ownership.release(self.owner_file)

    def ownership(self) -> tuple[ownership.Ownership, ownership.Owner | None]:
        """Whether a live process owns the run, and which."""
        return ownership.ownership(self.owner_file)

    def writing_checkpoint(self, name: str) -> AbstractContextManager[Path]:
        """A temporary folder that becomes `checkpoint_<name>` when the body succeeds.

        Raises FileExistsError if that checkpoint is there already.
        """
        return atomic.writing_folder(self.checkpoint(name))

    def remove_checkpoint(self, name: str) -> None:
        """Delete a checkpoint, if it is there; no reader sees half of it."""
        if self.checkpoint(name).is_dir():
            atomic.remove_folder(self.checkpoint(name))

    def link_checkpoint(self, name: str, source: Path) -> None:
        """Make `checkpoint_<name>` other names of another checkpoint's files, read-only from now
        on, or copies where links cannot be. Raises OSError where neither can be."""
        with self.writing_checkpoint(name) as folder:
            atomic.link_folder(source, folder)

    def writing_tokenizer(self) -> AbstractContextManager[Path]:
        """A temporary folder that becomes `tokenizer.json/` when the body succeeds."""
        return atomic.writing_folder(self.tokenizer)

    def write_evaluation(
        self,
        name: str,
        *,
        step_num: int,
        epoch_num: float,
        eval_seconds: float,
        eval_sets: Mapping[str, Mapping[str, Any]],
        records: Sequence[Mapping[str, Any]],
        document_losses: Mapping[str, Mapping[str, Any]] | None = None,
        suite: str | None = None,
        made: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write the means (JSON) and the questions (Parquet) of one evaluation.

        The Parquet comes first, so that means never stand without their questions. With `suite`
        it is one that is added later, in files of its own, and `made` says how. Raises ValueError
        if a mean is not finite or a set has no `n`.
        """
        evaluation = evaluation_files.Evaluation(
            name=name,
            step_num=step_num,
            epoch_num=epoch_num,
            eval_seconds=eval_seconds,
            eval_sets={key: dict(means) for key, means in eval_sets.items()},
            document_losses=(
                None
                if document_losses is None
                else {group: dict(loss) for group, loss in document_losses.items()}
            ),
        )
        evaluation_files.check(evaluation)
        content = evaluation.to_json() | (
            {} if made is None else {"made": atomic.plain(dict(made))}
        )
        evaluation_files.write_records(self.records(name, suite), records)
        atomic.write_json(self.evaluation(name, suite), content)
        return self.evaluation(name, suite)

    def adopt_evaluation(self, name: str, means: Path, records: Path) -> None:
        """Take another run's files of the same evaluation as this run's own: linked, or copied."""
        atomic.link_file(records, self.records(name))
        atomic.link_file(means, self.evaluation(name))

    def read_evaluation(self, name: str, suite: str | None = None) -> evaluation_files.Evaluation:
        """The means of one evaluation; raises ValueError if the file is not what it should be."""
        return evaluation_files.read_evaluation(self.evaluation(name, suite))

    def read_made(self, name: str, suite: str) -> dict[str, Any]:
        """How an evaluation was added; empty where its file does not say, or is not there."""
        try:
            made = json.loads(self.evaluation(name, suite).read_text(encoding="utf-8"))["made"]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return made if isinstance(made, dict) else {}

    def read_records(
        self, name: str, columns: Sequence[str] | None = None, suite: str | None = None
    ) -> Any:
        """The questions of one evaluation as a pyarrow Table; `columns` that are not there are
        left out."""
        return evaluation_files.read_records(self.records(name, suite), columns)

    def save_eval_dataset(
        self,
        set_name: str,
        rows: Sequence[Mapping[str, Any]],
        functions: Sequence[Mapping[str, Any]],
    ) -> Path:
        """Write what a set asks, and the metrics that it asks for; nested values become JSON."""
        with atomic.writing_folder(self.eval_dataset(set_name)) as folder:
            dataset_files.save(folder / "eval_dataset", dataset_files.columns_of(rows))
            atomic.write_json(
                folder / "eval_functions.json", [dict(function) for function in functions]
            )
        return self.eval_dataset(set_name)

    def save_train_set(self, columns: Mapping[str, Sequence[Any]]) -> str:
        """Write the windows; returns their digest."""
        with atomic.writing_folder(self.train_set) as folder:
            dataset_files.save(folder, columns)
        return self.train_set_digest()

    def train_set_digest(self) -> str:
        """Of the windows as they lie there, for `log_dict.train_set_digest`."""
        return dataset_files.digest(self.train_set)

    def save_train_set_documents(self, columns: Mapping[str, Sequence[Any]]) -> str:
        """Write the rows exactly as trained; returns their digest."""
        with atomic.writing_folder(self.train_set_documents) as folder:
            dataset_files.save(folder, columns)
        return dataset_files.digest(self.train_set_documents)

    def save_exposure(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write each document's id, occurrence, labels_once and labels_trained."""
        evaluation_files.write_table(self.exposure, rows)


@dataclass(frozen=True)
class ExperimentFolder(_Folder):
    """One experiment: its data set, its runs, its jobs."""

    @classmethod
    def create(cls, outputs: Path, experiment_name: str) -> ExperimentFolder:
        """Make `<outputs>/<stamp>_<id>_<experiment_name>`; ValueError if the name will not do."""
        naming.check_experiment_name(experiment_name)
        return cls(naming.create_stamped(outputs, experiment_name))

    @property
    def structured_dataset(self) -> Path:
        return self.path / STRUCTURED_DATASET

    @property
    def cleanups(self) -> Path:
        """What was deleted from this experiment: one line of JSON a deletion."""
        return self.path / "cleanups.jsonl"

    @property
    def plan(self) -> Path:
        """What the sweep was expected to do and to take, when it began."""
        return self.path / "plan.json"

    @property
    def all_docs_runs(self) -> Path:
        return self.path / ALL_DOCS_RUNS

    @property
    def jobs(self) -> Path:
        """The launcher's ledger."""
        return self.path / "jobs"

    def job(self, job_id: str) -> Path:
        return self.jobs / naming.escaped(job_id)

    def job_folders(self) -> list[Path]:
        # By either file: a job that lost its spec may still be running.
        return sorted(
            {path.parent for path in self.jobs.glob("*/s*.json") if path.name in _OF_JOBS}
        )

    def subsampled_datasets(self, split: str) -> Path:
        """Of the `train` or the `test` split of data modeling."""
        return self.path / f"subsampled_datasets_{split}"

    def subset_builder(self, split: str, index: int) -> Path:
        """The documents of one subset, as a reference to the experiment's dataset."""
        return self.subsampled_datasets(split) / f"{index}{SUBSET_BUILDER}"

    @property
    def outcomes(self) -> Path:
        """What runs on subsets trained and answered, gathered; may be deleted."""
        return self.path / "outcomes"

    def subset_metadata(self, split: str, index: int) -> Path:
        return self.subsampled_datasets(split) / f"{index}_metadata.json"

    def subset_numbers(self, split: str) -> list[int]:
        """The numbers of a split's subsets."""
        names = [path.name for path in self.subsampled_datasets(split).glob(f"*{SUBSET_BUILDER}")]
        numbers = [name.removesuffix(SUBSET_BUILDER) for name in names]
        return sorted(int(number) for number in numbers if number.isdecimal())

    def data_modeling_runs(self, split: str) -> Path:
        return self.path / f"data_modeling_runs_{split}"

    def runs_of_subset(self, split: str, index: int) -> list[RunFolder]:
        """The runs on one subset, the oldest first."""
        pattern = f"*_{split}_num_epochs_*_dataset_{index}{SUBSET_BUILDER}"
        return [RunFolder(p) for p in sorted(self.data_modeling_runs(split).glob(pattern))]


def _evaluation_name(name: str, suite: str | None) -> str:
    assert suite is None or _ADDED.fullmatch(f"x__{suite}"), suite
    return naming.escaped(name) + ("" if suite is None else f"__{suite}")


def _by_step(name: str) -> tuple[float, str]:
    if name in ("start", "final"):
        return (-1.0 if name == "start" else float("inf")), name
    _, _, step = name.rpartition("_s")
    return (float(step) if step.isdecimal() else float("inf")), name
