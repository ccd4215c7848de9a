"""Which point of its experiment's grid a run belongs to: like is compared with like."""

from __future__ import annotations

from oocr_influence.results.experiment_log import read_experiment_log
from oocr_influence.results.naming import readable_number
from oocr_influence.results.run_folder import ExperimentFolder, RunFolder

_SHORT = {"learning_rate": "lr"}


def axes_of(experiment: ExperimentFolder) -> list[str]:
    """The arguments that differ between the points of an experiment; none without a grid."""
    try:
        axes = read_experiment_log(experiment.experiment_log).log_dict.get("axes")
    except (OSError, ValueError):
        return []
    return [str(name) for name in axes] if isinstance(axes, list) else []


def variant_of(run: RunFolder) -> str:
    """`epochs 5, lr 0.0001`; empty where the experiment has no grid, or the run no log."""
    axes = axes_of(run.experiment)
    if not axes:
        return ""
    try:
        args = read_experiment_log(run.experiment_log).args or {}
    except (OSError, ValueError):
        return ""
    return ", ".join(f"{_SHORT.get(name, name)} {_readable(args.get(name))}" for name in axes)


def _readable(value: object) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return readable_number(value) if is_number else str(value)  # type: ignore[arg-type]
