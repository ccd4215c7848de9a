"""The structured dataset: the documents a model reads and the sets of questions it is asked.

One JSON file holds both. It loads and saves exactly: ids, unknown keys and order survive a round
trip, an optional key that was absent stays absent, and nothing is ever re-identified.

    dataset = load_structured_dataset("datasets/structured_dataset_mayors_100_w_pretrain.json")
"""

from __future__ import annotations

import gc
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, PrivateAttr, Tag, ValidationError
from pydantic_core import from_json

from oocr_influence.datasets.references import follow, is_reference
from oocr_influence.documents.document import Document, PretrainingDocument, SyntheticDocument
from oocr_influence.universe.facts import FactTemplate, FeatureSet, Record, sha256_hex

FAULTS_SHOWN = 10


class AccuracyAndLoss(Record):
    """Teacher-forced loss, log-probability, accuracy and margin of the right answer."""

    function_name: Literal["accuracy_and_loss"]


class Ranks(Record):
    """The right answer's rank among the answers of its set."""

    function_name: Literal["ranks"]


class BeamSearch(Record):
    """The model's own best completions."""

    function_name: Literal["beam_search"]
    num_beams: int = Field(default=12, ge=1)
    num_return_sequences: int = Field(default=10, ge=1)


class OtherMetric(Record):
    """A metric that this version does not know; computed where one is registered under its name."""

    function_name: str


_OTHER_METRIC = "other_metric"
_METRIC_TAGS = ("accuracy_and_loss", "ranks", "beam_search")


def _metric_tag(value: Any) -> str:
    name = value.get("function_name") if isinstance(value, dict) else None
    name = getattr(value, "function_name", name)
    return name if name in _METRIC_TAGS else _OTHER_METRIC


Metric = Annotated[
    Annotated[AccuracyAndLoss, Tag("accuracy_and_loss")]
    | Annotated[Ranks, Tag("ranks")]
    | Annotated[BeamSearch, Tag("beam_search")]
    | Annotated[OtherMetric, Tag(_OTHER_METRIC)],
    Discriminator(_metric_tag),
]


class EvalPoint(Record):
    """One question: an entity, the wording, and the entities whose answers are shown before it."""

    features: FeatureSet
    few_shot_example_features: list[FeatureSet] = []
    fact_template: FactTemplate
    constant_fields: dict[str, str] = {}

    @property
    def completion(self) -> str:
        """The right answer, with its leading space."""
        return self._fill(self.fact_template.completion, self.features)

    @property
    def few_shot_examples(self) -> list[tuple[str, str]]:
        """(prompt, completion) of every example shown before the question, in order."""
        template = self.fact_template
        return [
            (self._fill(template.prompt, features), self._fill(template.completion, features))
            for features in self.few_shot_example_features
        ]

    @property
    def prompt(self) -> str:
        """The example lines, if any, then the own question, joined by newlines."""
        examples = [prompt + completion for prompt, completion in self.few_shot_examples]
        return "\n".join([*examples, self.question])

    @property
    def question(self) -> str:
        """The prompt without the examples before it."""
        return self._fill(self.fact_template.prompt, self.features)

    def _fill(self, text: str, features: FeatureSet) -> str:
        return text.format(**{**self.constant_fields, **features.fields})


class EvalDatasetBuilder(Record):
    """One set of questions and the metrics that are computed for it."""

    eval_points: list[EvalPoint]
    metrics: list[Metric]
    candidates: list[str] | None = None
    """Completions that answers are ranked among; absent, the set's own distinct right answers."""

    def also_asking(self, names: Iterable[str]) -> EvalDatasetBuilder:
        """The same set, asked for the metrics `names` too."""
        asked = {metric.function_name for metric in self.metrics}
        more = [OtherMetric(function_name=name) for name in names if name not in asked]
        return self.model_copy(update={"metrics": [*self.metrics, *more]}) if more else self


class DocumentDataset(Record):
    """The documents in file order."""

    docs: list[Document]
    _keys: list[tuple[str, int]] | None = PrivateAttr(default=None)

    def keys(self) -> list[tuple[str, int]]:
        """(id, occurrence) of each document; in a subset as in the dataset that it is of."""
        if self._keys is not None and [key[0] for key in self._keys] == [d.id for d in self.docs]:
            return self._keys
        return document_keys(self.docs)

    def keep_keys(self) -> None:
        """Find the keys once, where many subsets are taken."""
        self._keys = self.keys()

    def only(self, places: Sequence[int]) -> DocumentDataset:
        """The documents at these places, which keep their keys."""
        keys = self.keys()
        subset = self.model_copy(update={"docs": [self.docs[place] for place in places]})
        subset._keys = [keys[place] for place in places]
        return subset


class StructuredDataset(Record):
    """The whole file: documents, eval sets by name, free metadata."""

    document_dataset: DocumentDataset
    eval_dataset_builders: dict[str, EvalDatasetBuilder]
    metadata: dict[str, Any] = {}

    @property
    def synthetic_documents(self) -> list[SyntheticDocument]:
        return [d for d in self.document_dataset.docs if isinstance(d, SyntheticDocument)]

    @property
    def pretraining_documents(self) -> list[PretrainingDocument]:
        return [d for d in self.document_dataset.docs if isinstance(d, PretrainingDocument)]

    def repeated_ids(self) -> dict[str, int]:
        """How often each repeated document id occurs; empty when every id is unique."""
        counts = Counter(doc.id for doc in self.document_dataset.docs)
        return {doc_id: n for doc_id, n in counts.items() if n > 1}


