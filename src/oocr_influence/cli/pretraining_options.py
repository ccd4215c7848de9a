"""Flags of `oocr generate` for the text that facts are mixed into, and the text itself."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from oocr_influence.cli.arguments import CommandArguments, UsageError
from oocr_influence.documents.choice import Amount
from oocr_influence.documents.pretraining import (
    AT_HAND,
    MAX_CHARS,
    MIN_CHARS,
    PretrainingText,
    read_pretraining,
)
from oocr_influence.documents.screening import entity_names
from oocr_influence.models.load import load_tokenizer
from oocr_influence.models.resolve import resolve_model
from oocr_influence.models.smollm2 import NAME as SMOLLM2
from oocr_influence.models.tiny import NAME as TINY
from oocr_influence.universe.world import World

_SUFFIXES = {"k": 10**3, "m": 10**6, "b": 10**9}


def _whole_number(value: Any) -> Any:
    """`2M` is two million; anything else is left to the type."""
    text = str(value).strip().replace("_", "").lower()
    if text[-1:] not in _SUFFIXES:
        return value
    try:
        # Exact: 2.3 times a million is no whole number in floats.
        number = Decimal(text[:-1]) * _SUFFIXES[text[-1]]
        return int(number) if number == int(number) else value
    except (ArithmeticError, ValueError):
        return value


class PretrainingFlags(CommandArguments):
    """Where ordinary text comes from, and how much of it."""

    pretraining_docs: int = Field(
        11000, ge=0, description="pretraining documents, first in the file (documents)"
    )
    pretraining_tokens: Annotated[int | None, BeforeValidator(_whole_number)] = Field(
        None,
        ge=1,
        description="instead of a number of documents: as many as hold this much, the last one "
        "counted whole (tokens of --pretraining_tokenizer, or words; 2M is two million)",
    )
    pretraining_tokenizer: str | None = Field(
        None,
        description="whose tokens are counted: a model's name or folder (None: words between "
        "blanks)",
    )
    pretraining_source: list[str] = Field(
        list(AT_HAND),
        description="where pretraining text comes from: 'stdlib' (documentation of Python's "
        "standard library), package:NAME (documentation of an installed package), files or folders "
        "of text, JSON lines or Parquet, also .gz and .zst, or hf:NAME (a Hugging Face dataset, by "
        "name or folder; hf:NAME?split=train&config=C&revision=R). SOURCE=0.7 states a share; "
        "without shares all are one pool (docs/pretraining_text.md)",
    )
    pretraining_field: str | None = Field(
        None,
        description="where records hold their text (None: 'text', or 'prompt' and 'completion')",
    )
    pretraining_rows: int | None = Field(
        None,
        ge=1,
        description="records of each source that are read at most, of which documents are chosen "
        "(records; None: all of files, and of a Hugging Face dataset by name four times what is "
        "wanted)",
    )
    pretraining_licence: str | None = Field(
        None, description="licence of the pretraining text that you name, for the metadata"
    )
    min_chars: int = Field(
        MIN_CHARS, ge=1, description="least length that plain text is cut to (characters)"
    )
    max_chars: int = Field(
        MAX_CHARS, ge=1, description="greatest length that plain text is cut to (characters)"
    )

    def wants_pretraining(self) -> bool:
        return self.pretraining_tokens is not None or self.pretraining_docs > 0


def pretraining_text(args: PretrainingFlags, world: World, seed: int) -> PretrainingText:
    """The text that the flags ask for, without what names an entity of `world`.

    Raises UsageError for flags that contradict each other, PretrainingTextError for the text.
    """
    return read_pretraining(
        args.pretraining_source,
        _amount(args),
        seed=seed,
        licence=args.pretraining_licence,
        min_chars=args.min_chars,
        max_chars=args.max_chars,
        text_field=args.pretraining_field,
        names=entity_names(world),
        most_rows=args.pretraining_rows,
    )


def _amount(args: PretrainingFlags) -> Amount:
    tokens, tokenizer = args.pretraining_tokens, args.pretraining_tokenizer
    if tokens is None:
        if tokenizer is not None:
            raise UsageError(
                f"--pretraining_tokenizer {tokenizer} counts --pretraining_tokens, which is not "
                "given: add it, or leave the tokenizer out"
            )
        return Amount(args.pretraining_docs)
    if "pretraining_docs" in args.model_fields_set:
        raise UsageError(
            f"--pretraining_docs {args.pretraining_docs} and --pretraining_tokens {tokens}: "
            "give one of them"
        )
    if tokenizer is None:
        return Amount(tokens, "words")
    return Amount(tokens, f"tokens of {tokenizer}", _token_counter(tokenizer))


def _token_counter(name: str) -> Callable[[str], int]:
    """How many tokens a text has, without those that stand around a document."""
    from transformers import AutoTokenizer

    try:
        if name in (TINY, SMOLLM2):
            tokenizer = load_tokenizer(resolve_model(name))
        else:
            if name.startswith((".", "/", "~")) and not Path(name).is_dir():
                raise FileNotFoundError("no such folder")
            tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UsageError(f"--pretraining_tokenizer {name}: {error}") from None

    def count(text: str) -> int:
        # Not verbose: it would warn of texts longer than a model's window, which packing cuts.
        return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    return count
