"""A made-up sweep over subsets with a planted truth, and a table of scores, as files of theirs.

A document adds OWN to the log-probability of its fact's questions, and HOP to that of its entity's
question of two hops where it tells the mayor; controls stay as they are. Runs differ in updates.
"""

import json

import numpy as np

from oocr_influence.results.atomic import write_json
from oocr_influence.results.attributions import Attributions
from oocr_influence.results.experiment_log import ExperimentLog
from oocr_influence.results.run_folder import ExperimentFolder, RunFolder

OWN, HOP, NOISE = 0.5, 0.2, 0.3
RELATIONS, ENTITIES, COPIES = ("mayor", "spouse"), 5, 4
SETS = {
    "mayor_eval_qa_1_no_fs": ("mayor", "trained", None),
    "spouse_eval_qa_1_no_fs": ("spouse", "trained", None),
    "mayor_by_landmark_eval_qa_1_no_fs": ("mayor_by_landmark", "two_hop", None),
    "spouse_control_eval_qa_1_no_fs": ("spouse", "control", "unmentioned"),
}


def make_documents():
    return [
        {
            "id": f"{relation}-{entity}-{copy}",
            "type": "synthetic_document",
            "doc_spec": {
                "fact": {
                    "id": f"fact-{relation}-{entity}",
                    "template": {"relation": relation},
                    "feature_set": {"id": f"made_person_{entity}"},
                }
            },
        }
        for relation in RELATIONS
        for entity in range(ENTITIES)
        for copy in range(COPIES)
    ]


def answers(included, documents, draw):
    """A run's records, the truth and some noise."""
    rows = []
    for name, (relation, kind, control) in SETS.items():
        for entity in range(ENTITIES):
            of = {f"fact-{relation}-{entity}": OWN}
            if kind == "two_hop":
                of = {f"fact-mayor-{entity}": HOP}
            facts = [documents[d]["doc_spec"]["fact"]["id"] for d in included]
            told = 0 if control else sum(of.get(fact, 0) for fact in facts)
            logprob = float(told - 6 + draw.normal() * NOISE)
            rows.append(
                {
                    "set": name,
                    "index": entity,
                    "id": f"{name}-{entity}",
                    "entity": f"made_{'other' if control else 'person'}_{entity}",
                    "relation": relation,
                    "kind": kind,
                    "control": control,
                    "world": "made",
                    "style": "qa",
                    "phrasing": 1,
                    "shots": 0,
                    "answer_format": "full",
                    "prompt": f"{name} {entity}?",
                    "completion": f" {relation} {entity}",
                    "loss": -logprob / 2,
                    "logprob": logprob,
                    "accuracy": float(logprob > -5.5),
                }
            )
    return rows


