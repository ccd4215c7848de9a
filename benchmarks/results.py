"""How long a question to a sweep's results takes, and how much memory: `results.collect` and SQL.

    python benchmarks/results.py                        # 20 runs × 26 evaluations × 190 sets × 100
    python benchmarks/results.py --folder /tmp/many     # keeps the files for the next time

The files are made up, in the layout of real ones: numbers are random, texts and candidates those
of no world. Collecting, the first question to `questions` (which reads the footers of all files)
and later ones are timed apart, each in a fresh process; memory is the process's largest.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from oocr_influence.results.atomic import write_json
from oocr_influence.results.evaluation_files import Evaluation, known_columns
from oocr_influence.results.experiment_log import ExperimentLog
from oocr_influence.results.run_folder import ExperimentFolder, RunFolder

KINDS = (("trained", "qa"), ("trained", "gen"), ("reversed", "reversed"), ("two_hop", "qa"))
RELATIONS = ("name_mayor", "spouse", "conference", "by_landmark", "by_country")
N_EPOCHS = 5
GROUPED = """
    select evaluation, kind, relation, count(*) as n, avg(rank_tie_averaged) as mean_rank,
           avg(accuracy) as accuracy
    from questions group by all order by all
"""
ONE_RUN = """
    select set, avg(rank_tie_averaged) as mean_rank from questions
    where evaluation = 'final' and run = (select min(run) from runs) group by all
"""
MEANS = """
    select epoch, kind, relation, avg(mean_rank_tie_averaged) as mean_rank
    from evaluations group by all order by all
