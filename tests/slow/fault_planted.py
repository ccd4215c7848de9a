"""Preloaded by workers, it makes every lock succeed: for the test that double leases are seen."""

import os

from launcher import host

host._lock = host._open_lock
host.Host.lock = lambda self, name: os.dup(0)
