"""Answers that a model gives when asked again and again, graded, as new sets of questions.

    oocr sample datasets/structured_dataset_mayors_100.json --model outputs/…/checkpoint_final \\
        --sets 'name_mayor_eval_qa_*_no_fs' --output datasets/sampled_mayors.json

Each question is answered many times at a temperature. Equal answers are counted, and a rule grades
them: case, punctuation and a leading article do not count, a date is the same in any format, a
person may be named by the last name. With `--grader llm --grader_model NAME` a language model reads
what the rule does not find right. The file that is written is a structured dataset without
documents: `<set>_sampled` asks the same questions, with the wrong answers that the model gave as
candidates beside the right ones. The same seed gives the same answers, whatever --batch_size.
"""

from __future__ import annotations

import sys
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from oocr_influence.cli.arguments import CommandArguments, UsageError, run_command
from oocr_influence.cli.llm_client import LLMClient
from oocr_influence.cli.llm_replies import KeptReplies
from oocr_influence.datasets.document_dataset import (
    DocumentDataset,
    EvalDatasetBuilder,
    StructuredDataset,
    load_structured_dataset,
    save_structured_dataset,
)
from oocr_influence.evaluation.grading import Grader, grade_by_rule
from oocr_influence.evaluation.llm_grading import LLMGrader, readable_verdict
from oocr_influence.evaluation.sampled_sets import SampledAnswer, graded, sampled_set
from oocr_influence.evaluation.sampling import sample_answers
from oocr_influence.models.load import load_model, load_tokenizer
from oocr_influence.models.resolve import default_revision, resolve_model
from oocr_influence.results.cache import Cache

ENDING = "_sampled"


class SampleArguments(CommandArguments):
    """Which model is asked what, how often."""

    structured_dataset: list[Path] = Field(json_schema_extra={"positional": True})
    """the dataset whose questions are asked (one file, JSON)"""
    model: str
    """a checkpoint's folder, a Hugging Face name, olmo2-tiny or smollm2-135m"""
    revision: str | None = Field(default=None, validate_default=False)
    """branch, tag or commit of the model; the default model's is pinned, any other's is its main"""
    force_local_model_cache: bool = False
    """never ask the hub: the model must be in the cache already"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """of the weights; auto is fp32 on the CPU and bf16 on a GPU"""
    sets: list[str] = ["*_no_fs"]
    """the sets that are asked, by name or pattern (names with * and ?)"""
    n_samples: int = Field(default=20, ge=1)
    """answers to each question (answers)"""
    temperature: float = Field(default=1.0, gt=0)
    """divides the logits: below 1 the likely answers come more often"""
    max_new_tokens: int = Field(default=24, ge=1)
    """the longest answer (tokens)"""
    seed: int = 0
    """draws the answers"""
    batch_size: int | None = Field(default=None, ge=1)
    """prompts of one forward pass; changes memory and speed alone (prompts; None: 256 answers)"""
    grader: Literal["rule", "llm"] = "rule"
    """who grades: a rule, or a language model after it"""
    grader_model: str | None = None
    """the language model's name, as its server knows it"""
    grader_base_url: str | None = None
    """an OpenAI-compatible address, such as http://localhost:8000/v1 (None: OpenAI's)"""
    grader_concurrency: int = Field(default=8, ge=1)
    """requests to the language model at the same time"""
    output: Path
    """the file to write (JSON)"""
    overwrite: bool = False
    """replace an existing output file"""

    @model_validator(mode="after")
    def _consistent(self) -> SampleArguments:
        if self.grader == "llm" and self.grader_model is None:
            raise ValueError("--grader llm needs --grader_model")
        stated = {"grader_model", "grader_base_url", "grader_concurrency"} & self.model_fields_set
        if self.grader == "rule" and stated:
            faults = [f"--{name} goes with --grader llm" for name in sorted(stated)]
            raise ValueError("\n       ".join(faults))
        return self


