"""What the earlier system kept in pickles beside its log, read without running anything in them.

    read_pickle(run.path / "saved_objects/3.pckl")    # 4

A pickle is a program: it may name any function and call it. Here it may name what numpy's scalars
and arrays and pandas' plain frames are made of, by exact module and name, and nothing else.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

_ARRAYS = "numpy._core.multiarray"
_INTERNALS = "pandas.core.internals"
# (module, name) in the file -> the module that has it today. numpy 1 and pandas 1 and 2 included.
_ALLOWED = {
    **{
        (f"numpy.{core}.multiarray", name): _ARRAYS
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct")
    },
    ("numpy.core.numeric", "_frombuffer"): "numpy._core.numeric",
    ("numpy._core.numeric", "_frombuffer"): "numpy._core.numeric",
    ("numpy", "ndarray"): "numpy",
    ("numpy", "dtype"): "numpy",
    ("_codecs", "encode"): "_codecs",  # bytes of protocol 2
    ("builtins", "slice"): "builtins",
    ("__builtin__", "slice"): "builtins",  # in protocol 2
    ("pandas", "DataFrame"): "pandas",
    ("pandas.core.frame", "DataFrame"): "pandas.core.frame",
    ("pandas", "Index"): "pandas",
    ("pandas", "RangeIndex"): "pandas",
    ("pandas.core.indexes.base", "Index"): "pandas.core.indexes.base",
    ("pandas.core.indexes.base", "_new_Index"): "pandas.core.indexes.base",
    ("pandas.core.indexes.range", "RangeIndex"): "pandas.core.indexes.range",
    (f"{_INTERNALS}.managers", "BlockManager"): f"{_INTERNALS}.managers",
    ("pandas._libs.internals", "_unpickle_block"): "pandas._libs.internals",
}
# numpy's own classes of numbers, such as numpy.float64, which a dtype may be told by.
_NUMBERS = {
    name
    for name, value in vars(np).items()
    if isinstance(value, type) and issubclass(value, np.number)
} | {"bool", "bool_"}
_MAX_BYTES = 1 << 30


class RefusedPickle(ValueError):
    """A pickle that names what no result is made of, or that cannot be read."""


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "numpy" and name in _NUMBERS:
            return getattr(np, name)
        place = _ALLOWED.get((module, name))
        if place is None:
            raise RefusedPickle(f"it names {module}.{name}, which no result is made of")
        return super().find_class(place, name)

    def persistent_load(self, pid: Any) -> Any:
        raise RefusedPickle(f"it refers to something outside itself: {pid!r}")


def read_pickle(path: Path) -> Any:
    """The value in `path`: plain data, numpy's scalars and arrays, pandas' frames.

    Raises RefusedPickle, with the name, for a file that names anything else, and for one that
    cannot be read; FileNotFoundError where there is none.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise RefusedPickle(f"{path}: larger than any result ({path.stat().st_size} bytes)")
    try:
        return _Restricted(io.BytesIO(path.read_bytes())).load()
    except RefusedPickle as error:
        raise RefusedPickle(f"{path} is refused: {error}") from None
    except Exception as error:  # whatever a broken pickle makes its own classes raise
        raise RefusedPickle(f"{path} cannot be read: {error!r}") from error


def as_number(value: Any) -> float | None:
    """The number that a value is, one that stands alone in an array included; None otherwise."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(())[()]
    if isinstance(value, bool | int | float | np.number | np.bool_):
        return float(value)
    return None


def as_rows(value: Any) -> list[Any]:
    """The rows of a list, an array or a frame; none of any other value.

    Raises RefusedPickle for a frame that is none inside.
    """
    if isinstance(value, np.ndarray):
        return list(np.ndarray.tolist(np.atleast_1d(value)))
    if isinstance(value, list | tuple):
        return list(value)
    if type(value).__module__.partition(".")[0] != "pandas":
        return []
    try:
        # The class's own: what a file made may carry an attribute of this name.
        return list(type(value).to_dict(value, "records"))
    except Exception as error:
        raise RefusedPickle(f"a frame that cannot be read: {error!r}") from error
