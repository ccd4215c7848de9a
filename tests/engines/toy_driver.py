"""A driver that starts one worker and waits to be killed.

python toy_driver.py slurm|RAY_ADDRESS FOLDER TOKEN
"""

import sys
import time
from pathlib import Path

from engine_toys import becomes, begun, toy

from launcher.ray_engine import RayEngine
from launcher.slurm_engine import SlurmEngine

engine = SlurmEngine() if sys.argv[1] == "slurm" else RayEngine(sys.argv[1])
worker = toy(Path(sys.argv[2]), token=sys.argv[3])
engine.start(worker)
begun(worker)
becomes(engine, worker, "running")
print("running", flush=True)
time.sleep(300)