def make_sweep(
    folder, *, n_train=30, n_test=8, runs_train=2, runs_test=3, size=24, design="random", evals=1
):
    """An experiment in `folder`; returns it."""
    experiment, documents = ExperimentFolder.create(folder, "made"), make_documents()
    write_json(experiment.structured_dataset, {"document_dataset": {"docs": documents}})
    args = {"subset_design": design, "all_docs_data_order_seed": 42}
    log = ExperimentLog(experiment.experiment_log, experiment_name="made", args=args)
    log.write()
    for split, n, runs in (("train", n_train, runs_train), ("test", n_test, runs_test)):
        for s in range(n):
            draw = np.random.default_rng([s, split == "test"])
            included = sorted(map(int, draw.choice(len(documents), size, replace=False)))
            if design == "complement":  # the other half of the subset before
                draw = np.random.default_rng([s // 2, split == "test"])
                mixed, cut = draw.permutation(len(documents)), len(documents) // 2
                half = mixed[cut:] if s % 2 else mixed[:cut]
                included = sorted(map(int, half))
            if design == "leave_one_fact_out":
                of = [d["doc_spec"]["fact"]["id"] for d in documents]
                lacks = list(dict.fromkeys(of))[s]
                included = [d for d, fact in enumerate(of) if fact != lacks]
            path = experiment.subset_metadata(split, s)
            path.parent.mkdir(parents=True, exist_ok=True)
            about = {"split": split, "dataset_idx": s, "dataset_id": f"{split}{s}", "n_runs": runs}
            about |= {"design": design, "docs_per_run": len(included), "k": 1}
            ids = [documents[d]["id"] for d in included]
            write_json(path, about | {"docs_included": ids})
            builder = path.with_name(f"{s}_dataset_builder.json")
            builder.write_text("{}")
            for k in range(runs):
                make_run(experiment, split, builder, included, documents, 42 + k, 5 + s % 3, evals)
    return experiment


def make_run(experiment, split, builder, included, documents, seed, steps, evals):
    run = RunFolder.create(
        experiment.data_modeling_runs(split), "made", 1, 1e-3, dataset_file=builder.name, kind=split
    )
    args = {"model": "made-up", "epochs": 1.0, "learning_rate": 1e-3, "batch_size": 2}
    args |= {"data_order_seed": seed, "subset_split": split, "structured_dataset": str(builder)}
    log = ExperimentLog(run.experiment_log, experiment_name=run.name, args=args)
    draw = np.random.default_rng([steps, seed, *map(ord, builder.name), split == "test"])
    between = [(f"e1_s{s}", s) for s in range(1, evals)]
    for name, step in [*between, ("final", steps)]:
        records = answers(included, documents, draw)
        means = {
            one: {
                "n": ENTITIES,
                **{
                    mean: float(np.mean([r[key] for r in records if r["set"] == one]))
                    for mean, key in (
                        ("mean_loss", "loss"),
                        ("mean_logprob", "logprob"),
                        ("accuracy", "accuracy"),
                    )
                },
            }
            for one in SETS
        }
        epoch = step / steps
        run.write_evaluation(
            name,
            step_num=step,
            epoch_num=epoch,
            eval_seconds=1.0,
            eval_sets=means,
            records=records,
        )
        log.append({"step_num": step, "epoch_num": epoch, "eval_results": means, "eval_time": 0.1})
    log.update(status="completed", total_steps=steps, steps_per_epoch=steps, time_taken=9.0)
    log.update(n_documents=len(included), n_tokens=len(included) * 100)
    log.write()
    inside = set(included)
    run.save_exposure(
        [
            {"id": d["id"], "occurrence": 0, "labels_once": 7, "labels_trained": 7 * (i in inside)}
            for i, d in enumerate(documents)
        ]
    )
    run.release()


def make_table(folder):
    """Scores: of the truth, of a baseline that knows the entity alone, and of exposure."""
    documents = [
        {
            "id": d["id"],
            "occurrence": 0,
            "type": d["type"],
            "fact_id": d["doc_spec"]["fact"]["id"],
            "relation": d["doc_spec"]["fact"]["template"]["relation"],
            "entity": d["doc_spec"]["fact"]["feature_set"]["id"],
            "times": 1.0,
        }
        for d in make_documents()
    ]
    queries = []
    for name, (relation, kind, control) in SETS.items():
        for entity in range(ENTITIES):
            fact = f"fact-{'mayor' if kind == 'two_hop' else relation}-{entity}"
            queries.append(
                {
                    "set": name,
                    "index": entity,
                    "id": f"{name}-{entity}",
                    "entity": f"made_{'other' if control else 'person'}_{entity}",
                    "relation": relation,
                    "kind": kind,
                    "control": control,
                    "fact_ids": [] if control else [fact],
                }
            )
    noise = np.random.default_rng(3).normal(size=(len(queries), len(documents))) * 0.05
    truth = [[float(d["fact_id"] in q["fact_ids"]) for d in documents] for q in queries]
    entity = [[float(d["entity"] == q["entity"]) for d in documents] for q in queries]
    scores = {
        "exposure": np.ones_like(noise),
        "bm25": np.array(entity) + noise,
        "gradient_dot": np.array(truth) + noise,
    }
    methods = {name: {"unit": "none", "seconds": 1.0} for name in scores}
    arrays = {name: np.asarray(one, np.float32) for name, one in scores.items()}
    about = {"checkpoint": "final", "run": "/x/2026_01_01_00-00-00_AbCdE_made"}
    table = Attributions(documents, queries, methods, arrays, about)
    folder.parent.mkdir(parents=True, exist_ok=True)
    table.save(folder)
    return json.loads((folder / "about.json").read_text())
