"""The client of a language model, against a server that speaks the real protocol."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from llm_server import Server, error

from oocr_influence.cli import llm_client
from oocr_influence.cli.arguments import UsageError
from oocr_influence.cli.llm_client import LLMClient


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with Server(lambda text: f"you said {text}").running() as running:
        yield running


def client(server, **options):
    return LLMClient("fake", base_url=server.url, **options)


def test_a_reply_comes_back(server):
    assert client(server).ask("this") == "you said this"
    (request,) = server.requests
    assert request["path"] == "/v1/chat/completions"
    assert (request["model"], request["temperature"]) == ("fake", 0.0)


def test_the_key_is_sent(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    client(server).check()
    assert server.requests[0]["headers"]["Authorization"] == "Bearer secret"


def test_passing_faults_are_retried(server):
    server.faults = [(429, error("slow down")), (500, error("oops")), (None, None), (503, {})]
    assert client(server).ask("this") == "you said this"
    assert len(server.requests) == 5


def test_a_lasting_fault_names_model_place_and_reason(server):
    server.faults = [(404, error("no model called fake"))]
    with pytest.raises(UsageError, match=rf"fake at {server.url}: NotFound.*no model called fake"):
        client(server).ask("this")
    nobody = LLMClient("fake", base_url="http://127.0.0.1:9/v1")
    nobody._client = nobody._client.with_options(max_retries=0)
    with pytest.raises(UsageError, match="APIConnectionError"):
        nobody.check()


def test_a_model_that_refuses_a_temperature_is_asked_without(server):
    server.faults = [(400, error("Unsupported value: 'temperature' does not support 0.0"))]
    asking = client(server)
    assert asking.ask("this") == "you said this"
    assert asking.ask("that") == "you said that"
    assert ["temperature" in request for request in server.requests] == [True, False, False]


def test_nothing_is_paid_for_twice(server, tmp_path):
    cache = tmp_path / "kept" / "replies.sqlite"
    texts = [f"text {i}" for i in range(20)]
    with ThreadPoolExecutor(8) as pool:
        first = list(pool.map(client(server, cache=cache).ask, texts))
    assert len(server.requests) == 20
    assert [client(server, cache=cache).ask(text) for text in texts] == first
    assert len(server.requests) == 20
    LLMClient("other", base_url=server.url, cache=cache).ask(texts[0])
    assert len(server.requests) == 21


def test_an_unreadable_reply_is_asked_again_and_never_kept(server, tmp_path):
    replies = iter(["hm", "hm", "yes", "hm", "hm", "hm"])
    server.reply = lambda _: next(replies)
    asking = client(server, cache=tmp_path / "replies.sqlite")
    assert asking.ask("this", readable=lambda reply: reply == "yes") == "yes"
    with pytest.raises(UsageError, match="no usable reply in 3 tries; the last: 'hm'"):
        asking.ask("that", readable=lambda reply: reply == "yes")
    assert asking.ask("this", readable=lambda reply: reply == "yes") == "yes"
    assert len(server.requests) == 3 + llm_client.UNREADABLE


def test_what_is_missing_is_said_at_once(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UsageError, match="OPENAI_API_KEY is not set"):
        LLMClient("some")
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UsageError, match=r"pip install 'oocr-influence\[llm\]'"):
        LLMClient("some", base_url="http://127.0.0.1:9/v1")
