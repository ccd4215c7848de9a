"""What SciPy and scikit-learn do for us, and correlations of many columns at once."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def needed(module: str) -> Any:
    """A module of the extra; ImportError with the remedy where it is missing."""
    try:
        return import_module(module)
    except ImportError as error:
        package = {"sklearn": "scikit-learn"}.get(module.split(".")[0], module.split(".")[0])
        raise ImportError(
            f'datamodels need {package} ({error}): pip install "oocr-influence[attribution]"'
        ) from None


def normal_quantile(confidence: float) -> float:
    """Half the width, in standard deviations, of the interval that holds this share of a normal."""
    return float(needed("scipy.stats").norm.ppf((1 + confidence) / 2))


def student_quantile(confidence: float, df: float) -> float:
    """The same of Student's t."""
    return float(needed("scipy.stats").t.ppf((1 + confidence) / 2, df))


def ranks(values_SQ: Floats) -> Floats:
    """(S, Q) each column's ranks from 1, tied ones at their mean."""
    return np.asarray(needed("scipy.stats").rankdata(values_SQ, axis=0), dtype=np.float64)


def varies(values_SQ: Floats) -> npt.NDArray[np.bool_]:
    """(Q,) whether a column has more than one value; what rounding leaves is no variation."""
    scale_Q = np.abs(values_SQ).max(axis=0, initial=0.0)
    return np.asarray(np.ptp(values_SQ, axis=0) > 1e-12 * scale_Q)


def standardised(values_SQ: Floats) -> Floats:
    """Each column with mean 0 and length 1; NaN where it is constant."""
    centred = values_SQ - values_SQ.mean(axis=0)
    length_Q = np.sqrt((centred**2).sum(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(varies(values_SQ), centred / length_Q, np.nan)


def correlations(one_SQ: Floats, other_SQ: Floats) -> Floats:
    """(Q,) Pearson correlation of each column with its like; NaN where one is constant."""
    return np.asarray((standardised(one_SQ) * standardised(other_SQ)).sum(axis=0))
