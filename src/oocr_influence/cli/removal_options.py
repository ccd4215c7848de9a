"""Which flags of a removal sweep go together."""

from __future__ import annotations

from oocr_influence.cli.sweep_options import SweepOptions

_FLAGS = tuple(name for name in SweepOptions.model_fields if name.startswith("removal_"))


def faults_of_removal(options: SweepOptions) -> list[str]:
    """What is wrong, each with its remedy."""
    design = "--subset_design removal"
    if options.subset_design != "removal":
        fields = SweepOptions.model_fields
        stated = [name for name in _FLAGS if getattr(options, name) != fields[name].default]
        return [f"--{name} goes with {design}" for name in stated]
    faults = []
    if options.removal_table is None:
        faults.append(f"{design}: --removal_table is missing: a folder that `oocr attribute` wrote")
    if not options.removal_targets:
        faults.append(
            f"{design}: --removal_targets is missing: facts, as in 'name_mayor:*', or sets"
        )
    if options.removal_methods == []:
        faults.append("--removal_methods: name a method, or None for all")
    if not options.removal_k or min(options.removal_k) < 1:
        faults.append("--removal_k: at least 1 document")
    if len(set(options.removal_k)) < len(options.removal_k):
        faults.append(f"--removal_k {options.removal_k}: each number once")
    if not options.n_datasets_train:
        faults.append(
            f"{design}: --n_datasets_train is missing: how many subsets that makes (of a wrong "
            "number you are told the right one)"
        )
    if options.n_datasets_test:
        faults.append("--n_datasets_test: removals are subsets of the train split alone")
    if options.sampling_k > 1:
        faults.append("--sampling_k: single documents are removed, not groups")
    return faults


__all__ = ["faults_of_removal"]
