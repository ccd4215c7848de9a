"""The untouched model is asked once: what it answers is the same for every run of it.

    untouched = UntouchedModel(cache, model, weights=weights_digest(model), suite=suite)
    with untouched.alone(beam_search=True):
        kept = untouched.find(beam_search=True)
        ...                                      # adopt its files, or measure and `keep`

An entry's key is all that its numbers follow from: weights, configuration, suite, precision, kind
of device, versions and sources. Files are verified by digest and then linked into a run, so that
all runs of a model share the bytes of their `eval_results_start.json`.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers

from oocr_influence.evaluation.beam_search import eos_tokens
from oocr_influence.evaluation.plan_cache import sources_digest
from oocr_influence.evaluation.scores import Scores, asking_attention
from oocr_influence.results import evaluation_files
from oocr_influence.results.atomic import link_file
from oocr_influence.results.cache import Cache, Entry
from oocr_influence.results.digests import json_digest
from oocr_influence.results.run_folder import RunFolder

SCORES, EVALUATIONS = "scores", "evaluations"
_SCORES, _MEANS, _RECORDS = "scores.npz", "means.json", "records.parquet"
# Where a configuration was read from and what its weights were saved as: no part of what it is.
_NOT_OF_THE_MODEL = ("_name_or_path", "transformers_version", "architectures", "dtype")


@dataclass(frozen=True)
class Measured:
    """What a model was found to know at one moment; `seconds` are those of the measurement."""

    eval_sets: dict[str, dict[str, Any]]
    records: list[dict[str, Any]]
    scores: Scores
    seconds: float
    document_losses: dict[str, dict[str, Any]] | None = None


@dataclass(frozen=True)
class Kept:
    """An evaluation out of the cache."""

    measured: Measured
    entry: Entry

    def give_to(self, folder: RunFolder, name: str) -> None:
        """Make its files those of the run's evaluation `name`; OSError where they cannot be had."""
        folder.adopt_evaluation(name, self.entry.file(_MEANS), self.entry.file(_RECORDS))


class UntouchedModel:
    """One model and suite in the cache.

    `documents` is the digest of the documents whose losses are measured beside the questions.
    """

    def __init__(
        self, cache: Cache, model: Any, *, weights: str, suite: str, documents: str | None = None
    ) -> None:
        self._cache = cache
        self._documents = documents
        self._key = {
            "weights": weights,
            "config": json_digest(_config_of(model)),
            "suite": suite,
            "dtype": str(model.dtype),
            "device": _kind_of_device(model.device),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "sources": sources_digest(),
        }
        if torch.are_deterministic_algorithms_enabled():
            self._key["deterministic"] = "yes"

    def alone(
        self, *, beam_search: bool, waiting: Callable[[], None] = lambda: None
    ) -> AbstractContextManager[None]:
        """Other processes with the same question wait while the body runs (see `Cache.alone`)."""
        return self._cache.alone(EVALUATIONS, self._evaluation_key(beam_search), waiting)

    def find(self, *, beam_search: bool) -> Kept | None:
        """The whole evaluation, with or without the model's own completions."""
        scores = self.scores()
        entry = self._cache.find(EVALUATIONS, self._evaluation_key(beam_search))
        if scores is None or entry is None:
            return None
        evaluation = evaluation_files.read_evaluation(entry.file(_MEANS))
        table = evaluation_files.read_records(entry.file(_RECORDS))
        measured = Measured(
            evaluation.eval_sets,
            _rows(table),
            scores,
            evaluation.eval_seconds,
            evaluation.document_losses,
        )
        return Kept(measured, entry)

    def keep(self, folder: RunFolder, name: str, scores: Scores, *, beam_search: bool) -> None:
        """Keep the run's evaluation `name` and its scores for other runs."""

        def link(entry: Path) -> None:
            link_file(folder.evaluation(name), entry / _MEANS)
            link_file(folder.records(name), entry / _RECORDS)

        about = self._about() | {"run": str(folder.path), "beam_search": beam_search}
        self.keep_scores(scores)
        self._cache.store(EVALUATIONS, self._evaluation_key(beam_search), link, about)

    def scores(self) -> Scores | None:
        """The token scores, which later evaluations take as their baseline."""
        entry = self._cache.find(SCORES, json_digest(self._key))
        return None if entry is None else Scores.load(entry.file(_SCORES))

    def keep_scores(self, scores: Scores) -> None:
        """Keep the token scores alone."""
        key = json_digest(self._key)
        self._cache.store(SCORES, key, lambda to: scores.save(to / _SCORES), self._about())

    def _evaluation_key(self, beam_search: bool) -> str:
        asked = {"beam_search": beam_search, "documents": self._documents}
        return json_digest({**self._key, **asked})

    def _about(self) -> dict[str, Any]:
        return {
            "made_from": self._key,
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "host": socket.gethostname(),
            "process": os.getpid(),
        }


def _config_of(model: Any) -> Any:
    """The configuration as JSON, with what else decides a model's answers."""
    config = model.config.to_dict()
    config = {name: value for name, value in config.items() if name not in _NOT_OF_THE_MODEL}
    asked = [config, asking_attention(model), eos_tokens(model)]
    return json.loads(json.dumps(asked, default=str))


def _kind_of_device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _rows(table: Any) -> list[dict[str, Any]]:
    """The records as they were before they were columns of numbers."""
    rows: list[Mapping[str, Any]] = table.to_pylist()
    return [
        {
            name: bool(value) if name == "accuracy" and value is not None else value
            for name, value in row.items()
        }
        for row in rows
    ]
