"""What a sweep will do and take, before it begins, and afterwards what it did.

    oocr plan --dataset_builder_path datasets/….json --epochs 5   # data_modeling's own arguments
    oocr plan … --device H100 --gpus 8                            # for a machine elsewhere
    oocr plan … --n_datasets_train 100 --runs_per_dataset_train 5 # runs on subsets
    oocr plan … --probe                                           # times a few updates here
    oocr plan --against outputs/2026_…_mayors_5epochs             # planned and actual

Counts are exact. Time and memory say what they rest on: runs of the same model on the same device
under --output_dir, a probe, or a formula whose terms are told. Weights are loaded by --probe alone.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from oocr_influence.cli.arguments import UsageError, run_command
from oocr_influence.cli.plan_against import compare
from oocr_influence.cli.plan_counts import AskedCounts
from oocr_influence.cli.plan_hardware import Hardware, hardware_of
from oocr_influence.cli.plan_measured import Measured
from oocr_influence.cli.plan_probe import probe
from oocr_influence.cli.plan_sweep import MFU, plan_sweep
from oocr_influence.cli.preparation import Preparation
from oocr_influence.cli.subset_plan import plan_subsets
from oocr_influence.cli.sweep_arguments import DataModelingArgs
from oocr_influence.cli.sweep_plan import planned_points
from oocr_influence.reports.plan_text import render_comparison, render_plan, size


class PlanArguments(DataModelingArgs):
    """A sweep, and the machine that it is planned for."""

    device: str | None = None
    """GPU to plan for, by its data sheet: A100-40GB, A100-80GB, H100-PCIe, H100, H200, B200, L40S,
    RTX4090 (None: this machine's)"""
    gpus: int | None = Field(default=None, ge=1)
    """GPUs to plan for (GPUs; None: those that are visible here, or one that is elsewhere)"""
    device_memory: float | None = Field(default=None, gt=0)
    """memory of a GPU (GiB; None: as its driver or its data sheet says)"""
    device_flops: float | None = Field(default=None, gt=0)
    """peak of a GPU, dense, at the precision of training (TFLOP/s; None: its data sheet's, bf16)"""
    mfu: float = Field(default=MFU, gt=0, le=1)
    """share of that peak that is reached where nothing was measured"""
    probe: bool = False
    """time three updates and one evaluation on this machine: loads the model"""
    against: Path | None = None
    """compare the plans that sweeps wrote when they began with what they did: an experiment, or a
    folder of experiments"""
    json_: bool = False
    """print JSON"""

    @model_validator(mode="after")
    def _can_be_planned(self) -> PlanArguments:
        if self.resume is not None:
            raise ValueError("--resume: a sweep is planned before it begins; see --against")
        stated = (self.device, self.gpus, self.device_memory, self.device_flops)
        if self.probe and any(value is not None for value in stated):
            raise ValueError(
                "--probe measures this machine: leave out --device, --gpus, --device_memory and "
                "--device_flops"
            )
        return self

    def _is_a_sweep(self) -> bool:
        return self.against is None


def main(args: PlanArguments) -> int:
    """Print the plan, or the comparison."""
    if args.against is not None:
        return _print_comparison(args)
    try:
        hardware = hardware_of(
            device=args.device,
            gpus=args.gpus,
            device_memory=args.device_memory,
            device_flops=args.device_flops,
            on_cpu=args.gpus_per_job == 0,
            here=args.execution().is_here,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    changes: dict[str, Any] = {"dry_run": True}
    if hardware.kind == "cuda" and args.precision == "auto":
        changes["precision"] = "bf16"  # as it is there, wherever this is planned
    asked = args.model_copy(update=changes)
    planned = list(planned_points(asked, weights=args.probe))

    subsets = plan_subsets(asked, planned[0].preparation)
    if subsets is not None and hardware.how == "as stated":
        subsets = replace(subsets, workers=hardware.units // max(1, args.gpus_per_job))

    def measure(preparation: Preparation, _: AskedCounts) -> Measured:
        return probe(preparation)

    plan = plan_sweep(
        asked,
        planned,
        hardware,
        mfu=args.mfu,
        measure=measure if args.probe else None,
        subsets=subsets,
    )
    plan["faults"] = faults_of(plan, hardware, args)
    if args.json_:
        print(json.dumps(plan, indent=1, ensure_ascii=False))
    else:
        print(render_plan(plan))
        for fault in plan["faults"]:
            print(f"\n{fault}")
    return 0


def faults_of(plan: dict[str, Any], hardware: Hardware, args: PlanArguments) -> list[str]:
    """Why this sweep would not come to its end there."""
    faults = []
    subsets = [{**plan["subsets"], "label": "runs on subsets"}] if "subsets" in plan else []
    for point in [*plan["points"], *subsets]:
        needed, there = point["memory_bytes"]["value"], hardware.memory_bytes
        if needed is not None and there is not None and needed > there:
            where = f" at {point['label']}" if point["label"] else ""
            faults.append(
                f"it does not fit{where}: {needed / 2**30:.1f} GiB of {there / 2**30:.1f} GiB "
                f"({point['memory_bytes']['basis']})"
            )
    is_known = args.execution().is_here or args.gpus is not None
    if is_known and hardware.kind == "cuda" and hardware.units < max(1, args.gpus_per_job):
        faults.append(
            f"--gpus_per_job {args.gpus_per_job} is more than {hardware.units}, which is planned "
            "for: see --gpus"
        )
    line = (args.output_dir.absolute(), *args.output_dir.absolute().parents)
    free = shutil.disk_usage(next(path for path in line if path.exists())).free
    reserved = plan["whole"]["disk_reserved"]
    if reserved > free:
        faults.append(
            f"there is no room: {size(reserved)} are needed, {size(free)} are free under "
            f"{args.output_dir}"
        )
    return faults


def _print_comparison(args: PlanArguments) -> int:
    assert args.against is not None
    compared = compare(args.against)
    if args.json_:
        print(json.dumps(compared, indent=1, ensure_ascii=False))
        return 0
    for name, found in compared.items():
        title = f"{name}: {found['finished']} runs are finished"
        if found["extensions"]:
            title += "; it was planned as it began, and has been extended since"
        print(render_comparison(found["rows"], title), end="\n\n")
    return 0


if __name__ == "__main__":
    run_command(PlanArguments, main)
