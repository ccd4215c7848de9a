"""Plans that are made once: kept by what they were made from, and read back as they were.

    suite = suite_digest(builders, tokenizer)
    plan = cached_plan(builders, tokenizer, suite, Cache.default())

An entry's key is the digest of the sets as text, the tokenizer and the sources of this package, so
that an entry can be of another suite or another version only by having another name. Numbers lie in
one .npz without pickles, texts in JSON; questions themselves come from the dataset at hand.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

import oocr_influence
from oocr_influence.datasets.document_dataset import BeamSearch, EvalDatasetBuilder
from oocr_influence.evaluation.plan import PLAN_VERSION, EvalPlan, Ints, PlannedSet, build_plan
from oocr_influence.evaluation.tokens import Tokens
from oocr_influence.results.cache import Cache
from oocr_influence.results.digests import json_digest

logger = logging.getLogger(__name__)

KIND = "plans"
_NUMBERS, _TEXTS = "plan.npz", "plan.json"
_SOURCES = ("universe", "documents", "datasets", "models", "evaluation", "results")
_OF_DATASET = {"points", "beam_search"}  # fields of a set that are not kept


def cached_plan(
    builders: Mapping[str, EvalDatasetBuilder],
    tokenizer: Any,
    suite: str,
    kept: Cache | None,
    waiting: Callable[[], None] = lambda: None,
) -> EvalPlan:
    """`build_plan(builders, tokenizer)`, or the same read from the cache.

    `suite` is their `suite_digest`. Of several processes that ask at once, one plans and the others
    wait (see `Cache.alone`). Without a cache, and for tokenizers written in Python, whose rules
    cannot be read, it plans anew. Raises ValueError as `build_plan` does.
    """
    if kept is None or getattr(tokenizer, "backend_tokenizer", None) is None:
        return build_plan(builders, tokenizer)
    key = json_digest([suite, sources_digest()])
    with kept.alone(KIND, key, waiting):
        entry = kept.find(KIND, key)
        if entry is not None:
            return read_plan(entry.folder, builders, tokenizer)
        started = time.perf_counter()
        plan = build_plan(builders, tokenizer)
        seconds = time.perf_counter() - started
        about = {"plan_digest": plan.digest, "n_sets": len(plan.sets), "seconds": seconds}
        kept.store(KIND, key, lambda folder: write_plan(folder, plan), about)
    logger.info("planned %d sets in %.1f s", len(plan.sets), seconds)
    return plan


def suite_digest(builders: Mapping[str, EvalDatasetBuilder], tokenizer: Any) -> str:
    """sha256 hex of all sets as text, in order, and of the tokenizer: the name of a suite."""
    texts = [[name, builder.model_dump_json()] for name, builder in builders.items()]
    return json_digest([PLAN_VERSION, tokenizer_digest(tokenizer), texts])


def tokenizer_digest(tokenizer: Any) -> str:
    """sha256 hex of all that decides a text's tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        described = json.dumps([type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())])
    else:
        # Behind version, truncation and padding; the latter two are set anew by each call.
        _, found, described = backend.to_str().partition('"added_tokens":')
        assert found, "the tokenizers library writes its files otherwise by now"
    split = getattr(tokenizer, "split_special_tokens", False)
    return json_digest([tokenizers.__version__, tokenizer.bos_token_id, split, described])


@cache
def sources_digest() -> str:
    """sha256 hex of this package's sources below the commands: with other code, other results."""
    package = Path(oocr_influence.__file__).parent
    digest = hashlib.sha256()
    for room in _SOURCES:
        for path in sorted((package / room).rglob("*.py")):
            digest.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def write_plan(folder: Path, plan: EvalPlan) -> None:
    """Write all of `plan` but its questions and its tokenizer."""
    sets = list(plan.sets.values())
    numbers = {
        "first_path_G": plan.first_path_G,
        "first_token_P": plan.first_token_P,
        "token_E": plan.token_E,
        "right_E": plan.right_E,
        **_flat_rows("prefixes", plan.prefixes),
        **_flat_rows("prompt_tokens", [row for one in sets for row in one.prompt_tokens]),
    }
    for name in _array_fields(sets):
        arrays = [getattr(planned, name) for planned in sets]
        numbers[f"sets.{name}"] = np.concatenate([array.reshape(-1) for array in arrays])
    small: dict[str, Any] = {
        name: array.astype(np.int32) if array.dtype == np.int64 else array
        for name, array in numbers.items()
    }
    with (folder / _NUMBERS).open("wb") as file:
        np.savez_compressed(file, **small)
    texts = {"digest": plan.digest, "sets": [_texts(planned) for planned in sets]}
    (folder / _TEXTS).write_text(json.dumps(texts), encoding="utf-8")


def read_plan(folder: Path, builders: Mapping[str, EvalDatasetBuilder], tokenizer: Any) -> EvalPlan:
    """What `write_plan` wrote, with the questions of `builders`, of which it was made."""
    texts = json.loads((folder / _TEXTS).read_text(encoding="utf-8"))
    with np.load(folder / _NUMBERS, allow_pickle=False) as stored:
        numbers = {
            name: stored[name].astype(np.int64) if stored[name].dtype == np.int32 else stored[name]
            for name in stored.files
        }
    prompts = iter(_rows(numbers, "prompt_tokens"))
    places = dict.fromkeys((name for name in numbers if name.startswith("sets.")), 0)
    sets = {}
    for kept in texts["sets"]:
        builder = builders[kept["values"]["name"]]
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in kept["values"].items()
        }
        for name, shape in kept["shapes"].items():
            start = places[f"sets.{name}"]
            end = places[f"sets.{name}"] = start + int(np.prod(shape))
            fields[name] = numbers[f"sets.{name}"][start:end].reshape(shape)
        beams = [metric for metric in builder.metrics if isinstance(metric, BeamSearch)]
        sets[fields["name"]] = PlannedSet(
            points=tuple(builder.eval_points),
            prompt_tokens=tuple(next(prompts) for _ in builder.eval_points),
            beam_search=beams[0] if beams else None,
            **fields,
        )
    return EvalPlan(
        sets=sets,
        prefixes=tuple(_rows(numbers, "prefixes")),
        first_path_G=numbers["first_path_G"],
        first_token_P=numbers["first_token_P"],
        token_E=numbers["token_E"],
        right_E=numbers["right_E"],
        tokenizer=tokenizer,
        digest=texts["digest"],
    )


def _texts(planned: PlannedSet) -> dict[str, Any]:
    """The set's texts and switches, and the shapes of its arrays."""
    values, shapes = {}, {}
    for field in dataclasses.fields(planned):
        value = getattr(planned, field.name)
        if isinstance(value, np.ndarray):
            shapes[field.name] = value.shape
        elif field.name not in {*_OF_DATASET, "prompt_tokens"}:
            values[field.name] = value
    return {"values": values, "shapes": shapes}


def _array_fields(sets: Sequence[PlannedSet]) -> list[str]:
    if not sets:
        return []
    fields = dataclasses.fields(sets[0])
    return [field.name for field in fields if isinstance(getattr(sets[0], field.name), np.ndarray)]


def _flat_rows(name: str, rows: Sequence[Tokens]) -> dict[str, Ints]:
    flat = np.fromiter((token for row in rows for token in row), np.int64)
    return {name: flat, f"{name}.lengths": np.array([len(row) for row in rows], np.int64)}


def _rows(numbers: Mapping[str, Ints], name: str) -> list[Tokens]:
    flat = numbers[name].tolist()
    ends = np.cumsum(numbers[f"{name}.lengths"]).tolist()
    return [tuple(flat[start:end]) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
