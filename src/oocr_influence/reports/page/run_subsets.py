"""Runs on subsets of the documents: which subset each trained, how many there are, how drawn.

subsets = subsets_of([(run.name, run.args, run.folder) for run in runs])   # None without
subsets.split, subsets.n, subsets.of_run["…"]
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from oocr_influence.results.run_folder import SUBSET_BUILDER, RunFolder

_NUMBER = re.compile(r"(\d+)" + re.escape(SUBSET_BUILDER) + "$")
_DESIGNS = {
    "random": "{n} documents drawn at random",
    "stratified": "{n} documents drawn at random, as many of each fact",
    "complement": "a random half of the documents or the other half ({n})",
    "leave_one_fact_out": "all documents but those of one fact ({n})",
    "removal": "all documents but those on top for a question, or as many others ({n})",
}


@dataclass(frozen=True)
class Subsets:
    """The subsets of one split that a group's runs trained."""

    split: str
    of_run: Mapping[str, str]
    """The subset of each run, by the run's name."""
    design: str | None
    n_documents: tuple[int, int] | None
    """The fewest and the most synthetic documents of a subset; None where it is not recorded."""

    @property
    def n(self) -> int:
        """How many subsets have a run."""
        return len(set(self.of_run.values()))

    @property
    def runs_each(self) -> tuple[int, int]:
        """The fewest and the most runs of a subset, of those that have any."""
        counts = Counter(self.of_run.values()).values()
        return min(counts), max(counts)

    def to_json(self) -> dict[str, Any]:
        """What a page tells of them."""
        return {"split": self.split, "n": self.n, "runs_each": self.runs_each}

    def sentence(self) -> str:
        """`6 subsets of the train split × 2 runs: …`."""
        few, most = self.runs_each
        runs = f"{most} run{'s' * (most != 1)}" if few == most else f"{few} to {most} runs"
        kinds = f"{self.n} subset{'s' * (self.n != 1)} of the {self.split} split × {runs}"
        if self.n_documents is None:
            return f"{kinds}; how the subsets were drawn is unknown."
        low, high = self.n_documents
        told = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        drawn = _DESIGNS.get(str(self.design), f"{{n}} documents, design {self.design}")
        return f"{kinds}: each subset has {drawn.format(n=told)}."


def subsets_of(runs: Sequence[tuple[str, Mapping[str, Any], RunFolder]]) -> Subsets | None:
    """Of the runs of one group by name, arguments and folder; None where they are on none."""
    if not runs or any(args.get("subset_split") is None for _, args, _ in runs):
        return None
    split, experiment = str(runs[0][1]["subset_split"]), runs[0][2].experiment
    of_run, abouts = {}, {}
    for name, args, _ in runs:
        file = PurePath(str(args.get("structured_dataset"))).name
        found = _NUMBER.search(file)
        of_run[name] = found[1] if found else file
        if found and found[1] not in abouts:
            abouts[found[1]] = _about(experiment.subset_metadata(split, int(found[1])))
    sizes = [len(one["docs_included"]) for one in abouts.values() if one.get("docs_included")]
    designs = {one.get("design") for one in abouts.values()}
    design = designs.pop() if len(designs) == 1 else None
    return Subsets(split, of_run, design, (min(sizes), max(sizes)) if sizes else None)


def _about(path: Any) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


__all__ = ["Subsets", "subsets_of"]
