"""What came of a removal sweep, out of its folder: effects, and what each removal was.

rows, cells = removal_results(Path("outputs/2026_…_removal"), ["logprob"])
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from oocr_influence.attribution.removal import CONTROLS, facts_of_questions, removal_effects
from oocr_influence.datasets.document_dataset import load_structured_dataset
from oocr_influence.results.run_folder import ExperimentFolder
from oocr_influence.results.subset_outcomes import subset_experiment, subset_outcomes

_OF_A_CELL = ("target", "method", "k", "ties", "ties_taken", "not_positive", "no_matched_fact")


def removal_results(
    path: Path, metrics: Sequence[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Effects as rows, and a row a target, method and k: ties, what was removed, from which table.

    Raises FileNotFoundError where there is no sweep over subsets, ValueError where it has no
    removals or no answers yet.
    """
    experiment = subset_experiment(path)
    outcomes = subset_outcomes(path).split("train")
    if not outcomes.subsets:
        raise ValueError("no run on a subset has completed yet")
    facts = facts_of_questions(
        outcomes.questions, load_structured_dataset(experiment.structured_dataset)
    )
    effects = [one for name in metrics for one in removal_effects(outcomes, name, facts)]
    return [asdict(one) for one in effects], _cells(experiment)


def _cells(experiment: ExperimentFolder) -> list[dict[str, Any]]:
    """As planned, out of the subsets' records."""
    removals = [
        json.loads(experiment.subset_metadata("train", index).read_text("utf-8"))["removal"]
        for index in experiment.subset_numbers("train")
    ]
    cells = []
    for top in (one for one in removals if one["kind"] == "top"):
        key = (top["target"], top["method"], top["k"])
        own = [one for one in removals if (one["target"], one["method"], one["k"]) == key]
        sizes = {
            kind: [one["removed_characters"] for one in own if one["kind"] == kind]
            for kind in ("top", *CONTROLS)
        }
        cells.append(
            {
                **{name: top[name] for name in _OF_A_CELL},
                "characters": {kind: sum(n) / len(n) for kind, n in sizes.items() if n},
                "removed": top["removed"],
                "table": top["table"],
                "table_digest": top["table_digest"],
            }
        )
    return cells


__all__ = ["removal_results"]
