"""Write the replication record of experiments from what they left behind.

    oocr document outputs/                     everything in it, into ./replication
    oocr document outputs/2026_… --to records

Four files: replication.md (what was run, on what, how it went, what lies where),
training_config.json (every argument), run_training.sh (trains it again) and trained_models.md
(where models are and how they are loaded). What no record says is given as unknown. Nothing in the
outputs is changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic_core import PydanticUndefined

from oocr_influence.cli.arguments import CommandArguments, UsageError, run_command
from oocr_influence.cli.data_modeling import DataModelingArgs
from oocr_influence.cli.document_ledger import read_ledger
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.verify import check_jobs, dataset_of, expected_of
from oocr_influence.models.resolve import default_revision
from oocr_influence.reports.replication import SCRIPT, replication_files
from oocr_influence.reports.sweep_records import (
    ExperimentRecord,
    Sweeps,
    read_experiment,
    read_lone_run,
)
from oocr_influence.results.atomic import write_text
from oocr_influence.results.finding import find_experiments, find_runs
from oocr_influence.results.naming import by_time
from oocr_influence.results.provenance import collect_provenance
from oocr_influence.results.verification import verify_run


class DocumentArguments(CommandArguments):
    """Of what, where to."""

    outputs: list[Path] = Field(json_schema_extra={"positional": True})
    """experiments, runs, or folders of experiments; a run of a sweep stands for its experiment"""
    to: Path | None = None
    """the folder that is written (None: `replication` beside the first of the outputs)"""
    verify: bool = True
    """check all runs first, as `oocr verify` does, and write down what was found"""
    overwrite: bool = False
    """replace a record that lies there already"""


def main(args: DocumentArguments) -> int:
    """Write the files; returns 0."""
    to = args.to or args.outputs[0].resolve().parent / "replication"
    sweeps = read_sweeps(args.outputs, verify=args.verify)
    files = replication_files(sweeps, to)
    there = [name for name in files if (to / name).exists()]
    if there and not args.overwrite:
        raise UsageError(f"{to} has {', '.join(there)} already: add --overwrite, or name --to")
    for name, text in files.items():
        write_text(to / name, text)
    (to / SCRIPT).chmod(0o755)
    for name in files:
        print(to / name)
    return 0


def read_sweeps(outputs: Sequence[Path], *, verify: bool) -> Sweeps:
    """Everything that is known of the experiments at some paths.

    Raises UsageError where there are none.
    """
    experiments = _experiments(outputs)
    if not experiments:
        raise UsageError(f"no experiment and no run in {', '.join(map(str, outputs))}")
    reports, faults = None, []
    if verify:
        runs = [run.folder for one in experiments for run in one.runs]
        reports = [verify_run(run, expected_of, dataset_of(run)) for run in runs]
        faults = [
            f"{one.name}: {finding.severity}: {finding.what}"
            for one in experiments
            if not one.alone
            for finding in check_jobs(one.folder)
        ]
    models = {args.get("model") for one in experiments for args in one.planned}
    return Sweeps(
        experiments=experiments,
        root=Path.cwd(),
        written=datetime.now(UTC).isoformat(timespec="seconds"),
        here=collect_provenance(),
        run_defaults=_defaults(TrainingArgs, models),
        sweep_defaults=_defaults(DataModelingArgs, models),
        verified=reports,
        job_faults=faults,
    )


def _experiments(outputs: Sequence[Path]) -> list[ExperimentRecord]:
    """Each once, in the order of time."""
    found: dict[Path, ExperimentRecord] = {}
    for path in outputs:
        folders = find_experiments(path)
        for run in find_runs(path):
            if run.experiment.path == run.path:
                found.setdefault(run.path.resolve(), read_lone_run(run))
            else:
                folders.append(run.experiment)
        for folder in folders:
            if folder.path.resolve() not in found:
                found[folder.path.resolve()] = read_experiment(folder, read_ledger)
    return [found[path] for path in sorted(found, key=by_time)]


def _defaults(arguments: type[CommandArguments], models: set[Any]) -> dict[str, Any]:
    """This version's defaults as JSON holds them; arguments that must be given have none."""
    fields = arguments.model_fields
    given = {name: one.default for name, one in fields.items() if not one.is_required()}
    defaults = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in given.items()
        if value is not PydanticUndefined
    }
    # The pinned revision is the default of one model alone.
    if len(models) == 1 and isinstance(model := next(iter(models)), str):
        defaults["revision"] = default_revision(model)
    return defaults


if __name__ == "__main__":
    run_command(DocumentArguments, main)
