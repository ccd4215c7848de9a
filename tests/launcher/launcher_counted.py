"""Says who imports it, and what it saw then."""

import os
from pathlib import Path

IMPORTED_BY = os.getpid()
SETTING = os.environ.get("LAUNCHER_TEST_SETTING")

if "LAUNCHER_TEST_COUNTER" in os.environ:
    with Path(os.environ["LAUNCHER_TEST_COUNTER"]).open("a") as file:
        file.write(f"{IMPORTED_BY}\n")
    print("counted")
