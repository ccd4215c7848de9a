"""What a run leaves behind: its folder, its names, its typed records, its upkeep.

from oocr_influence import results

results.collect("outputs").evaluations.to_pandas()
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {
    "collect": "collecting",
    "compare": "comparison",
    "subset_outcomes": "subset_outcomes",
    "mean_interval": "intervals",
    "sign_test": "intervals",
}


def __getattr__(name: str) -> Any:
    # Late, since every module of this room passes here, and few need these.
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