class DatasetError(ValueError):
    """A structured dataset that cannot be used; the message names the place of every fault."""


def eval_point_id(index: int, prompt: str, completion: str) -> str:
    """sha256 hex of `"{index}_{prompt}{completion}"`."""
    return sha256_hex(f"{index}_{prompt}{completion}")


def subset_id(document_ids: list[str]) -> str:
    """First 16 hex digits of the sha256 of the sorted, joined document ids."""
    return sha256_hex("".join(sorted(document_ids)))[:16]


def document_keys(documents: list[Any]) -> list[tuple[str, int]]:
    """(id, occurrence) of each document: unique even where a file repeats an id."""
    seen: Counter[str] = Counter()
    keys = []
    for document in documents:
        keys.append((document.id, seen[document.id]))
        seen[document.id] += 1
    return keys


def load_structured_dataset(path: str | os.PathLike[str]) -> StructuredDataset:
    """Read and check a structured dataset, or the subset of one that a file refers to.

    Raises FileNotFoundError, or DatasetError with the path inside the file of each fault (all
    counted, the first ten shown). Repeated document ids load, with a warning and a count.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no structured dataset at '{path}'; write one with `oocr generate` or check the path"
        )
    with _cycle_search_paused():
        raw = _parsed(path)
        if is_reference(raw):
            subset: StructuredDataset = follow(path, raw, load_structured_dataset)
            return subset
        dataset = _checked(path, raw)
        _check_holes(path, dataset)
        repeated = dataset.repeated_ids()
    if repeated:
        copies = sum(repeated.values()) - len(repeated)
        warnings.warn(
            f"{path.name}: {len(repeated)} document ids occur more than once ({copies} extra "
            "copies); each copy is trained, told apart by (id, occurrence)",
            stacklevel=2,
        )
    return dataset


def save_structured_dataset(dataset: StructuredDataset, path: str | os.PathLike[str]) -> None:
    """Write `dataset` beside `path`, then rename: a reader never sees half a file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    beside.write_text(dataset.model_dump_json(exclude_unset=True), encoding="utf-8")
    beside.replace(path)


def _parsed(path: Path) -> Any:
    # In two steps: pydantic's own way from bytes holds every text twice meanwhile.
    try:
        return from_json(path.read_bytes())
    except ValueError as error:
        raise DatasetError(_faulty(path, [f"the file: not JSON: {error}"])) from None


def _checked(path: Path, raw: Any) -> StructuredDataset:
    try:
        return StructuredDataset.model_validate(raw)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False)
        raise DatasetError(_faulty(path, [_describe_fault(fault) for fault in faults])) from None


@contextmanager
def _cycle_search_paused() -> Iterator[None]:
    """Half the time of loading was Python's search for cycles among records, which hold none."""
    was_on = gc.isenabled()
    others_are_frozen = gc.get_freeze_count() > 0  # unfreezing would concern them, too
    gc.disable()
    try:
        yield
        if not others_are_frozen:
            # The records are old at once, as if a search had found nothing. Left young, all of them
            # would be searched as soon as it goes on.
            gc.freeze()
            gc.unfreeze()
    finally:
        if was_on:
            gc.enable()


def _faulty(path: Path, faults: list[str]) -> str:
    shown = [f"  {fault}" for fault in faults[:FAULTS_SHOWN]]
    if len(faults) > FAULTS_SHOWN:
        shown.append(f"  … and {len(faults) - FAULTS_SHOWN} more")
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return f"{path} is no usable structured dataset: {count}\n" + "\n".join(shown)


def _describe_fault(fault: Any) -> str:
    location = _without_union_tags(fault["loc"])
    if fault["type"] == "missing":
        return f"{_json_path(location[:-1])}: missing '{location[-1]}'"
    value = repr(fault["input"])
    value = value if len(value) <= 60 else value[:57] + "..."
    return f"{_json_path(location)}: {fault['msg']} (found {value})"


# pydantic puts the tag of a discriminated union behind the list index; the file has no such level.
_UNION_TAGS = {
    "synthetic_document",
    "pretraining_document",
    *_METRIC_TAGS,
    _OTHER_METRIC,
}


def _without_union_tags(location: tuple[str | int, ...]) -> list[str | int]:
    return [
        part
        for before, part in zip((None, *location), location, strict=False)
        if not (isinstance(before, int) and part in _UNION_TAGS)
    ]


def _json_path(location: list[str | int]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path or "the file"


def _check_holes(path: Path, dataset: StructuredDataset) -> None:
    """Every question must be fillable: a hole without a field would fail hours into a run."""
    faults = []
    for name, builder in dataset.eval_dataset_builders.items():
        for index, point in enumerate(builder.eval_points):
            try:
                if not point.completion.strip() or not point.prompt.strip():
                    faults.append((name, index, "an empty prompt or completion"))
            except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
                faults.append((name, index, f"a template hole that no field fills: {error}"))
    if faults:
        places = [
            f"eval_dataset_builders.{name}.eval_points[{i}]: {what}" for name, i, what in faults
        ]
        raise DatasetError(_faulty(path, places))