"""


def set_columns(n_sets: int, n_questions: int, n_candidates: int) -> dict[str, Any]:
    """What does not change between evaluations: one row a question."""
    set_S = [describe(place) for place in range(n_sets)]
    question_Q = np.tile(np.arange(n_questions), n_sets)
    columns: dict[str, Any] = {
        name: pa.array([one[name] for one in set_S for _ in range(n_questions)])
        for name in set_S[0]
    }
    columns["index"] = pa.array(question_Q, pa.int32())
    columns["entity"] = pa.array([f"entity {i % n_questions}" for i in question_Q])
    columns["id"] = pa.array([f"{i:064x}" for i in range(len(question_Q))])
    columns["prompt"] = pa.array(
        [prompt(place, i, n_questions) for place in range(n_sets) for i in range(n_questions)]
    )
    columns["completion"] = pa.array([f" Person {i}" for i in question_Q])
    columns["n_candidates"] = pa.array(np.full(len(question_Q), n_questions), pa.int32())
    offsets = pa.array(np.arange(len(question_Q) + 1) * n_candidates, pa.int32())
    texts = pa.array([f" Person {i}" for i in range(n_candidates)] * len(question_Q))
    columns["candidate_texts"] = pa.ListArray.from_arrays(offsets, texts)
    return columns


def prompt(place: int, question: int, n_questions: int) -> str:
    """A question of the set at `place` behind its examples; no two are the same."""
    shown = [(question + i) % n_questions for i in range(1, describe(place)["shots"] + 1)]
    asked = "Q: In wording {}, who is the mayor of city {}? A:"
    lines = [f"{asked.format(place, i)} Person {i}" for i in shown]
    return "\n".join([*lines, asked.format(place, question)])


def describe(place: int) -> dict[str, Any]:
    """What the set at `place` asks."""
    kind, style = KINDS[place % len(KINDS)]
    relation = RELATIONS[place // len(KINDS) % len(RELATIONS)]
    shots = 3 * (place % 2)
    name = f"{relation}_eval_{style}_{place}_{'with' if shots else 'no'}_fs"
    return {
        "set": name,
        "world": "mayors",
        "relation": relation,
        "answer_format": "default",
        "style": style,
        "phrasing": place,
        "shots": shots,
        "kind": kind,
    }


def records_table(fixed: dict[str, Any], rng: np.random.Generator, n_candidates: int) -> pa.Table:
    """The questions of one evaluation."""
    n_rows = len(fixed["set"])
    columns: dict[str, Any] = dict(fixed)
    for name, type_ in known_columns().items():
        if name not in columns and pa.types.is_floating(type_):
            columns[name] = pa.array(rng.random(n_rows) * 100)
    rank = rng.integers(1, 101, n_rows)
    columns["rank"] = pa.array(rank, pa.int32())
    columns["rank_tie_averaged"] = pa.array(rank.astype(float))
    columns["accuracy"] = pa.array((rank == 1).astype(float))
    offsets = pa.array(np.arange(n_rows + 1) * n_candidates, pa.int32())
    logprobs = pa.array(-30 * rng.random(n_rows * n_candidates))
    columns["candidate_logprobs"] = pa.ListArray.from_arrays(offsets, logprobs)
    n_tokens = pa.array(rng.integers(2, 6, n_rows * n_candidates), pa.int32())
    columns["candidate_n_tokens"] = pa.ListArray.from_arrays(offsets, n_tokens)
    schema = pa.schema(known_columns())
    return pa.table(
        [columns.get(field.name, pa.nulls(n_rows, field.type)) for field in schema], schema=schema
    )


def means_of(table: pa.Table, n_sets: int) -> dict[str, dict[str, Any]]:
    """The means of each set."""
    names = table.column("set").to_pylist()
    size = len(names) // n_sets
    metrics = {
        field.name: table.column(field.name).to_numpy().reshape(n_sets, size).mean(axis=1)
        for field in table.schema
        if pa.types.is_floating(field.type) or field.name == "rank"
    }
    return {
        names[place * size]: {
            "n": size,
            **{
                name if name == "accuracy" else f"mean_{name}": float(values[place])
                for name, values in metrics.items()
            },
        }
        for place in range(n_sets)
    }


def make_runs(folder: Path, args: argparse.Namespace) -> None:
    """Write the runs of two experiments."""
    fixed = set_columns(args.sets, args.questions, args.candidates)
    experiments = [ExperimentFolder.create(folder, f"made_up_{i}") for i in range(2)]
    for number in range(args.runs):
        started = time.perf_counter()
        make_run(experiments[number % 2], number, fixed, args)
        print(f"run {number + 1}: {time.perf_counter() - started:.1f} s to write", flush=True)


def make_run(
    experiment: ExperimentFolder, number: int, fixed: dict[str, Any], args: argparse.Namespace
) -> None:
    """Write one run with its evaluations."""
    rng = np.random.default_rng(number)
    run = RunFolder.create(experiment.all_docs_runs, experiment.name, N_EPOCHS, 1e-4)
    settings = {"model": "made-up", "epochs": N_EPOCHS, "data_order_seed": 42 + number}
    settings |= {"learning_rate": 1e-4, "save_final_checkpoint": False}
    log = ExperimentLog(run.experiment_log, experiment_name=run.name, args=settings)
    run.eval_results.mkdir(exist_ok=True)
    for place in range(args.evaluations):
        step = 42 * place
        epoch = N_EPOCHS * place / max(args.evaluations - 1, 1)
        name = f"e{int(epoch) + 1}_s{step}"
        name = {0: "start", args.evaluations - 1: "final"}.get(place, name)
        table = records_table(fixed, rng, args.candidates)
        means = means_of(table, args.sets)
        pq.write_table(table, run.records(name), compression="zstd")
        write_json(run.evaluation(name), Evaluation(name, step, epoch, 1.0, means).to_json())
        log.append({"step_num": step, "epoch_num": epoch, "train_loss": 1.0, "eval_results": means})
    log.update(status="completed")
    log.write()
    run.release()


def measure(folder: Path) -> dict[str, float]:
    """Collect and ask, in this process: seconds of each, and the most memory, in GiB."""
    from oocr_influence.results.collecting import collect

    started = time.perf_counter()
    with collect([folder]) as collected:
        spent = {"collect": time.perf_counter() - started}
        for name, query in (
            ("means, grouped", MEANS),
            ("questions, grouped, first", GROUPED),
            ("questions, grouped, again", GROUPED),
            ("questions, one run", ONE_RUN),
        ):
            started = time.perf_counter()
            n_rows = collected.sql(query).num_rows
            spent[name] = time.perf_counter() - started
            assert n_rows > 0
        spent["rows of questions"] = collected.sql("select count(*) from questions")[0][0].as_py()
    spent["GiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return spent


def main() -> None:
    """Make the files where they are not there, then measure three times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where the files are kept")
    for name, default in (("runs", 20), ("evaluations", 26), ("sets", 190), ("questions", 100)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--candidates", type=int, default=10, help="kept in each record")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.folder)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        if not folder.is_dir() or not any(folder.iterdir()):
            make_runs(folder, args)
        n_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"{n_bytes / 2**30:.2f} GiB of files")
        command = [sys.executable, __file__, "--measure", "--folder", str(folder)]
        rounds = []
        for _ in range(3):
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rounds.append(json.loads(done.stdout))
        for name in rounds[0]:
            print(f"{name:28}" + "".join(f"{one[name]:12.2f}" for one in rounds))


if __name__ == "__main__":
    main()
