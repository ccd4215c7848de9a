"""Stop sweeps, wherever they run, and make sure that nothing of them is left.

    oocr stop outputs/…_mayors         # runs are saved; what takes too long is then ended
    oocr stop mayors --now             # at once: runs go on from their last state

The request stays in the sweep's folder, so that no worker joins again; `oocr resume` takes it back.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from launcher.ending import SweepEnding
from launcher.ledger import read_record
from launcher.status import read_sweep
from launcher.sweep import SWEEP_FILE
from oocr_influence.cli.arguments import CommandArguments, UsageError, run_command
from oocr_influence.cli.sweeps import find_sweeps, folder_of, name_of

# The sweep keeps its own grace period, and ends what takes longer: this is for one that does not.
BEYOND_GRACE = 10.0


class StopArguments(CommandArguments):
    """Which sweeps, and how patiently."""

    sweeps: list[Path] = Field(json_schema_extra={"positional": True})
    """experiments' folders, or parts of their names"""
    now: bool = False
    """give the runs no time to save"""
    wait: float | None = Field(default=None, ge=0)
    """how long runs may take before they are ended firmly (seconds; None: as long as the sweep
    gives them, and ten seconds more)"""
    output_dir: Path = Path("outputs")
    """the folder that experiments are written to"""


def main(args: StopArguments) -> int:
    """Stop them one after the other; returns 1 where something is left."""
    alone = 0
    for sweep in find_sweeps(args.sweeps, args.output_dir):
        grace = float((read_record(sweep / SWEEP_FILE) or {}).get("grace", 10.0))
        patience = grace + BEYOND_GRACE if args.wait is None else args.wait
        print(f"{name_of(sweep)}: stopping", flush=True)
        try:
            left = SweepEnding(sweep).stop(now=args.now, patience=patience, say=print)
        except PermissionError as error:
            raise UsageError(f"{sweep} is another user's: {error}") from None
        counts = read_sweep(sweep).counts()
        told = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
        if left:
            alone += 1
            print(f"{name_of(sweep)}: still there: {'; '.join(left)} ({told})")
            continue
        print(f"{name_of(sweep)}: stopped, no process of it is left ({told})")
        if counts["done"] < sum(counts.values()):
            print(f"go on with: oocr resume {folder_of(sweep)}")
    return 1 if alone else 0


if __name__ == "__main__":
    run_command(StopArguments, main)
