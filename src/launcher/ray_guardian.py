"""The process between a Ray worker and ours: whatever ends, nothing is left behind.

    python ray_guardian.py ORDERS ENDED TOKEN PROGRAM ARGUMENTS...

It runs the program. ORDERS and ENDED are file descriptors of pipes: "T" on the first has SIGTERM
sent to the program, and its end, which comes when its writer ends in whatever way, has it killed;
the other is closed when all is over. Last, everything with LAUNCHER_WORKER=TOKEN in its environment
is killed, whatever session or group it hides in: Ray gives its GPU away at once. The guardian
leaves its parent's side, since Ray kills the children of its workers. The file is sent to the node
as text, so it imports nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_RESET = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main() -> None:
    """Watch over one program."""
    orders, ended, token, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]
    for descriptor in (orders, ended):
        os.set_inheritable(descriptor, False)
    if os.fork():
        os._exit(0)
    os.setsid()
    for number in _RESET:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker)
    own = os.getpid()
    child = os.fork()
    if child == 0:
        _become(command, own)
    _wait(child, orders, woken)
    _kill_all(token)
    os._exit(0)  # closes `ended`


def _become(command: list[str], parent: int) -> None:
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() == parent:  # else it ended before we asked
            os.execvp(command[0], command)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr, flush=True)
    finally:
        os._exit(127)


def _wait(child: int, orders: int, woken: int) -> None:
    """Return when the child has ended, or is to be ended."""
    while not os.waitpid(child, os.WNOHANG)[0]:
        ready, _, _ = select.select([orders, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
        if orders in ready:
            if not (said := os.read(orders, 4096)):
                return
            if b"T" in said:
                os.kill(child, signal.SIGTERM)


def _kill_all(token: str) -> None:
    """Kill the token's processes, and those that they start meanwhile; gives up after 10 s."""
    deadline = time.monotonic() + 10.0
    while (pids := _pids_of(token)) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _pids_of(token: str) -> list[int]:
    needle = b"\0LAUNCHER_WORKER=" + token.encode() + b"\0"
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with contextlib.suppress(OSError):  # ended, or another user's
                if needle in b"\0" + (folder / "environ").read_bytes() + b"\0":
                    found.append(int(folder.name))
    return found


if __name__ == "__main__":
    main()
