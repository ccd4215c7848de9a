"""examples/results.ipynb, cell by cell without Jupyter, on runs made here."""

import ast
import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "results.ipynb"
sys.path.append(str(ROOT / "tests" / "results"))
from made_runs import make_experiment  # noqa: E402


def cells():
    """The code cells of the notebook, which holds no outputs."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["metadata"]["language_info"]["name"]) == (4, "python")
    found = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in found)
    return ["".join(cell["source"]) for cell in found]


def draws(cell):
    return "matplotlib" in cell


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Two runs in ../outputs of the folder that the notebook is run in, as of a checkout's."""
    experiment = make_experiment(tmp_path / "outputs", n_runs=2)
    (tmp_path / "examples").mkdir()
    monkeypatch.chdir(tmp_path / "examples")
    return experiment


def run(chosen):
    names = {}
    for cell in chosen:
        exec(compile(ast.parse(cell), "<cell>", "exec"), names)
    names["collected"].close()
    return names


def test_its_tables_say_what_the_records_say(made, capsys):
    names = run([cell for cell in cells() if not draws(cell)])
    records = [
        record
        for folder in made.runs
        for record in pq.read_table(folder.path / "eval_results/records_final.parquet").to_pylist()
    ]
    for kind in ("trained", "reversed"):
        ranks = [record["rank_tie_averaged"] for record in records if record["kind"] == kind]
        mean = sum(ranks) / len(ranks)
        assert names["before_after"].loc[kind, "final"] == pytest.approx(mean)
        assert names["intervals"][kind].mean == pytest.approx(mean)
    assert list(names["before_after"]["chance"]) == [3, 3]
    assert len(names["runs"]) == 2
    said = capsys.readouterr().out
    assert "reversed                            3.50 → 3.50" in said
    assert "most probable: A0, A1" in said


def test_its_figure_has_a_line_a_kind(made):
    matplotlib = pytest.importorskip("matplotlib", reason="make smollm2 adds matplotlib")
    matplotlib.use("Agg")
    axes = run(cells())["axes"]
    assert {line.get_label() for line in axes.get_lines()} == {"trained", "reversed"}
    trained = next(line for line in axes.get_lines() if line.get_label() == "trained")
    assert trained.get_ydata()[-1] == 1
