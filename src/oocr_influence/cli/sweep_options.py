"""What a sweep can be told beside what a run can; names and defaults are the seed's.

Every field is a flag. `sweep_arguments.py` says what goes together and which runs follow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from oocr_influence.cli.engines import ExecutionMode
from oocr_influence.cli.options import TrainingOptions

# Flags of the earlier system's runs on subsets of the documents, which this version has not yet.
SUBSET_FLAGS = (
    "n_datasets_train",
    "n_datasets_test",
    "runs_per_dataset_train",
    "runs_per_dataset_test",
    "docs_per_run",
    "sampling_k",
    "active_facts",
    "eval_first_step",
    "epochs_per_eval",
    "epochs_per_save",
    "save_final_checkpoint",
    "dont_save_datasets",
)


class SweepOptions(TrainingOptions):
    """The flags of a sweep over data orders."""

    dataset_builder_path: Path | None = None
    """the structured dataset (JSON); required, unless --resume names an experiment"""
    experiment_name: str = "data_modeling"
    """a name for the folders of this experiment (text, at most 160 bytes)"""
    burnin_epochs: float = Field(default=0, ge=0)
    """epochs at rate 0 before the first step, counted apart (epochs)"""
    just_train_all_docs: bool = False
    """train on all documents and on no subsets"""

    runs_per_dataset_all_docs: int = Field(default=5, ge=1)
    """runs on all documents, each with a data order of its own (runs)"""
    all_docs_data_order_seed: int = 42
    """seed of the first run's data order; each further run takes the next"""
    all_docs_eval_first_step: bool = True
    """evaluate the untouched model, step 0"""
    all_docs_epochs_per_eval: float | None = Field(default=0.2, gt=0)
    """evaluate every so many epochs (epochs; None: at the start and the end alone)"""
    all_docs_steps_per_eval: int | None = Field(default=None, ge=1)
    """evaluate every so many steps instead (steps)"""
    all_docs_epochs_per_save: float | None = Field(default=0.2, gt=0)
    """save a checkpoint every so many epochs (epochs; None: at the start and the end alone)"""
    all_docs_steps_per_save: int | None = Field(default=None, ge=1)
    """save a checkpoint every so many steps instead (steps)"""
    all_docs_save_first_checkpoint: bool = True
    """save the untouched model as checkpoint_start"""
    all_docs_save_final_checkpoint: bool = True
    """save the last weights as checkpoint_final"""

    execution_mode: ExecutionMode = "local"
    """local: on this machine's GPUs; slurm, ray: on a cluster (docs/slurm.md, docs/ray.md);
    in_process: one run after the other, right here"""
    slurm_settings: Path | None = None
    """TOML file with partition, time, account and such of Slurm's jobs (None: the site's own)"""
    ray_address: str = "auto"
    """a Ray cluster's head, host:port (auto: $RAY_ADDRESS, or the one that this machine is in)"""
    gpus_per_job: int = Field(default=1, ge=0)
    """GPUs of one run, which shares its model out over them; 0: it trains on the CPU (GPUs)"""
    max_workers: int | None = Field(default=None, ge=1)
    """runs at the same time (workers; None: one a GPU, or one a core where there is none)"""
    busy_gpus: Literal["wait", "leave", "use"] = "wait"
    """GPUs that other people's processes use: wait for them, leave them alone, or use them too"""
    lost_retries: int = Field(default=3, ge=0)
    """further tries of a run whose process, worker or machine is lost; it goes on (tries)"""
    hang_minutes: float | None = Field(default=60, gt=0)
    """kill a run that reports nothing for so long, its stack in its log, and go on (minutes)"""
    out_of_memory_retry: bool = False
    """try a run that is out of GPU memory once more, from the start, with half the micro-batch"""
    resume: Path | None = None
    """go on with the experiment in this folder; its finished runs are kept"""
    extend: bool = False
    """with --resume: add the runs that the further flags ask for (--epochs 10, or more orders by
    --runs_per_dataset_all_docs), each beside all else as it was, and run what is new"""
    grid: list[dict[str, Any]] | None = None
    """run every combination of several values: a TOML file of lists by flag, and of [[points]]; one
    flag's may stand on the command line, as in --epochs 1,5"""
    detach: bool = False
    """check everything here, then leave the sweep to a process that survives this terminal"""
    start: bool = True
    """run the sweep; without it, its folder and jobs alone are written, for `oocr worker`"""
    dry_run: bool = False
    """print what would be done, and exit"""

    n_datasets_train: int | None = None
    """subsets of the documents to train on; not here yet"""
    n_datasets_test: int | None = None
    """subsets held out; not here yet"""
    runs_per_dataset_train: int | None = None
    """runs a subset; not here yet"""
    runs_per_dataset_test: int | None = None
    """runs a held-out subset; not here yet"""
    docs_per_run: int = 300
    """documents of a subset; not here yet"""
    sampling_k: int = 1
    """documents of one fact that are drawn together; not here yet"""
    active_facts: list[str] | None = None
    """facts whose documents are drawn from; not here yet"""
    eval_first_step: bool | None = None
    """of runs on subsets; not here yet (see all_docs_eval_first_step)"""
    epochs_per_eval: float | None = None
    """of runs on subsets; not here yet (see all_docs_epochs_per_eval)"""
    epochs_per_save: float | None = None
    """of runs on subsets; not here yet (see all_docs_epochs_per_save)"""
    save_final_checkpoint: bool | None = None
    """of runs on subsets; not here yet (see all_docs_save_final_checkpoint)"""
    dont_save_datasets: bool | None = None
    """of runs on subsets; not here yet"""
    logging_type_sweep_workers: Literal["disk"] = "disk"
    """where runs on subsets log; files on disk"""
    force_git_repo_has_sweep: bool = False
    """of the earlier system; refused: the commit and the diff are recorded instead"""
