"""A claimant in a process of its own, told by lines what to do; it answers each with one line.

python tests/launcher/launcher_claimant.py '{"token": "a", "names": ["gpu-0"], "each": 1, …}'
"""

import ast
import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent


def main():
    from launcher.disk import DiskReservation, NoRoomError
    from launcher.host import Host
    from launcher.leases import Claimant

    settings = json.loads(sys.argv[1])
    uid = settings.pop("uid", None)
    if uid is not None:
        os.umask(settings.pop("umask", 0o077))
        os.setegid(uid)
        os.seteuid(uid)
    host = Host()
    claimant = Claimant(host, settings.pop("token"), **settings)
    print("ready", flush=True)
    leases, kept = [], []
    for line in sys.stdin:
        order, *words = line.split()
        answer = None
        if order == "wants":
            claimant.wants(int(words[0]))
        elif order == "lease":
            lease = claimant.lease(but=words)
            answer = lease and list(lease.names)
            leases += [lease] if lease else []
        elif order == "release":
            claimant.release(leases.pop(0))
        elif order == "fork":  # a job's own process, with the last lease, and a program it started
            answer = os.fork()
            if answer == 0:
                claimant.become_job(leases[-1])
                time.sleep(60)
                os._exit(0)
        elif order == "start":
            answer = subprocess.Popen(
                ["sleep", "60"], start_new_session=True, stdout=subprocess.DEVNULL
            ).pid
        elif order == "reserve":
            try:
                kept.append(DiskReservation(host, Path(words[0]), int(words[1]), what="a test"))
                answer = True
            except NoRoomError:
                answer = False
        elif order == "beat":
            claimant.beat()
        print(repr(answer), flush=True)
    claimant.close()


class Person:
    """The other end of such a process."""

    def __init__(self, token, *, names=("gpu-0", "gpu-1"), each=1, sweep=None, since=0.0, **more):
        settings = {"token": token, "names": list(names), "each": each, "since": since}
        settings |= {"sweep": sweep or token, **more}
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "launcher_claimant.py"), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "LAUNCHER_WORKER": token},
        )
        self.pid = self.process.pid
        assert self.process.stdout.readline() == "ready\n"

    def __call__(self, order):
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        return ast.literal_eval(self.process.stdout.readline())

    def close(self):
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


if __name__ == "__main__":
    main()
