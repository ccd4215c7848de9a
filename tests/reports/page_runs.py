"""Small experiments of random answers, for pages: what their records say is computed naively."""

import hashlib

import numpy as np
import pyarrow.parquet as pq

from oocr_influence.results.experiment_log import ExperimentLog
from oocr_influence.results.run_folder import ExperimentFolder, RunFolder
from oocr_influence.results.step_log import StepLog, StepRow

ENTITIES = 6
EVALUATIONS = (("start", 0, 0.0), ("e1_s4", 4, 0.5), ("final", 8, 1.0))
BREAKOUT = "</script><!-- <script> &lt; {{head}} \u2028 Q: Who?"
# Name, relation, kind, control, style, form of the answer, examples shown.
SETS = (
    ("mayor_eval_gen_1_no_fs", "mayor", "trained", None, "gen", "default", 0),
    ("mayor_eval_first_name_qa_1_with_fs", "mayor", "trained", None, "qa", "first_name", 3),
    ("mayor_eval_reversed_1_no_fs", "mayor", "reversed", None, "reversed", "default", 0),
    ("spouse_eval_qa_1_no_fs", "spouse", "trained", None, "qa", "default", 0),
    ("country_two_hop_eval_qa_1_no_fs", "country", "two_hop", None, "qa", "default", 0),
    ("mayor_control_eval_gen_1_no_fs", "mayor", "control", "unmentioned", "gen", "default", 0),
)
N_SETS = len(SETS)
_COLUMNS = ("set", "relation", "kind", "control", "style", "answer_format", "shots")


def make_outputs(folder):
    """`one`: three runs of three evaluations; `two`: one run that failed after two of them."""
    one = ExperimentFolder.create(folder, "one")
    for seed in (42, 43, 44):
        make_run(one, seed, learning_rate=1e-4)
    two = ExperimentFolder.create(folder, "two")
    run = make_run(two, 42, learning_rate=3e-4, n_evaluations=2, status="failed", n_sets=4)
    run.text_log.write_text("all is well\nRuntimeError: the disk said </script>\n")
    return folder


def make_run(
    experiment, seed, *, learning_rate, n_evaluations=3, status="completed", n_sets=N_SETS
):
    run = RunFolder.create(experiment.all_docs_runs, "page", 1, learning_rate)
    args = {"model": "made-up", "epochs": 1.0, "learning_rate": learning_rate, "batch_size": 2}
    args |= {"data_order_seed": seed, "structured_dataset": str(experiment.structured_dataset)}
    log = ExperimentLog(run.experiment_log, experiment_name=run.name, args=args)
    draw = np.random.default_rng([seed, int(learning_rate * 1e6)])
    for name, step, epoch in EVALUATIONS[:n_evaluations]:
        records = [r for place in range(n_sets) for r in questions(place, step, draw)]
        means = {SETS[place][0]: means_of(records, SETS[place][0]) for place in range(n_sets)}
        run.write_evaluation(
            name,
            step_num=step,
            epoch_num=epoch,
            eval_seconds=1.5,
            eval_sets=means,
            records=records,
        )
        losses = {"trained": {"n": 2, "tokens": 9, "mean_loss": 2.0 - step / 8 + seed / 1000}}
        entry = {"step_num": step, "epoch_num": epoch, "train_loss": 1.0, "eval_time": 0.025}
        log.append({**entry, "eval_results": means, "document_losses": losses})
    phase = {"start": "2026-01-01T00:00:00+00:00", "end": None, "count": 1}
    log.update(
        status=status,
        n_documents=12,
        n_tokens=3456,
        total_steps=8,
        steps_per_epoch=8,
        time_taken=60.0 + seed,
        phases={"train": {**phase, "seconds": float(seed), "peak_rss_bytes": seed * 2**20}},
        provenance={"git": {"commit": "c" * 40, "dirty": False}, "command": ["x/cli/main.py", "a"]},
    )
    log.write()
    with StepLog(run.steps) as steps:
        for step in range(1, 9):
            row = {"step": step, "epoch": 1, "learning_rate": learning_rate, "clip_factor": 1.0}
            row |= {"loss": 2.0 / step + seed / 100, "grad_norm": 1.0, "labelled_tokens": 8}
            steps.append(StepRow(**row, window_ids=["w"], seconds=0.1))
    run.release()
    return run


def questions(place, step, draw):
    """Random scores; trained questions are right after step 0 with some luck. Ties happen."""
    told = dict(zip(_COLUMNS, SETS[place], strict=True))
    candidates = [f" {told['relation']} {told['answer_format']} {i}" for i in range(ENTITIES)]
    records = []
    for index in range(ENTITIES):
        logprobs = -draw.integers(4, 9, ENTITIES).astype(float)
        n_tokens = draw.integers(1, 4, ENTITIES)
        if told["kind"] == "trained" and step and draw.random() < 0.8:
            logprobs[index], n_tokens[index] = -1.0, 2
        losses = -logprobs / n_tokens
        lower = int((losses < losses[index]).sum())
        tied = int((losses == losses[index]).sum()) - 1
        prompt = f"{BREAKOUT} {told['set']} {index}"
        records.append(
            {
                **told,
                "world": "made",
                "phrasing": 1,
                "index": index,
                "entity": f"made_person_{index}",
                "id": hashlib.sha256(prompt.encode()).hexdigest(),
                "prompt": f"an example\n{prompt}" if told["shots"] else prompt,
                "completion": candidates[index],
                "loss": float(losses[index]),
                "logprob": float(logprobs[index]),
                "prob": float(np.exp(logprobs[index])),
                "accuracy": float(lower == 0),
                "rank": 1 + lower,
                "rank_tie_averaged": 1 + lower + tied / 2,
                "rank_swapped": float(draw.integers(1, ENTITIES + 1)),
                "n_candidates": ENTITIES,
                "candidate_texts": candidates,
                "candidate_logprobs": list(map(float, logprobs)),
                "candidate_n_tokens": list(map(int, n_tokens)),
            }
        )
    return records


def means_of(records, name):
    own = [record for record in records if record["set"] == name]
    metrics = ("loss", "logprob", "prob", "rank", "rank_tie_averaged", "rank_swapped")
    means = {f"mean_{m}": float(np.mean([r[m] for r in own])) for m in metrics}
    accuracy = float(np.mean([record["accuracy"] for record in own]))
    return {"n": len(own), "accuracy": accuracy, "n_candidates": ENTITIES, **means}


NAMES = {
    "mayor_eval_first_name_qa_1_with_fs": "trained: first names",
    "mayor_control_eval_gen_1_no_fs": "control: unmentioned",
}


def records_of(folder):
    """Every answer of every run, with its experiment, run and step, read file by file."""
    rows = []
    for path in sorted(folder.glob("*/all_docs_runs/*")):
        run = RunFolder(path)
        for name, step, _ in EVALUATIONS:
            if run.records(name).is_file():
                told = {"experiment": run.experiment.name, "run": run.name, "step": step}
                rows += [row | told for row in pq.read_table(run.records(name)).to_pylist()]
    return [row | {"asked": NAMES.get(row["set"], row["kind"])} for row in rows]
