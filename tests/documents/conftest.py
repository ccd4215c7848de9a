"""pytest imports test files by path alone; the stand-in for a language model is shared."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "cli"))