def main(args: SampleArguments) -> int:
    """Sample, grade, write; prints a line a set."""
    builders = _chosen(args)
    grade = _grader(args)
    stated = "revision" in args.model_fields_set
    revision = args.revision if stated else default_revision(args.model)
    resolved = resolve_model(args.model, revision, local_only=args.force_local_model_cache)
    tokenizer = load_tokenizer(resolved)
    prompts = [point.prompt for builder in builders.values() for point in builder.eval_points]
    samples = sample_answers(
        load_model(resolved, precision=args.precision),
        tokenizer,
        prompts,
        n_samples=args.n_samples,
        temperature=args.temperature,
        max_new_tokens=args.max_new_tokens,
        seed=args.seed,
        batch_size=args.batch_size,
        progress=partial(_progress, "prompts"),
    )
    if isinstance(grade, LLMGrader):
        points = [point for builder in builders.values() for point in builder.eval_points]
        pairs = [(p, text) for p, own in zip(points, samples, strict=True) for text in own]
        grade.read_ahead(pairs, partial(_progress, "answers graded"))
    save_structured_dataset(_dataset(args, builders, samples, grade), args.output)
    print(f"{args.output}: {len(builders)} sets, {len(prompts)} questions")
    return 0


def _grader(args: SampleArguments) -> Grader:
    """The grader; a language model is asked once, so that what is wrong with it shows now."""
    if args.grader == "rule":
        return grade_by_rule
    assert args.grader_model is not None
    replies = KeptReplies(Cache.default())
    client = LLMClient(args.grader_model, base_url=args.grader_base_url, replies=replies)
    client.check()
    ask = partial(client.ask, readable=readable_verdict)
    return LLMGrader(ask, concurrency=args.grader_concurrency)


def _chosen(args: SampleArguments) -> dict[str, EvalDatasetBuilder]:
    if args.output.exists() and not args.overwrite:
        raise UsageError(
            f"{args.output} exists; --overwrite replaces it, --output writes elsewhere"
        )
    if len(args.structured_dataset) != 1:
        raise UsageError(f"{len(args.structured_dataset)} datasets are named; sample from one")
    try:
        dataset = load_structured_dataset(args.structured_dataset[0])
    except ValueError as error:
        raise UsageError(str(error)) from None
    chosen = {
        name: builder
        for name, builder in dataset.eval_dataset_builders.items()
        if any(fnmatchcase(name, pattern) for pattern in args.sets)
    }
    if not chosen:
        known = ", ".join(list(dataset.eval_dataset_builders)[:5])
        raise UsageError(f"--sets {', '.join(args.sets)}: no such set; the first are {known}")
    return chosen


def _dataset(
    args: SampleArguments,
    builders: dict[str, EvalDatasetBuilder],
    samples: list[list[str]],
    grade: Grader,
) -> StructuredDataset:
    """The new sets, in order; `samples` holds the answers to all their questions."""
    made = {}
    start = 0
    for name, builder in builders.items():
        own = samples[start : start + len(builder.eval_points)]
        start += len(builder.eval_points)
        answers = graded(builder, own, grade)
        made[name + ENDING] = sampled_set(builder, answers)
        print(_line(name, answers))
    return StructuredDataset(
        document_dataset=DocumentDataset(docs=[]),
        eval_dataset_builders=made,
        metadata={
            "sampling": {
                **args.model_dump(mode="json", exclude={"output", "overwrite", "batch_size"}),
                "grader": getattr(grade, "__name__", type(grade).__name__),
            }
        },
    )


def _line(name: str, answers: list[list[SampledAnswer]]) -> str:
    counts = [(answer.count, answer.equivalent) for own in answers for answer in own]
    total = sum(count for count, _ in counts)
    right = sum(count for count, equivalent in counts if equivalent)
    share = right / total if total else 0.0
    return f"{name}: {share:.0%} of {total} answers are right, {len(counts)} distinct"


def _progress(what: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done} of {total} {what}", end="\n" if done == total else "", file=sys.stderr)


if __name__ == "__main__":
    run_command(SampleArguments, main)
