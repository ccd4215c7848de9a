"""Asking a sweep to stop, from any machine that sees its folder: a file that its workers look at.

stop.json     {"firm": false, "asked_at": …, "by": …}; removed when the sweep goes on
"""

from __future__ import annotations

from pathlib import Path

from launcher.ledger import identity, read_record, utc_now, write_record

STOP_FILE = "stop.json"


def ask_to_stop(sweep: Path, *, firm: bool = False) -> None:
    """Have every worker of the sweep stop its jobs, wherever it runs; `firm` gives them no time."""
    record = {"firm": firm, "asked_at": utc_now(), "by": identity()}
    write_record(sweep / STOP_FILE, record, durable=False)


def stop_asked(sweep: Path) -> int:
    """0: go on; 1: stop in order; 2: stop at once."""
    try:
        record = read_record(sweep / STOP_FILE)
    except ValueError:
        return 1
    except OSError:  # the disk is away: we shall ask again
        return 0
    return 0 if record is None else 1 + bool(record.get("firm"))


def let_go_on(sweep: Path) -> None:
    """Take the request back."""
    (sweep / STOP_FILE).unlink(missing_ok=True)
