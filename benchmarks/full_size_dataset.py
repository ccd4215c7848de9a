"""A dataset of the seed's size: how long do writing, loading and packing take, and how much memory?

    python benchmarks/full_size_dataset.py

Each part runs in a process of its own; loading is interleaved with the standard library's
`json.load` of the same file, the least that anyone would do, and given as a ratio to it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PARTS = {
    "json.load": "import json; json.load(open(PATH, encoding='utf-8'))",
    "load": (
        "from oocr_influence.datasets.document_dataset import load_structured_dataset as load\n"
        "dataset = load(PATH)"
    ),
}
PACK = """
from oocr_influence.datasets.document_dataset import load_structured_dataset as load
from oocr_influence.datasets.packing import pack, tokenize_documents
from oocr_influence.datasets.selection import select_documents
from oocr_influence.models.tiny import tiny_tokenizer
dataset = load(PATH)
documents = select_documents(dataset, n_pretraining_examples=None, seed=41, packing_seed=0)
tokenizer = tiny_tokenizer()
started = time.perf_counter()
tokens = tokenize_documents([d.text for d in documents], tokenizer, "masked")
windows = pack(tokens, chunk_size=2048, packing="masked", pad_id=1)
"""
MEASURE = """
import resource, time, json
PATH = {path!r}
started = time.perf_counter()
{code}
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps([seconds, peak]))
"""


def measure(code: str, path: Path) -> tuple[float, float]:
    """Seconds and peak bytes of `code` in a fresh process."""
    source = MEASURE.format(path=str(path), code=code)
    output = subprocess.run(
        [sys.executable, "-c", source], check=True, capture_output=True, text=True
    ).stdout
    seconds, peak = json.loads(output.splitlines()[-1])
    return seconds, peak


def main() -> None:
    """Print a table, a row a part."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dataset.json"
        generate = (
            "from pathlib import Path\n"
            "from oocr_influence.cli.generate import main\n"
            "from oocr_influence.cli.generate_options import GenerateArguments\n"
            "main(GenerateArguments(output=Path(PATH)))"
        )
        rows = {"generate": [measure(generate, path)], **{name: [] for name in PARTS}, "pack": []}
        for _ in range(5):
            for name, code in PARTS.items():
                rows[name].append(measure(code, path))
        rows["pack"].append(measure(PACK, path))
        print(f"{path.stat().st_size / 1e6:.0f} MB")
    base = statistics.median(seconds for seconds, _ in rows["json.load"])
    for name, values in rows.items():
        seconds = statistics.median(value[0] for value in values)
        peak = max(value[1] for value in values)
        print(
            f"{name:10} {seconds:6.2f} s  {seconds / base:5.2f} × json.load  {peak / 1e6:6.0f} MB"
        )


if __name__ == "__main__":
    main()
