import sys
from pathlib import Path

import pytest

# pytest imports test files by path alone; made_runs.py is shared by several folders of tests.
sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    """A sound experiment of one run, which no test may change."""
    from made_runs import make_experiment

    return make_experiment(tmp_path_factory.mktemp("pristine"))
