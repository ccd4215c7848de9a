"""Room on the disk: asked for before anything starts, and kept from being counted twice."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

from launcher.disk import DiskReservation, NoRoomError
from launcher.host import Host
from oocr_influence.cli.arguments import UsageError

REMEDY = "save less often (--epochs_per_save), "


def reserve_disk(folder: Path, needed: int, what: str, *, remedy: str = REMEDY) -> DiskReservation:
    """Keep `needed` bytes under `folder` from all other sweeps of this machine, until it is closed.

    `what` will be written there; `remedy` is what may be done beside naming another folder and
    freeing some space. Raises UsageError where there is less, counting what others still need.
    """
    try:
        reservation = DiskReservation(Host(), folder, needed, what=what)
    except NoRoomError as error:
        taken = f", {gigabytes(error.reserved)} of them for sweeps that are running"
        raise UsageError(
            f"{what} will take {gigabytes(needed)}, but only {gigabytes(error.free)} are free "
            f"under {folder}{taken if error.reserved else ''}: name another --output_dir, "
            f"{remedy}or free some space"
        ) from None
    if needed > 0.9 * shutil.disk_usage(reservation.there).free:
        warnings.warn(f"{what} will leave less than a tenth of {folder}'s disk free", stacklevel=2)
    return reservation


def check_disk(folder: Path, needed: int, what: str, *, remedy: str = REMEDY) -> None:
    """Raise UsageError as `reserve_disk` does, and keep nothing."""
    reserve_disk(folder, needed, what, remedy=remedy).close()


def gigabytes(n_bytes: float) -> str:
    """1.5 GB, 320 MB, 2.1 TB: decimal units, as disks are sold."""
    for unit, size in (("TB", 1e12), ("GB", 1e9)):
        if n_bytes >= size:
            return f"{n_bytes / size:,.1f} {unit}"
    return f"{n_bytes / 1e6:,.0f} MB"
