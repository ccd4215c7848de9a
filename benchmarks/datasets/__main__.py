"""A dataset of the seed's size: how long do writing, loading and packing take, and how much memory?

    OMP_NUM_THREADS=1 python benchmarks/datasets                      # 98 sets, 79 MB
    OMP_NUM_THREADS=1 python benchmarks/datasets --world mayors       # 190 sets
    OMP_NUM_THREADS=1 python benchmarks/datasets --scale 1 2 4 10     # linear in time?

Each part runs in a process of its own. Loading is interleaved with the plain way to the same
checked records, `json.load` and pydantic, whose time over ours is the ratio printed; imports are
not counted. Text is the source code of the installed packages in pieces of 5,000 characters: it
holds more quotation marks and line ends than prose, which makes JSON and tokens of it dearer. Where
that is too little, words of a piece are shuffled, so that no two pieces are near-duplicates.

It is a folder, since a file `datasets.py` would hide the package `datasets` from its neighbours.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROUNDS = 5
PRETRAINING_DOCS, DOCS_PER_FACT, CHARS = 11_000, 100, 5_000
GENERATE = """
from oocr_influence.cli.generate import main
from oocr_influence.cli.generate_options import GenerateArguments
started, cpu_started = time.perf_counter(), time.process_time()
main(GenerateArguments(**{arguments!r}))
"""
PLAIN = """
from oocr_influence.datasets.document_dataset import StructuredDataset
started, cpu_started = time.perf_counter(), time.process_time()
with open(PATH, encoding="utf-8") as file:
    dataset = StructuredDataset.model_validate(json.load(file))
for builder in dataset.eval_dataset_builders.values():
    for point in builder.eval_points:
        assert point.prompt.strip() and point.completion.strip()
"""
LOAD = """
from oocr_influence.datasets.document_dataset import load_structured_dataset as load
started, cpu_started = time.perf_counter(), time.process_time()
dataset = load(PATH)
"""
PACK = """
from oocr_influence.datasets.document_dataset import load_structured_dataset as load
from oocr_influence.datasets.packing import pack, tokenize_documents
from oocr_influence.datasets.selection import select_documents
from oocr_influence.models.tiny import tiny_tokenizer
dataset = load(PATH)
documents = select_documents(dataset, n_pretraining_examples=None, seed=41, packing_seed=0)
tokenizer = tiny_tokenizer()
started, cpu_started = time.perf_counter(), time.process_time()
tokens = tokenize_documents([d.text for d in documents], tokenizer, "masked")
windows = pack(tokens, chunk_size=2048, packing="masked", pad_id=1)
"""
AUDIT = """
from oocr_influence.cli.audit import AuditArguments, main
started, cpu_started = time.perf_counter(), time.process_time()
main(AuditArguments(dataset=[PATH], matrix=False))
"""
MEASURE = """
import resource, time, json
PATH = {path!r}
{code}
seconds = time.perf_counter() - started
cpu = time.process_time() - cpu_started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps([seconds, cpu, peak]))
"""
Row = list[tuple[float, float, float]]


def measure(code: str, path: Path) -> tuple[float, float, float]:
    """Seconds after the imports, CPU seconds and peak bytes of `code` in a fresh process."""
    source = MEASURE.format(path=str(path), code=code)
    output = subprocess.run(
        [sys.executable, "-c", source], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    seconds, cpu, peak = json.loads(output.splitlines()[-1])
    return seconds, cpu, peak


def pieces() -> Iterator[str]:
    """Text without end, in pieces of CHARS characters."""
    first, waiting = [], ""
    for path in sorted(Path(sysconfig.get_paths()["purelib"]).rglob("*.py")):
        waiting += path.read_text(encoding="utf-8", errors="replace")
        while len(waiting) >= CHARS:
            first.append(waiting[:CHARS])
            waiting = waiting[CHARS:]
            yield first[-1]
    for cycle in range(1, 1000):
        shuffle = random.Random(cycle).shuffle
        for piece in first:
            words = piece.split(" ")
            shuffle(words)
            yield " ".join(words)


def measure_scale(world: str, scale: int, folder: Path) -> dict[str, Row]:
    """Every part of a dataset of `scale` times the seed's size."""
    text, path = folder / "text.jsonl", folder / "dataset.json"
    with text.open("w", encoding="utf-8") as file:
        # Some of them are near-duplicates, and are left out.
        for _, piece in zip(range(PRETRAINING_DOCS * scale * 3 // 2), pieces(), strict=False):
            file.write(json.dumps({"text": piece}) + "\n")
    arguments = {
        "world": world,
        "docs_per_fact": DOCS_PER_FACT * scale,
        "pretraining_docs": PRETRAINING_DOCS * scale,
        "pretraining_source": [str(text)],
        "output": str(path),
    }
    rows: dict[str, Row] = {"write": [measure(GENERATE.format(arguments=arguments), path)]}
    rows |= {"plain": [], "load": []}
    for _ in range(ROUNDS):
        rows["plain"].append(measure(PLAIN, path))
        rows["load"].append(measure(LOAD, path))
    rows["pack"] = [measure(PACK, path)]
    rows["audit"] = [measure(AUDIT, path)]  # loading included, as somebody waits for it
    print(f"{world}, scale {scale}: {path.stat().st_size / 1e6:.0f} MB")
    return rows


def main() -> None:
    """Print a table a scale, a row a part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", default="death_dates")
    parser.add_argument("--scale", type=int, nargs="+", default=[1], help="times the seed's size")
    args = parser.parse_args()
    for scale in args.scale:
        with tempfile.TemporaryDirectory() as folder:
            rows = measure_scale(args.world, scale, Path(folder))
        for name, values in rows.items():
            seconds, cpu, peak = (statistics.median(column) for column in zip(*values, strict=True))
            print(
                f"{name:6} {seconds:7.2f} s  CPU {cpu:7.2f} s, {cpu / scale:6.2f} s a scale  "
                f"{peak / 1e6:6.0f} MB"
            )
        for what, i in (("time", 0), ("CPU time", 1)):
            pairs = zip(rows["plain"], rows["load"], strict=True)
            ratio = statistics.median(plain[i] / ours[i] for plain, ours in pairs)
            print(f"plain over ours, pair by pair, {what}: {ratio:.1f}")


if __name__ == "__main__":
    main()
