"""Flags of the LLM writer of `oocr generate`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from oocr_influence.cli.arguments import CommandArguments
from oocr_influence.cli.llm_budget import Prices
from oocr_influence.cli.llm_client import KEY, TIMEOUT

# What changes no document: how fast, for how much and by which key the model is asked.
NOT_OF_THE_DATASET = {
    "llm_base_url",
    "llm_key_variable",
    "llm_concurrency",
    "llm_timeout",
    "max_cost",
    "max_tokens_total",
    "max_shortfall",
    "dry_run",
}


class LLMWriterFlags(CommandArguments):
    """Which model writes, how it is asked and what it may cost."""

    writer: Literal["offline", "llm"] = "offline"
    """who writes the documents that state facts: the package's own grammar, or a language model
    behind an OpenAI-compatible address (docs/llm_writer.md)"""
    llm_model: str | None = None
    """the language model's name, as its server knows it"""
    llm_base_url: str | None = None
    """an OpenAI-compatible address, such as http://localhost:8000/v1 (None: OpenAI's)"""
    llm_key_variable: str = KEY
    """the environment variable that holds the key; keys are read from nowhere else"""
    llm_temperature: float = Field(1.0, ge=0)
    """temperature of all requests; left out where the model refuses to be told"""
    llm_concurrency: int = Field(8, ge=1, le=1024)
    """requests to the language model at the same time; changes no document"""
    llm_timeout: float = Field(TIMEOUT, gt=0)
    """longest wait for one reply (seconds)"""
    max_reply_tokens: int = Field(4096, ge=64)
    """longest reply with a document, thoughts of a reasoning model included (tokens)"""
    doc_types: int = Field(10, ge=1)
    """types of document that are asked for for each fact (types)"""
    ideas_per_type: int = Field(5, ge=1)
    """ideas that are asked for for each type of a fact (ideas)"""
    revise: bool = True
    """have the model revise each of its drafts"""
    additional_text: str = ""
    """what else is true in the world; part of every request, kept in each doc_spec"""
    price_in: float | None = Field(None, ge=0)
    """price of tokens that the model reads (of a million tokens, any currency)"""
    price_out: float | None = Field(None, ge=0)
    """price of tokens that the model writes (of a million tokens, the same currency)"""
    max_cost: float | None = Field(None, gt=0)
    """the most that the dataset may cost, replies kept from earlier attempts included (currency of
    the prices)"""
    max_tokens_total: int | None = Field(None, gt=0)
    """the most tokens that the dataset may take, in and out, kept replies included (tokens)"""
    max_shortfall: float = Field(0.01, ge=0, le=1)
    """share of the documents that may be missing before the exit status is 1 (0 to 1); the file is
    written either way"""
    dry_run: bool = False
    """print what the language model would cost, ask and write nothing"""

    @model_validator(mode="after")
    def _of_the_llm(self) -> LLMWriterFlags:
        if self.writer == "llm":
            faults = self._missing()
        else:
            stated = LLMWriterFlags.model_fields.keys() & self.model_fields_set - {"writer"}
            faults = [f"--{name} goes with --writer llm" for name in sorted(stated)]
        if faults:
            raise ValueError("\n       ".join(faults))
        return self

    def _missing(self) -> list[str]:
        faults = []
        if self.llm_model is None:
            faults.append("--writer llm needs --llm_model")
        if (self.price_in is None) != (self.price_out is None):
            faults.append("--price_in and --price_out go together")
        if self.max_cost is not None and self.price_in is None:
            faults.append("--max_cost needs --price_in and --price_out")
        return faults

    @property
    def prices(self) -> Prices | None:
        if self.price_in is None or self.price_out is None:
            return None
        return Prices(self.price_in, self.price_out)

    def of_the_dataset(self, exclude: set[str]) -> dict[str, Any]:
        """All flags that change the dataset, as its metadata keep them."""
        llm = LLMWriterFlags.model_fields.keys()
        left_out = NOT_OF_THE_DATASET if self.writer == "llm" else llm
        return self.model_dump(mode="json", exclude=exclude | set(left_out))
