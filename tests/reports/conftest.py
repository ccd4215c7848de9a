import sys
from pathlib import Path

# pytest imports test files by path alone; page_runs.py is shared with the tests in a browser.
sys.path.append(str(Path(__file__).parent))
