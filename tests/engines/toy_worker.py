"""A worker that does nothing, and says what was done to it.

    python toy_worker.py FOLDER [SECONDS]

It writes one line of JSON a thing that happens to FOLDER/<token>.jsonl. On SIGTERM or SIGUSR1 it
"saves" and exits 75.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

folder, seconds = Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 300.0
token = os.environ["LAUNCHER_WORKER"]


def say(event, **more):
    line = json.dumps({"event": event, "pid": os.getpid(), "time": time.time(), **more})
    with (folder / f"{token}.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def end(number, _):
    say(signal.Signals(number).name)
    sys.exit(75)


signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGUSR1, end)
child = subprocess.Popen(["sleep", "300"])
say(
    "begun",
    child=child.pid,
    node=os.environ.get("SLURMD_NODENAME") or os.environ.get("RAY_NODE_ID"),
    gpus=os.environ.get("CUDA_VISIBLE_DEVICES"),
    env={k: v for k, v in os.environ.items() if k.startswith("TOY_")},
    args=sys.argv[3:],
    restarts=os.environ.get("SLURM_RESTART_COUNT"),
)
print(f"worker {token} has begun", flush=True)
try:
    time.sleep(seconds)
    say("ended")
finally:
    child.kill()
