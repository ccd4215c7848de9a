"""A language model behind an OpenAI-compatible address: most providers, or a local vLLM.

    client = LLMClient("gpt-4.1-mini", cache=Path("replies.sqlite"))
    client = LLMClient("Qwen/Qwen3-8B", base_url="http://localhost:8000/v1")
    client.ask("Reply with one word, yes or no.", readable=is_yes_or_no)

The key is OPENAI_API_KEY. The SDK retries what is worth it (rate limits, timeouts, server faults)
with growing pauses. A readable reply is kept under the digest of all that it follows from, so that
an interrupted command pays for nothing twice.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from oocr_influence.cli.arguments import UsageError
from oocr_influence.results.digests import json_digest

KEY = "OPENAI_API_KEY"
RETRIES = 6  # of the SDK, about a minute in all
TIMEOUT = 120.0  # seconds a request
UNREADABLE = 3  # replies in a row that make no sense before it is a fault


class LLMClient:
    """One model; `ask` may be called from several threads."""

    def __init__(
        self, model: str, *, base_url: str | None = None, cache: Path | None = None
    ) -> None:
        """Raises UsageError if the SDK or the key is missing."""
        try:
            import openai
        except ImportError:
            raise UsageError(
                "a language model is asked through the openai package, which is not installed: "
                "pip install 'oocr-influence[llm]'"
            ) from None
        key = os.environ.get(KEY)
        if not key and base_url is None:
            raise UsageError(f"{KEY} is not set; a server of your own needs its address instead")
        self.model, self.base_url = model, base_url
        self._openai = openai
        self._client = openai.OpenAI(
            api_key=key or "none", base_url=base_url, max_retries=RETRIES, timeout=TIMEOUT
        )
        self._temperature: dict[str, Any] = {"temperature": 0.0}
        self._cache = None if cache is None else ReplyCache(cache)

    def check(self) -> None:
        """Ask for one word, for the model to be there; raises UsageError if it is not."""
        self._reply("Reply with one word, yes.")

    def ask(self, text: str, readable: Callable[[str], bool] = bool) -> str:
        """The model's reply; raises UsageError if there is none, or none that is `readable`."""
        key = json_digest([self.base_url, self.model, text])
        kept = self._cache.get(key) if self._cache else None
        if kept is not None and readable(kept):
            return kept
        reply = ""
        for _ in range(UNREADABLE):
            reply = self._reply(text)
            if readable(reply):
                if self._cache:
                    self._cache.put(key, reply)
                return reply
        raise UsageError(
            f"{self._named()} gave no usable reply in {UNREADABLE} tries; the last: {reply[:200]!r}"
        )

    def _reply(self, text: str) -> str:
        sent = self._temperature  # another thread may change it meanwhile
        try:
            try:
                return self._complete(text, sent)
            except self._openai.BadRequestError as error:
                if not sent or "temperature" not in str(error):
                    raise
                self._temperature = {}  # some models have one temperature and refuse to be told
                return self._complete(text, {})
        except self._openai.OpenAIError as error:
            raise UsageError(f"{self._named()}: {type(error).__name__}: {error}") from None

    def _complete(self, text: str, temperature: dict[str, Any]) -> str:
        completion = self._client.chat.completions.create(
            model=self.model, messages=[{"role": "user", "content": text}], **temperature
        )
        return (completion.choices[0].message.content or "") if completion.choices else ""

    def _named(self) -> str:
        return f"{self.model} at {self.base_url or self._client.base_url}"


class ReplyCache:
    """Replies by key in one SQLite file, for several threads and several processes."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._lock = threading.Lock()
        self._run("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")

    def get(self, key: str) -> str | None:
        rows = self._run("SELECT reply FROM replies WHERE key = ?", key)
        return str(rows[0][0]) if rows else None

    def put(self, key: str, reply: str) -> None:
        self._run("INSERT OR REPLACE INTO replies VALUES (?, ?)", key, reply)

    def _run(self, statement: str, *values: str) -> list[tuple[Any, ...]]:
        with self._lock, closing(sqlite3.connect(self._path, timeout=30)) as database, database:
            return database.execute(statement, values).fetchall()
