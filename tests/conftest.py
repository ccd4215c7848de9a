"""What every test process starts with."""

import os
import signal
import tempfile

# A shell starts what it puts in the background with SIGINT ignored, and children inherit that. The
# tests send real signals, and must do so whoever started them.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Plans and evaluations of untouched models are shared by the tests of one process alone.
_CACHE = tempfile.TemporaryDirectory(prefix="oocr_cache_")
os.environ["OOCR_CACHE"] = _CACHE.name
