"""What a page tells of scores of documents: what they find and predict, and where they agree.

    tables_in([Path("outputs")])                # folders that `oocr attribute` wrote
    attribution_of(folder, {"…": splits})       # plain data

The lexical baselines are in every table, so that they stand beside every method.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from oocr_influence.attribution.agreement import agreement, top_share
from oocr_influence.attribution.own_facts import kinds
from oocr_influence.attribution.scoring import ALL as EVERY
from oocr_influence.attribution.scoring import (
    CHANCE,
    is_same_question,
    lds_of_methods,
    relevant_documents,
    retrieval_groups,
)
from oocr_influence.cli.datamodel_figures import (
    ALL,
    LDS_RESAMPLES,
    Splits,
    lds_of_datamodels,
    lds_row,
)
from oocr_influence.reports.page.numbers import short, shorts
from oocr_influence.results.attributions import ABOUT, SCORES, Attributions
from oocr_influence.results.intervals import Interval
from oocr_influence.results.run_folder import CHECKPOINT, RUNS_FOLDERS

AT = 10
"""Documents on top that are looked at."""
# They read no model: what does must beat them before it says anything about the model.
BASELINES = ("exposure", "tfidf", "bm25")
_ABOUT = ("run", "checkpoint", "model", "revision", "step", "dataset_digest", "weights_digest")
_PRETRAINING = "pretraining text"
# Folders of many files in which nobody puts a table.
_PASSED = {"jobs", "outcomes", "eval_results", "eval_datasets", "train_set", "saved_objects"}


def tables_in(paths: Iterable[Path]) -> list[Path]:
    """The tables of scores at or below some paths, in order; runs on subsets are not searched."""
    found = set()
    for path in paths:
        for folder, names, files in os.walk(path):
            if {ABOUT, SCORES} <= set(files):
                found.add(Path(folder).resolve())
            names[:] = [name for name in names if not _passed(name)]
    return sorted(found)


def _passed(name: str) -> bool:
    on_subsets = name in RUNS_FOLDERS and name.startswith("data_modeling")
    return name in _PASSED or on_subsets or name.startswith((CHECKPOINT, "subsampled_datasets"))


def attribution_of(folder: Path, sweeps: Mapping[str, Splits]) -> dict[str, Any]:
    """Retrieval, agreement, what is on top, and the LDS against every sweep that fits.

    Each part that cannot be computed says why in `unavailable`.
    """
    told: dict[str, Any] = {"name": folder.name, "folder": str(folder), "unavailable": None}
    try:
        table = Attributions.load(folder)
    except (OSError, ValueError, KeyError) as error:
        return told | {"unavailable": str(error)}
    told |= {
        "about": {key: table.about.get(key) for key in _ABOUT},
        "n_documents": len(table.documents),
        "n_queries": len(table.queries),
        "at": AT,
        "methods": [
            {
                "name": name,
                "unit": row.get("unit"),
                "seconds": short(row.get("seconds")),
                "baseline": name in BASELINES,
            }
            for name, row in table.methods.items()
        ],
    }
    for part, make in (
        ("retrieval", lambda: {"groups": _retrieval(table)}),
        ("agreement", lambda: _agreement(table)),
        ("tops", lambda: _tops(table)),
    ):
        try:
            told[part] = {"unavailable": None, **make()}
        except (ImportError, ValueError) as error:
            told[part] = {"unavailable": str(error)}
    told["lds"] = [_lds(table, name, splits) for name, splits in sweeps.items()]
    return told


def _retrieval(table: Attributions) -> list[dict[str, Any]]:
    return [
        {
            "method": group.method,
            "is_chance": group.method == CHANCE,
            "relation": group.relation,
            "kind": group.kind,
            "n_questions": group.mrr.n_questions,
            "n_entities": group.mrr.n_entities,
            "relevant": short(group.mean_relevant),
            "mrr": _ends(group.mrr),
            "recall": _ends(group.recall[AT]),
        }
        for group in retrieval_groups(table, at=(AT,))
    ]


def _ends(interval: Interval) -> list[Any]:
    return shorts([interval.mean, interval.low, interval.high])


def _agreement(table: Attributions) -> dict[str, Any]:
    names = list(table.scores)
    return {"methods": names, "rows": [shorts(row, 3) for row in agreement(table.scores).tolist()]}


def _tops(table: Attributions) -> dict[str, Any]:
    """Of each kind and relation of question, the relations that its first documents tell of."""
    groups = [str(row.get("relation") or _PRETRAINING) for row in table.documents]
    places: dict[tuple[str, str], list[int]] = defaultdict(list)
    for q, (kind, row) in enumerate(zip(kinds(table.queries), table.queries, strict=True)):
        places[kind, str(row.get("relation"))].append(q)
    rows: list[dict[str, Any]] = []
    names: list[Any] = []
    for method, scores_QD in table.scores.items():
        names, share_QG = top_share(scores_QD, groups, AT)
        rows += [
            {
                "method": method,
                "kind": kind,
                "relation": relation,
                "n_questions": len(own),
                "shares": shorts(share_QG[own].mean(axis=0).tolist(), 4),
            }
            for (kind, relation), own in places.items()
        ]
    among = [groups.count(str(name)) / len(groups) for name in names]
    relevant_Q = relevant_documents(table).any(axis=1)
    return {
        "relations": [str(name) for name in names],
        "among_all": shorts(among, 4),
        "rows": rows,
        "n_with_fact": int(relevant_Q.sum()),
    }


def _lds(table: Attributions, sweep: str, splits: Splits) -> dict[str, Any]:
    """Methods and datamodels on the same questions of a sweep's test split."""
    told: dict[str, Any] = {"sweep": sweep, "metric": splits.metric, "unavailable": None}
    test = splits.test.outcomes
    try:
        if len(test.subsets) < 3:
            raise ValueError(f"{len(test.subsets)} held-out subsets: at least 3 are needed")
        found = lds_of_methods(table, test, splits.metric, n_resamples=LDS_RESAMPLES)
        rows = [
            lds_row(one.method, ALL if one.kind == EVERY else one.kind, one.score) for one in found
        ]
        rows += _datamodels_of_same(table, splits)
    except (ImportError, ValueError) as error:
        return told | {"unavailable": str(error)}
    return told | {"n_subsets": len(test.subsets), "scores": rows}


def _datamodels_of_same(table: Attributions, splits: Splits) -> list[dict[str, Any]]:
    if len(splits.train.outcomes.subsets) < 2:
        return []
    rows = {(row["set"], row["index"]): row for row in table.queries}
    kinds_Q: list[str | None] = []
    for question in splits.test.outcomes.questions:
        row = rows.get((question["set"], question["index"]))
        same = row is not None and is_same_question(row, question)
        kinds_Q.append(str(row["kind"]) if row is not None and same else None)
    return lds_of_datamodels(splits, kinds_Q)


__all__ = ["AT", "attribution_of", "tables_in"]
