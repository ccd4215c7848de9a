"""What every test process starts with."""

import os
import signal
import tempfile

import pytest

# A shell starts what it puts in the background with SIGINT ignored, and children inherit that. The
# tests send real signals, and must do so whoever started them.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Plans and evaluations of untouched models are shared by the tests of one process alone.
_CACHE = tempfile.TemporaryDirectory(prefix="oocr_cache_")
os.environ["OOCR_CACHE"] = _CACHE.name


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable():
    """What a test logged is sent to the main process, which cannot take half a character.

    Paths that are no UTF-8 are tested, and a line that names one would end the whole session.
    """
    return _encodable((yield))


def _encodable(value):
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {_encodable(key): _encodable(one) for key, one in value.items()}
        case list() | tuple():
            return type(value)(map(_encodable, value))
    return value
