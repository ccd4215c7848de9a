"""Which room may import which: the table of docs/architecture.md, read from the sources."""

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
PACKAGE = "oocr_influence"
MAY_IMPORT = {
    "universe": set(),
    "documents": {"universe"},
    "datasets": {"universe", "documents"},
    "results": set(),
    "models": {"results"},
    "training": {"datasets", "models", "results"},
    "evaluation": {"datasets", "models", "results"},
    "reports": {"results"},
    "attribution": {"datasets", "models", "evaluation", "results"},
    "cli": {
        "universe",
        "documents",
        "datasets",
        "results",
        "models",
        "training",
        "evaluation",
        "reports",
        "attribution",
        "launcher",
    },
    "launcher": set(),
}
# The leaves of the dataset's file format: plain data that a question is made of.
PLAIN_DATA = {f"{PACKAGE}.universe.facts", f"{PACKAGE}.documents.document"}
# What sets are called, as text alone: records are read with it where no dataset is at hand.
NAMES = {f"{PACKAGE}.datasets.set_names"}
TORCH_FREE = ["universe", "documents", "datasets", "results", "reports"]


def room_of(module):
    parts = module.split(".")
    if parts[0] == "launcher":
        return "launcher"
    if parts[0] == PACKAGE and len(parts) > 1:
        return parts[1]
    return None


def imports(source):
    """Every module that a source names in an import, at any depth, but for its `__main__` part."""
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if not is_main_part(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the room"
            yield node.module


def is_main_part(node):
    return isinstance(node, ast.If) and "__main__" in ast.dump(node.test)


def faults(module, source):
    room = room_of(module)
    for imported in imports(source):
        other = room_of(imported)
        if imported.split(".")[0] == "experiments":
            yield f"{module} imports experiments"
        plain = imported in PLAIN_DATA and "datasets" in MAY_IMPORT[room]
        plain |= imported in NAMES and "results" in {room, *MAY_IMPORT[room]}
        if other and other != room and other not in MAY_IMPORT[room] and not plain:
            yield f"{module} imports {imported}"


def modules():
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), path


def test_rooms_import_only_what_the_table_allows():
    found = [
        fault
        for module, path in modules()
        if room_of(module)
        for fault in faults(module, path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_every_room_is_in_the_table():
    rooms = {path.name for path in (SOURCE / PACKAGE).iterdir() if (path / "__init__.py").exists()}
    assert rooms <= set(MAY_IMPORT)
    assert not any(path.name == "utils" for path in SOURCE.rglob("*"))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("oocr_influence.training.loop", "import oocr_influence.evaluation.plan"),
        (
            "oocr_influence.results.verification",
            "def f():\n    from oocr_influence.models import x",
        ),
        ("launcher.jobs", "from oocr_influence.results import naming"),
        ("oocr_influence.reports.table", "import launcher.jobs"),
        ("oocr_influence.results.naming", "from oocr_influence.datasets.eval_sets import x"),
        ("oocr_influence.universe.world", "from oocr_influence.datasets.set_names import KINDS"),
        ("oocr_influence.cli.main", "import experiments.data_modeling"),
        ("oocr_influence.universe.world", "from oocr_influence.documents.document import Document"),
    ],
)
def test_a_planted_import_is_found(module, source):
    assert list(faults(module, source))


def test_names_of_sets_import_nothing_of_ours():
    for module, path in modules():
        if module in NAMES:
            assert not [name for name in imports(path.read_text("utf-8")) if room_of(name)]


def test_there_are_no_import_cycles_between_modules():
    names = dict(modules())
    graph = {
        module: {name for name in imports(path.read_text(encoding="utf-8")) if name in names}
        for module, path in names.items()
    }
    done, path = set(), []

    def visit(module):
        assert module not in path, f"import cycle: {' -> '.join([*path, module])}"
        if module not in done:
            path.append(module)
            for imported in graph[module]:
                visit(imported)
            done.add(path.pop())

    for module in graph:
        visit(module)


def loaded_with(imported, *, forbidden):
    code = textwrap.dedent(f"""
        import importlib, pkgutil, sys
        package = importlib.import_module({imported!r})
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
        print(*[name for name in {forbidden!r} if name in sys.modules])
    """)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("room", TORCH_FREE)
def test_rooms_without_models_load_no_torch(room):
    assert loaded_with(f"{PACKAGE}.{room}", forbidden=["torch", "transformers"]) == []


def test_the_launcher_knows_nothing_of_ours():
    assert loaded_with("launcher", forbidden=["torch", "transformers", PACKAGE]) == []


def test_the_torch_guard_can_fail():
    assert loaded_with(f"{PACKAGE}.models", forbidden=["torch"]) == ["torch"]
