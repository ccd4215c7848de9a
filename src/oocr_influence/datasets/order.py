"""Orders that a seed states for ever: the same on every machine, Python and numpy.

An order is the argsort of a keyed hash, so that anyone can recompute it in three lines and no
library's generator can change it under a finished experiment.
"""

from __future__ import annotations

import hashlib


def seeded_order(n: int, *key: str | int) -> list[int]:
    """A permutation of range(n) that depends on `key` alone.

    Place i is sorted by blake2b("key0:key1:…:i"): order.py's whole definition.
    """
    prefix = ":".join(str(part) for part in key)
    return sorted(range(n), key=lambda i: _digest(f"{prefix}:{i}"))


def window_order(n_windows: int, data_order_seed: int, epoch: int) -> list[int]:
    """The order in which an epoch (from 1) trains its windows."""
    return seeded_order(n_windows, "window_order", data_order_seed, epoch)


def order_digest(order: list[int]) -> str:
    """First 16 hex digits of the sha256 of the comma-joined order: short enough for a log line."""
    return hashlib.sha256(",".join(map(str, order)).encode()).hexdigest()[:16]


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
