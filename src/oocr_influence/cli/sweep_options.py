"""What a sweep can be told beside what a run can; names and defaults are the seed's.

Every field is a flag. `sweep_arguments.py` says what goes together and which runs follow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from oocr_influence.cli.engines import ExecutionMode
from oocr_influence.cli.options import TrainingOptions
from oocr_influence.datasets.subsets import DesignName


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

    runs_per_dataset_all_docs: int = Field(default=5, ge=0)
    """runs on all documents, each with a data order of its own (runs; 0: on subsets alone)"""
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
    """with --resume: add the runs that the further flags ask for (--epochs 10, more orders by
    --runs_per_dataset_all_docs, more subsets by --n_datasets_train), each beside all else as it
    was, and run what is new"""
    grid: list[dict[str, Any]] | None = None
    """run every combination of several values: a TOML file of lists by flag, and of [[points]]; one
    flag's may stand on the command line, as in --epochs 1,5"""
    detach: bool = False
    """check everything here, then leave the sweep to a process that survives this terminal"""
    start: bool = True
    """run the sweep; without it, its folder and jobs alone are written, for `oocr worker`"""
    dry_run: bool = False
    """print what would be done, and exit"""

    n_datasets_train: int = Field(default=0, ge=0)
    """subsets of the documents, each trained by itself from the same model, which datamodels are
    fitted to (docs/data_modeling.md). Their n_loss_documents is 0 unless stated"""
    n_datasets_test: int = Field(default=0, ge=0)
    """further subsets, which datamodels and attribution methods are scored on"""
    runs_per_dataset_train: int = Field(default=1, ge=0)
    """runs of each subset, with data orders from all_docs_data_order_seed on (runs)"""
    runs_per_dataset_test: int = Field(default=1, ge=0)
    """the same of held-out subsets (runs)"""
    docs_per_run: int = Field(default=300, ge=1)
    """synthetic documents of a subset; n_pretraining_examples come to each (documents)"""
    sampling_k: int = Field(default=1, ge=1)
    """documents of one fact that are drawn together, in the same groups everywhere (documents)"""
    subset_design: DesignName = "random"
    """random: each subset by itself; stratified: as many documents of each fact; complement: pairs
    of halves; leave_one_fact_out: all but one fact's, a subset a fact; removal: all but the
    documents that a method puts first, and controls (docs/attribution.md)"""
    active_facts: list[str] | None = None
    """facts whose documents are drawn, by id or by relation (None: all)"""
    removal_table: Path | None = None
    """of the design removal: the scores of documents, a folder that `oocr attribute` wrote"""
    removal_targets: list[str] | None = None
    """what documents are on top for: patterns of facts (`relation:entity`, or an id) and of sets;
    each fact or set that fits is a target, and a document's score is its sum over the queries"""
    removal_methods: list[str] | None = None
    """methods of the table; facts: what states the fact by the dataset's account (None: all)"""
    removal_k: list[int] = [10]
    """how many documents on top are removed; each number makes subsets of its own (documents)"""
    removal_control_draws: int = Field(default=1, ge=1)
    """controls of each kind that remove as many: other documents at random, and other documents
    of the same facts (subsets)"""
    runs_per_job: int | None = Field(default=None, ge=1)
    """runs on subsets that one job makes, the base model kept between them (runs; None: so that
    each worker has about eight jobs)"""
    subset_eval_sets: list[str] = ["*"]
    """of runs on subsets: patterns of the names of the sets that are asked (names)"""
    subset_eval_metrics: list[str] | None = ["accuracy_and_loss"]
    """of runs on subsets: which of the sets' metrics are computed; ranks and beam_search take
    longer (metrics; None: all)"""
    eval_first_step: bool = False
    """of runs on subsets: ask the untouched model too"""
    epochs_per_eval: float | None = Field(default=None, gt=0)
    """of runs on subsets: ask every so many epochs (epochs; None: at the end alone)"""
    epochs_per_save: float | None = Field(default=None, gt=0)
    """of runs on subsets: save every so many epochs (epochs; None: never, but for the end)"""
    save_final_checkpoint: bool = False
    """of runs on subsets: save the last weights"""
    dont_save_datasets: bool = True
    """of runs on subsets: keep what is trained and asked as digests alone"""
    logging_type_sweep_workers: Literal["disk"] = "disk"
    """where runs on subsets log; files on disk"""
    force_git_repo_has_sweep: bool = False
    """of the earlier system; refused: the commit and the diff are recorded instead"""
