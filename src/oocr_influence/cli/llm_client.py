"""A language model behind an OpenAI-compatible address: most providers, or a local vLLM.

    client = LLMClient("gpt-4.1-mini", replies=KeptReplies(Cache.default()))
    client = LLMClient("Qwen/Qwen3-8B", base_url="http://localhost:8000/v1")
    client.ask("Reply with one word, yes or no.", readable=is_yes_or_no)
    client.complete("Write a letter.", max_tokens=500).text

The key is OPENAI_API_KEY, or the variable that is named; it is written nowhere. What is worth
another try is tried again (`llm_patience.py`). A readable reply to `ask` is kept under the digest
of all that it follows from, so that an interrupted command pays for nothing twice.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from oocr_influence.cli.arguments import UsageError
from oocr_influence.cli.llm_patience import BrokenReply, Patience
from oocr_influence.cli.llm_replies import KeptReplies
from oocr_influence.documents.conversation import Reply
from oocr_influence.results.digests import json_digest

KEY = "OPENAI_API_KEY"
TIMEOUT = 120.0  # seconds a request
UNREADABLE = 3  # replies in a row that make no sense before it is a fault
WITHHELD = {"content_filter", "content_policy_violation"}  # error codes: this prompt is declined
# What to send in the place of a setting that a model refuses. Some have one temperature and refuse
# to be told; the limit of a reply has two names, and most models know one of them.
INSTEAD = {
    "temperature": None,
    "max_tokens": "max_completion_tokens",
    "max_completion_tokens": "max_tokens",
}
CHARACTERS_A_TOKEN = 4  # where the server counts no tokens


class LLMClient:
    """One model; its methods may be called from several threads."""

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        key_variable: str = KEY,
        temperature: float = 0.0,
        timeout: float = TIMEOUT,
        replies: KeptReplies | None = None,
    ) -> None:
        """Raises UsageError if the SDK or the key is missing, or if the address holds a secret."""
        try:
            import openai
        except ImportError:
            raise UsageError(
                "a language model is asked through the openai package, which is not installed: "
                "pip install 'oocr-influence[llm]'"
            ) from None
        _check_address(base_url)
        self._key = os.environ.get(key_variable)
        if not self._key and base_url is None:
            raise UsageError(
                f"{key_variable} is not set; a server of your own needs its address instead"
            )
        self.model, self.base_url, self.temperature = model, base_url, temperature
        self.patience = Patience()
        self._openai, self._timeout = openai, timeout
        self._client = openai.OpenAI(
            api_key=self._key or "none", base_url=base_url, max_retries=0, timeout=timeout
        )
        self._settings: dict[str, Any] = {"temperature": temperature}
        # OpenAI's newer models refuse the old name; other servers may not know the new one.
        self._limit = "max_completion_tokens" if base_url is None else "max_tokens"
        self._replies = replies

    @property
    def host(self) -> str:
        """Where the model is, without the rest of its address."""
        return urlsplit(str(self._client.base_url)).netloc

    def check(self) -> None:
        """Ask for one word, for the model to be there; raises UsageError if it is not."""
        self.complete("Reply with one word, yes.")

    def ask(self, text: str, readable: Callable[[str], bool] = bool) -> str:
        """The model's reply; raises UsageError if there is none, or none that is `readable`."""
        key = json_digest([self.base_url, self.model, text])
        kept = self._replies.get(key) if self._replies else None
        if kept is not None and readable(kept.text):
            return kept.text
        reply = Reply("")
        for _ in range(UNREADABLE):
            reply = self.complete(text)
            if readable(reply.text):
                if self._replies:
                    self._replies.put(key, reply, {"model": self.model, "text": text})
                return reply.text
        raise UsageError(
            f"{self._named()} gave no usable reply in {UNREADABLE} tries; "
            f"the last: {reply.text[:200]!r}"
        )

    def complete(self, text: str, max_tokens: int | None = None) -> Reply:
        """The model's reply, whatever it is; raises UsageError if there is none."""
        limit = {} if max_tokens is None else {self._limit: max_tokens}
        sent = {**limit, **self._settings}  # another thread may change them meanwhile
        refused: set[str] = set()
        while True:
            try:
                return _read(self.patience.send(lambda: self._post(text, sent)), text)  # noqa: B023
            except self._openai.BadRequestError as error:
                if error.code in WITHHELD:
                    return Reply("", finish="content_filter", refused=True, model=self.model)
                adapted = self._adapted(sent, str(error), refused)
                if adapted is None:
                    raise self._fault(error) from None
                sent = adapted
            except (self._openai.OpenAIError, BrokenReply) as error:
                raise self._fault(error) from None

    def _adapted(
        self, sent: dict[str, Any], refusal: str, refused: set[str]
    ) -> dict[str, Any] | None:
        """What to send instead, now and from now on, to a model that refuses a setting."""
        for name, other in INSTEAD.items():
            if name not in sent or name not in refusal:
                continue
            refused.add(name)
            if other in refused:
                return None
            rest = {key: value for key, value in sent.items() if key != name}
            if other is None:
                self._settings = {key: v for key, v in self._settings.items() if key != name}
                return rest
            self._limit = other
            return {**rest, other: sent[name]}
        return None

    def _post(self, text: str, sent: dict[str, Any]) -> dict[str, Any]:
        """One request; the reply's JSON. Raises BrokenReply for half a reply or none in time."""
        started = time.monotonic()
        with self._client.chat.completions.with_streaming_response.create(
            model=self.model, messages=[{"role": "user", "content": text}], **sent
        ) as response:
            body = b""
            try:
                for chunk in response.iter_bytes():
                    body += chunk
                    # The SDK's timeout is that of one read: a trickle would never end.
                    if time.monotonic() - started > self._timeout:
                        raise BrokenReply(f"no whole reply in {self._timeout:g} s")
                read = json.loads(body)
            except BrokenReply:
                raise
            except Exception as error:  # of whatever library carries the bytes
                raise BrokenReply(f"a reply broke off ({type(error).__name__})") from None
        if not isinstance(read, dict) or not isinstance(read.get("choices"), list):
            raise BrokenReply(f"a reply was no chat completion: {body[:100]!r}")
        return read

    def _fault(self, error: Exception) -> UsageError:
        said = str(error)
        if self._key:
            said = said.replace(self._key, "<key>")  # servers like to quote it
        return UsageError(f"{self._named()}: {type(error).__name__}: {said}")

    def _named(self) -> str:
        return f"{self.model} at {self.base_url or self._client.base_url}"


def _read(body: dict[str, Any], asked: str) -> Reply:
    choice = body["choices"][0] if body["choices"] else {}
    message = choice.get("message") or {}
    text = message.get("content") or ""
    usage = body.get("usage") or {}
    counted = "prompt_tokens" in usage and "completion_tokens" in usage
    return Reply(
        text=text,
        finish=choice.get("finish_reason") or "stop",
        refused=bool(message.get("refusal")),
        tokens_in=usage["prompt_tokens"] if counted else _about(asked),
        tokens_out=usage["completion_tokens"] if counted else _about(text),
        counted=counted,
        model=str(body.get("model") or ""),
    )


def _about(text: str) -> int:
    return math.ceil(len(text) / CHARACTERS_A_TOKEN)


def _check_address(base_url: str | None) -> None:
    if base_url is None:
        return
    parts = urlsplit(base_url)
    if parts.username or parts.password or parts.query:
        raise UsageError(
            f"the address of {parts.hostname} holds a user, a password or a query; "
            "a key belongs in the environment, where nothing writes it down"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"'{base_url}' is no address; write it as http://localhost:8000/v1")
