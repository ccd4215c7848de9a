"""Leaving sweeps to a process of its own, which survives the terminal that it was started from.

It is the same command with `--resume`, in a session of its own: no closed terminal and no Ctrl-C
there reaches it. What it prints goes to the experiment's driver.log.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence

from launcher.ledger import last_lines, read_record
from launcher.sweep import SWEEP_FILE
from oocr_influence.cli.arguments import UsageError
from oocr_influence.results.run_folder import ExperimentFolder

STARTED_WITHIN = 120.0  # seconds; a busy machine imports torch for long


def detach(
    folder: ExperimentFolder, words: Sequence[str], others: Sequence[ExperimentFolder] = ()
) -> int:
    """Start `oocr WORDS…`, wait until it drives the sweep in `folder`, say how to reach it.

    `others` are driven by the same process. Returns 0; raises UsageError, with what it said, where
    it ended before.
    """
    log = folder.path / "driver.log"
    with log.open("ab") as output:
        driver = subprocess.Popen(
            [sys.executable, "-u", "-m", "oocr_influence.cli.main", *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    if not _drives(driver, folder):
        said = "\n  ".join(last_lines(log))
        raise UsageError(f"the detached process ended with {driver.returncode}; it said:\n  {said}")
    names = [shlex.quote(os.path.relpath(one.path)) for one in (folder, *others)]
    print(f"process {driver.pid} runs it; what it prints is in {shlex.quote(str(log))}")
    print(f"  see it     oocr status {' '.join(names)}")
    print(
        f"  follow it  tail -f {shlex.quote(os.path.relpath(log))}, "
        f"or one run: oocr logs {names[0]}/JOB -f"
    )
    print(f"  stop it    oocr stop {' '.join(names)}")
    return 0


def _drives(driver: subprocess.Popen[bytes], folder: ExperimentFolder) -> bool:
    """Whether it has become the sweep's driver; False where it ended badly before."""
    deadline = time.monotonic() + STARTED_WITHIN
    while time.monotonic() < deadline:
        if driver.poll() is not None:
            return driver.returncode == 0
        record = read_record(folder.jobs / SWEEP_FILE)
        if record is not None and record["driver"]["pid"] == driver.pid:
            return True
        time.sleep(0.1)
    return True
