"""Pickles of the earlier system are read; pickles that would do anything are refused by name."""

import builtins
import functools
import operator
import os
import pickle
import subprocess

import numpy as np
import pandas as pd
import pytest

from oocr_influence.results.earlier_pickles import (
    RefusedPickle,
    as_number,
    as_rows,
    read_pickle,
)

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def written(tmp_path, content: bytes):
    path = tmp_path / "3.pckl"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "value",
    [
        np.float64(2.5),
        np.int64(4),
        np.bool_(True),
        3,
        [1, np.float32(2)],
        np.arange(6).reshape(2, 3),
        np.array(["Ada", None], dtype=object),
        np.array([1.5, np.nan]),
    ],
    ids=repr,
)
def test_numbers_and_arrays_come_back(tmp_path, value, protocol):
    found = read_pickle(written(tmp_path, pickle.dumps(value, protocol)))
    np.testing.assert_array_equal(np.asarray(found), np.asarray(value))
    assert type(found) is type(value)


@pytest.mark.parametrize("protocol", PROTOCOLS[2:])
def test_plain_frames_come_back(tmp_path, protocol):
    frame = pd.DataFrame({"rank": [1, 2], "loss": [0.5, 1.5], "prompt": ["Q1", "Q2"]}, dtype=object)
    frame = frame.astype({"rank": int, "loss": float})
    frame.columns = pd.Index(frame.columns, dtype=object)
    found = read_pickle(written(tmp_path, pickle.dumps(frame, protocol)))
    assert as_rows(found) == frame.to_dict("records")


def test_names_of_the_first_numpy_are_understood(tmp_path):
    content = pickle.dumps(np.float64(2.5), 0).replace(
        b"numpy._core.multiarray", b"numpy.core.multiarray"
    )
    assert b"numpy.core." in content
    assert read_pickle(written(tmp_path, content)) == 2.5


class Calls:
    """A pickle that calls a function when it is read."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


EVIL = {
    "os.system": (os.system, "touch {mark}"),
    "subprocess.Popen": (subprocess.Popen, ["touch", "{mark}"]),
    "builtins.eval": (builtins.eval, "open('{mark}', 'w')"),
    "builtins.exec": (builtins.exec, "open('{mark}', 'w')"),
    "builtins.getattr": (builtins.getattr, os, "system"),
    "builtins.__import__": (builtins.__import__, "os"),
    "open": (open, "{mark}", "w"),
    "operator.attrgetter": (operator.attrgetter, "system"),
    "functools.partial": (functools.partial, os.system, "touch {mark}"),
    "pandas.io.pickle.read_pickle": (pd.read_pickle, "{mark}"),
    "eval": (pd.eval, "1"),
    "numpy": (np.save, "{mark}", np.zeros(1)),
    "memmap": (np.memmap, "{mark}", "uint8", "w+", 0, (1,)),
}


@pytest.mark.parametrize("named", EVIL)
@pytest.mark.parametrize("protocol", [0, 2, pickle.HIGHEST_PROTOCOL])
def test_a_pickle_that_calls_something_is_refused_by_name(tmp_path, named, protocol):
    mark = tmp_path / "mark"

    def filled(argument):
        if isinstance(argument, list):
            return [filled(part) for part in argument]
        return argument.format(mark=mark) if isinstance(argument, str) else argument

    function, *arguments = EVIL[named]
    try:
        content = pickle.dumps([1, Calls(function, *map(filled, arguments))], protocol)
    except TypeError:  # a module is an argument: written by hand
        content = b"cbuiltins\ngetattr\n(cos\nsystem\nS'x'\ntR."
    expected = {"os.system": "posix.system"}.get(named, named)
    with pytest.raises(RefusedPickle, match=r"it names .*") as error:
        read_pickle(written(tmp_path, content))
    assert expected.rpartition(".")[2] in str(error.value)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        # Protocol 4 lets a name be a path through attributes.
        (b"\x80\x04\x8c\x06pandas\x8c\x0eDataFrame.eval\x93.", "pandas.DataFrame.eval"),
        (b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.", "numpy.ndarray.__init__"),
        (b"cnumpy.testing._private.utils\nrunstring\n.", "runstring"),
        (b"cnumpy.f2py.capi_maps\ngetinit\n.", "getinit"),
        (b"cpandas.core.frame\nSeries\n.", "Series"),
        (b"(S'touch x'\nios\nsystem\n.", "os.system"),  # INST
        (b"ctorch._utils\n_rebuild_tensor_v2\n.", "torch._utils"),
        (b"c__builtin__\neval\n.", "__builtin__.eval"),
        (b"\x82\x01.", "cannot be read"),  # EXT1, from copyreg's registry
        (b"P1\n.", "outside itself"),
        (b"", "cannot be read"),
        (b"\x80\x05garbage", "cannot be read"),
        (pickle.dumps(np.arange(100))[:-20], "cannot be read"),
    ],
)
def test_other_ways_to_reach_something_are_refused(tmp_path, content, named):
    with pytest.raises(RefusedPickle, match=named):
        read_pickle(written(tmp_path, content))


def test_state_cannot_plant_what_is_called_later(tmp_path):
    """BUILD sets attributes of what was made; what reads the value must not call them."""
    for evil in (Planted({"to_dict": os.system}), Planted({"to_dict": pd.DataFrame, "_mgr": 1})):
        with pytest.raises(RefusedPickle):
            as_rows(read_pickle(written(tmp_path, pickle.dumps(evil, 2))))


class Planted:
    def __init__(self, state):
        self.state = state

    def __reduce__(self):
        return pd.DataFrame, (), self.state


def test_the_guard_can_fail(tmp_path):
    mark = tmp_path / "mark"
    pickle.loads(pickle.dumps(Calls(os.system, f"touch {mark}")))
    assert mark.exists()


def test_numbers_alone_are_numbers():
    assert as_number(np.array([4])) == 4.0
    assert as_number(np.float32(0.5)) == 0.5
    assert as_number(True) == 1.0
    assert as_number("4") is None
    assert as_number(np.array([1, 2])) is None
