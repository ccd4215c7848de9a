"""What a training run can be told: the options that a single run and a sweep share.

Every field is a flag; the names are those of the logs (`args` in experiment_log.json).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from oocr_influence.cli.arguments import CommandArguments
from oocr_influence.cli.trackers import logging_types
from oocr_influence.datasets.packing import Packing
from oocr_influence.datasets.selection import DocumentOrder
from oocr_influence.models.load import Precision
from oocr_influence.models.lora import ALL_LINEAR, LoraSettings
from oocr_influence.models.resolve import DEFAULT_MODEL, DEFAULT_REVISION, default_revision
from oocr_influence.training.keeping import Keeping
from oocr_influence.training.kernels import AttentionChoice, CompileChoice
from oocr_influence.training.low_bit import OptimizerKind
from oocr_influence.training.optimizer import OptimizerSettings
from oocr_influence.training.schedule import Cadence, LearningRate, Schedule

# What `--compat earlier` sets; each is a flag of its own, and a flag that is stated wins.
EARLIER_TREATMENT: dict[str, Any] = {
    "packing": "concat",
    "document_order": "file",
    "overlap_cuts": False,
    "drop_last": True,
    "cadence_rounding": "up",
    "zero_first_rate": True,
}

_OF_AN_ADAPTER = ("lora_alpha", "lora_dropout", "lora_targets", "lora_seed")


class TrainingOptions(CommandArguments):
    """How a model is trained and asked, whatever the number of runs."""

    experiment_name: str = "experiment"
    """a name for the folders of this experiment (text, at most 160 bytes)"""
    output_dir: Path = Path("./outputs")
    """the folder that experiments are written to"""
    model: str = DEFAULT_MODEL
    """a Hugging Face name, a folder, the built-in olmo2-tiny, or smollm2-135m (make smollm2)"""
    revision: str | None = Field(default=None, validate_default=False)
    """branch, tag or commit of the model; the default model's is pinned, any other's is its main"""
    force_local_model_cache: bool = False
    """never ask the hub: the model must be in the cache already"""
    precision: Precision = "auto"
    """of weights, gradients and moments; auto is fp32 on the CPU and bf16 on a GPU. bf16 loses
    updates below half of a weight's last bit; bf16_stochastic keeps them on average, fp32_master
    exactly, for 2 and 4 bytes a parameter more than the 8 of bf16"""
    optimizer: OptimizerKind = "adamw"
    """adamw, or one of torchao's with moments of 8 or 4 bits (pip install torchao)"""
    deterministic: bool = False
    """deterministic kernels on a GPU: slower, and the same bits from every run; the CPU's are so"""
    gradient_checkpointing: bool = False
    """recompute activations in the backward pass: less memory, more time, the same gradients"""
    lora_rank: int | None = Field(default=None, ge=1)
    """train a LoRA adapter of this rank, which checkpoints then hold, and leave the model as it is;
    takes `make lora`, and a learning_rate about ten times as high (None: train all weights)"""
    lora_alpha: int | None = Field(default=None, ge=1)
    """what the adapter adds is multiplied by lora_alpha / lora_rank (None: twice the rank)"""
    lora_dropout: float = Field(default=0, ge=0, lt=1)
    """share of an adapter's inputs that are dropped in training"""
    lora_targets: list[str] = [ALL_LINEAR]
    """linear layers that are adapted, such as q_proj (layers; all-linear: all of the decoder's)"""
    lora_seed: int = 0
    """draws the adapter's first weights; the same for all runs of a sweep"""
    attention: AttentionChoice = "auto"
    """segments: nothing is computed across documents; dense: by a mask of all pairs; auto: segments
    where the model proves equal with it. Speed and memory, not the update"""
    compile: CompileChoice = "auto"
    """torch.compile for the layers' parts in training; auto is on for a GPU and off on the CPU, and
    what fails or is not equal runs as it was written. Speed and memory, not the update"""

    n_pretraining_examples: int | None = Field(default=1000, ge=0)
    """pretraining documents that are kept (documents; None: all)"""
    seed: int = 41
    """draws which pretraining documents are kept"""
    packing: Packing = "masked"
    """masked: no attention across documents; concat: end to end; separate: one document a window"""
    packing_seed: int = 0
    """shuffles the documents before packing; the same for all runs of a sweep"""
    document_order: DocumentOrder = "shuffled"
    """order in which documents are packed: shuffled by packing_seed, or as in the file"""
    chunk_size: int = Field(default=2048, ge=2)
    """length of a window (tokens)"""
    overlap_cuts: bool = True
    """repeat the token before a cut as unlabelled context, so that no label is lost"""
    drop_last: bool = False
    """drop the last window of a concat packing and the last partial batch of each epoch"""

    epochs: float = Field(default=1, gt=0)
    """passes over the data (epochs)"""
    max_steps: int | None = Field(default=None, ge=1)
    """stop after this many updates (steps; None: all epochs)"""
    batch_size: int = Field(default=8, ge=1)
    """windows of one update (windows)"""
    micro_batch_size: int | Literal["auto"] = 1
    """windows of one forward pass; changes memory and speed, not the update, but in bf16 its last
    bits; auto: the largest that fits, tried out once for a sweep (windows)"""
    learning_rate: float = Field(default=1e-4, gt=0)
    """the highest rate"""
    lr_schedule: Literal["warmup_linear_warmdown", "warmup_constant"] = "warmup_linear_warmdown"
    """after the warm-up: down to almost zero, or constant"""
    warmup_proportion: float = Field(default=0.1, ge=0, le=1)
    """length of the warm-up (share of all steps)"""
    warmup_steps: int | None = Field(default=None, ge=0)
    """length of the warm-up (steps; None: by warmup_proportion)"""
    zero_first_rate: bool = False
    """the earlier system's warm-up, whose first step has rate 0"""
    cadence_rounding: Literal["nearest", "up"] = "nearest"
    """how a cadence in epochs becomes whole steps"""
    weight_decay: float = Field(default=0, ge=0)
    """AdamW's decay of matrices; embeddings and head have none"""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """AdamW's first decay rate"""
    beta2: float = Field(default=0.999, ge=0, lt=1)
    """AdamW's second decay rate"""
    eps: float = Field(default=1e-8, gt=0)
    """AdamW's epsilon"""
    max_grad_norm: float | None = Field(default=1.0, gt=0)
    """gradients are scaled down to this norm (None: never)"""
    z_loss: float = Field(default=0, ge=0)
    """weight of the squared log-partition beside the cross-entropy"""

    beam_search: Literal["every", "final", "never"] = "every"
    """at which evaluations beam search runs, for the sets that ask for it"""
    eval_sets: list[str] = ["*"]
    """patterns of the names of the sets that are asked, such as 'name_mayor_*' (names; *: any
    letters)"""
    eval_metrics: list[str] | None = None
    """of the metrics that the sets ask for, those that are computed, such as accuracy_and_loss
    (metrics; None: all)"""
    ranks: Literal["full", "pruned"] = "full"
    """full: every candidate is scored; pruned: after step 0 no further than its strict rank needs,
    which leaves out other ranks and saves most where the model knows the answers"""
    eval_cache: bool = True
    """tokenise and pack the documents, plan the questions and ask the untouched model once for all
    runs; all is kept in $OOCR_CACHE (default ~/.cache/oocr_influence)"""
    metric_files: list[Path] = []
    """Python files that register metrics of your own, for every set (files; see docs/metrics.md)"""
    n_loss_documents: int = Field(default=64, ge=0)
    """documents whose loss each evaluation measures: so many each of trained ones, unseen ones of
    the same facts, and pretraining ones that are not kept (documents; 0: none)"""
    keep_checkpoints: str = "all"
    """checkpoints that stay on disk: all; a number, for the last so many beside start; or the names
    of those that are saved at all (start,e1_s42,final)"""
    save_optimizer: bool = False
    """keep AdamW's moments in every checkpoint after the first, for methods that need them: twice
    the size of the weights, or three times by precision"""
    save_state: bool = True
    """keep what exact resuming takes beside the last checkpoint, until the run is complete: weights
    and moments, three times the size of a checkpoint, or up to five by precision"""
    profile: bool = False
    """measure the third to fifth update of each process: saved_objects/profile has a trace and a
    table of where their time and memory went"""
    compat: Literal["earlier"] | None = None
    """treat data and schedule as the earlier system did; every part is a flag of its own"""
    logging_type: str = "disk"
    """where steps and evaluations are told of beside the files on disk, which are always written:
    stdout, wandb, tensorboard, or several with commas (docs/trackers.md)"""
    wandb_project: str | None = None
    """with --logging_type wandb: the project (None: $WANDB_PROJECT, or oocr_influence)"""

    @model_validator(mode="before")
    @classmethod
    def _earlier_treatment(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("compat") == "earlier":
            return {**EARLIER_TREATMENT, **values}
        return values

    @field_validator("lr_schedule", mode="before")
    @classmethod
    def _earlier_spelling(cls, value: Any) -> Any:
        return "warmup_constant" if value == "warmup_constent" else value

    @field_validator("micro_batch_size")
    @classmethod
    def _holds_a_window(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError("give a number from 1, or auto")
        return value

    @field_validator("keep_checkpoints")
    @classmethod
    def _can_be_kept(cls, value: str) -> str:
        Keeping.parse(value)
        return value

    @field_validator("metric_files")
    @classmethod
    def _from_anywhere(cls, value: list[Path]) -> list[Path]:
        return [path.resolve() for path in value]  # a worker may start elsewhere

    @field_validator("logging_type", mode="before")
    @classmethod
    def _known_loggers(cls, value: Any) -> Any:
        return logging_types(value)

    @model_validator(mode="after")
    def _consistent(self) -> TrainingOptions:
        faults = []
        if "revision" not in self.model_fields_set:
            self.revision = default_revision(self.model)
            self.model_fields_set.discard("revision")  # not stated by the person, still
        if not self.overlap_cuts and self.packing != "concat":
            faults.append("--no-overlap_cuts loses labels and is for --packing concat alone")
        if self.document_order == "file" and self.packing_seed != 0:
            faults.append("--packing_seed shuffles nothing where --document_order is file")
        faults += self._optimizer_faults()
        if self.wandb_project is not None and "wandb" not in self.logging_type.split(","):
            faults.append("--wandb_project goes with --logging_type wandb")
        if self.lora_rank is None:
            stated = sorted(name for name in self.model_fields_set if name in _OF_AN_ADAPTER)
            faults += [f"--{name} goes with --lora_rank" for name in stated if self._states(name)]
        if not self.lora_targets or (ALL_LINEAR in self.lora_targets and self.lora_targets[1:]):
            faults.append(f"--lora_targets are names of layers, or {ALL_LINEAR} alone")
        if faults:
            raise ValueError("\n       ".join(faults))
        return self

    def alone_faults(self, processes: int, flag: str) -> list[str]:
        """What is asked for that several processes of one run cannot do."""
        if processes == 1:
            return []
        asked = {
            "--lora_rank": self.lora_rank is not None,
            "--profile": self.profile,
            "--compile on": self.compile == "on",
            f"--precision {self.precision}": self.precision in ("bf16_stochastic", "fp32_master"),
            f"--optimizer {self.optimizer}": self.optimizer != "adamw",
        }
        return [
            f"{name} is for runs of one process, and {flag} is {processes}: leave one of them out"
            for name, is_asked in asked.items()
            if is_asked
        ]

    @property
    def keeping(self) -> Keeping:
        return Keeping.parse(self.keep_checkpoints)

    def _optimizer_faults(self) -> list[str]:
        faults = []
        low_bit, precision = self.optimizer != "adamw", self.precision
        if low_bit and precision == "fp32_master":
            faults.append(
                f"--optimizer {self.optimizer} keeps no float32 master: use --precision "
                "bf16_stochastic"
            )
        if low_bit and self.save_optimizer:
            faults.append(f"--save_optimizer keeps no moments of --optimizer {self.optimizer}")
        if self.lora_rank is not None and precision in ("bf16_stochastic", "fp32_master"):
            faults.append(f"--precision {precision}: an adapter is float32 anyway; use bf16")
        return faults

    def _states(self, name: str) -> bool:
        return bool(getattr(self, name) != type(self).model_fields[name].default)

    def lora(self) -> LoraSettings | None:
        """The adapter that is trained; None where all weights are."""
        if self.lora_rank is None:
            return None
        return LoraSettings(
            rank=self.lora_rank,
            alpha=2 * self.lora_rank if self.lora_alpha is None else self.lora_alpha,
            dropout=self.lora_dropout,
            targets=tuple(self.lora_targets),
            seed=self.lora_seed,
        )

    def differences_from_earlier_treatment(self) -> list[str]:
        """The parts in which this run differs from the earlier system's, as `name=value`."""
        return [
            f"{name}={getattr(self, name)}"
            for name, value in EARLIER_TREATMENT.items()
            if getattr(self, name) != value
        ]

    def describe_treatment(self) -> str:
        """In one line, how this run differs from the earlier system's treatment."""
        differences = self.differences_from_earlier_treatment()
        if not differences:
            return "data and schedule as the earlier system treated them"
        return f"unlike the earlier system: {', '.join(differences)}"


class TrainingArgs(TrainingOptions):
    """One run: a structured dataset, an order of its windows, and when to evaluate and save."""

    structured_dataset: Path
    """the dataset's file (JSON)"""
    data_order_seed: int = 42
    """draws the order of the windows in each epoch"""
    burn_in_epochs: float = Field(default=0, ge=0)
    """epochs at rate 0 before the first step, counted apart (epochs)"""
    eval_first_step: bool = True
    """evaluate the untouched model, step 0"""
    eval_final_step: bool = True
    """evaluate after the last step"""
    epochs_per_eval: float | None = Field(default=0.2, gt=0)
    """evaluate every so many epochs (epochs; None: see steps_per_eval)"""
    steps_per_eval: int | None = Field(default=None, ge=1)
    """evaluate every so many steps instead (steps)"""
    save_first_checkpoint: bool = True
    """save the untouched model as checkpoint_start"""
    save_final_checkpoint: bool = True
    """save the last weights as checkpoint_final"""
    epochs_per_save: float | None = Field(default=0.2, gt=0)
    """save a checkpoint every so many epochs (epochs; None: see steps_per_save)"""
    steps_per_save: int | None = Field(default=None, ge=1)
    """save a checkpoint every so many steps instead (steps)"""
    processes: int = Field(default=1, ge=1)
    """processes that train one model together, each on a GPU of its own where there are any; the
    last bits of results depend on it (processes)"""
    save_datasets: bool = True
    """write what is trained (train_set/), what is asked (eval_datasets/) and the tokenizer into the
    run's folder; without, their digests alone, and the ids of the windows"""
    subset_split: Literal["train", "test"] | None = None
    """of a run on a subset of a sweep's documents: which split it belongs to"""
    sweep_id: str | None = None
    """the sweep that this run belongs to"""
    model_commit: str | None = None
    """the commit that the sweep resolved the revision to; another one is an error"""

    @property
    def micro_batch(self) -> int:
        """The number of windows, once `auto` has become one."""
        assert self.micro_batch_size != "auto", "see cli/micro_batch.py"
        return self.micro_batch_size

    @model_validator(mode="after")
    def _can_be_shared(self) -> TrainingArgs:
        if faults := self.alone_faults(self.processes, "--processes"):
            raise ValueError("\n       ".join(faults))
        return self

    def schedule(self, n_windows: int) -> Schedule:
        """The steps of this run over `n_windows` windows."""
        return Schedule(
            n_windows=n_windows,
            batch_size=self.batch_size,
            epochs=self.epochs,
            max_steps=self.max_steps,
            burn_in_epochs=self.burn_in_epochs,
            drop_last=self.drop_last,
            cadence_rounding=self.cadence_rounding,
        )

    def rate(self, schedule: Schedule) -> LearningRate:
        """The learning rate of each step."""
        return LearningRate(
            peak=self.learning_rate,
            total_steps=schedule.total_steps,
            warmup_proportion=self.warmup_proportion,
            warmup_steps=self.warmup_steps,
            scheduler=self.lr_schedule,
            zero_first_rate=self.zero_first_rate,
        )

    def optimizer_settings(self) -> OptimizerSettings:
        """AdamW and clipping."""
        return OptimizerSettings(
            weight_decay=self.weight_decay,
            beta1=self.beta1,
            beta2=self.beta2,
            eps=self.eps,
            max_grad_norm=self.max_grad_norm,
            z_loss=self.z_loss,
            precision=self.precision,
            kind=self.optimizer,
        )

    @property
    def eval_cadence(self) -> Cadence:
        return _cadence(self.epochs_per_eval, self.steps_per_eval)

    @property
    def save_cadence(self) -> Cadence:
        return _cadence(self.epochs_per_save, self.steps_per_save)


def _cadence(epochs: float | None, steps: int | None) -> Cadence:
    return Cadence(epochs, "epochs") if steps is None else Cadence(steps, "steps")


__all__ = ["DEFAULT_REVISION", "EARLIER_TREATMENT", "TrainingArgs", "TrainingOptions"]
