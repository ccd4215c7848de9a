"""The client of a language model, against a server that speaks the real protocol."""

import datetime
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from llm_server import BROKEN, GARBAGE, RESET, SLOW, Server, completion, error

from oocr_influence.cli import llm_client, llm_patience
from oocr_influence.cli.arguments import UsageError
from oocr_influence.cli.llm_client import LLMClient
from oocr_influence.cli.llm_patience import stated_pause
from oocr_influence.cli.llm_replies import KeptReplies
from oocr_influence.results.cache import Cache


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(llm_patience, "FIRST_PAUSE", 0.01)
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
    server.faults = [
        (429, error("slow down")),
        (500, error("oops")),
        BROKEN,
        (503, {}),
        RESET,
        GARBAGE,
    ]
    assert client(server).ask("this") == "you said this"
    assert len(server.requests) == 7


def test_faults_that_do_not_pass_end_it(server, monkeypatch):
    monkeypatch.setattr(llm_patience, "RETRIES", 3)
    server.faults = [(500, error("oops"))] * 9
    with pytest.raises(UsageError, match=r"InternalServerError.*oops"):
        client(server).ask("this")
    assert len(server.requests) == 4


def test_a_reply_that_trickles_in_is_not_waited_for(server):
    server.faults = [SLOW]
    asking = client(server, timeout=0.5)
    started = time.monotonic()
    assert asking.ask("this") == "you said this"
    assert time.monotonic() - started < 5
    assert asking.patience.retried == 1


def test_an_account_without_money_is_not_asked_again(server):
    server.faults = [(429, error("no more", code="insufficient_quota"))]
    with pytest.raises(UsageError, match=r"RateLimitError.*no more"):
        client(server).ask("this")
    assert len(server.requests) == 1


def test_a_stated_pause_is_kept_by_all_threads(server):
    answered = completion("yes")
    server.faults = [(200, answered), (429, error("slow down"), {"Retry-After": "1"})]
    asking = client(server)
    asking.ask("first")
    with ThreadPoolExecutor(4) as pool:
        refused = pool.submit(asking.ask, "refused")
        while asking.patience.retried == 0:
            time.sleep(0.005)
        others = [pool.submit(asking.ask, f"other {i}") for i in range(3)]
        assert refused.result() == "you said refused"
        assert others[2].result() == "you said other 2"
    _, refusal, *later = server.requests
    assert len(later) == 4
    assert all(request["at"] - refusal["at"] > 0.9 for request in later)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2.5"}, 2.5),
        ({"retry-after-ms": "20", "retry-after": "7"}, 0.02),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
    ],
)
def test_a_pause_may_be_stated_in_several_ways(headers, seconds):
    assert stated_pause(headers) == seconds


def test_a_pause_may_be_stated_as_a_date():
    date = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=60)
    stated = stated_pause({"retry-after": date.strftime("%a, %d %b %Y %H:%M:%S GMT")})
    assert 55 < stated <= 60


def test_a_server_that_wants_hours_is_asked_another_day(server):
    server.faults = [(429, error("come back tomorrow"), {"Retry-After": "86400"})]
    with pytest.raises(UsageError, match="come back tomorrow"):
        client(server).ask("this")


def test_who_gives_up_ends_the_waiting_of_others(server):
    server.faults = [(429, error("slow down"), {"Retry-After": "500"})]
    asking = client(server)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(asking.ask, "this")
        while asking.patience.retried == 0:
            time.sleep(0.005)
        asking.patience.give_up()
        with pytest.raises(llm_patience.GivenUp):
            waiting.result(timeout=10)


def test_a_completion_has_its_end_its_tokens_and_its_model(server):
    server.reply = lambda _: completion("cut o", finish="length", usage=(7, 3))
    reply = client(server).complete("this", max_tokens=3)
    assert (reply.text, reply.finish) == ("cut o", "length")
    assert (reply.tokens_in, reply.tokens_out, reply.counted) == (7, 3, True)
    assert reply.model == "fake-2026"
    assert server.requests[0]["max_tokens"] == 3
    server.reply = lambda _: completion(None, refusal="I would rather not")
    reply = client(server).complete("these words")
    assert (reply.text, reply.refused, reply.counted) == ("", True, False)
    assert reply.tokens_in == 3


def test_a_prompt_that_the_provider_filters_is_a_refusal(server):
    server.faults = [(400, error("policy", code="content_filter"))]
    assert client(server).complete("this").refused


def test_the_limit_of_a_reply_goes_by_the_name_that_the_model_takes(server):
    message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    server.faults = [(400, error(message))]
    asking = client(server)
    for _ in range(2):
        asking.complete("this", max_tokens=9)
    names = [[n for n in request if n.startswith("max_")] for request in server.requests]
    assert names == [["max_tokens"], ["max_completion_tokens"], ["max_completion_tokens"]]
    server.faults = [(400, error(f"no {n}")) for n in ("max_completion_tokens", "max_tokens")]
    with pytest.raises(UsageError, match="no max_tokens"):
        asking.complete("this", max_tokens=9)


def test_two_threads_may_be_refused_a_temperature_at_once(server):
    """The second refusal comes after the first has changed what is sent from now on."""
    refusal = (400, error("Unsupported value: 'temperature' does not support 0.0"))
    both_asked, first_went_on = threading.Barrier(2), threading.Event()
    lock, told = threading.Lock(), []
    asking = client(server)
    complete = asking._post

    def post(text, sent):
        if "temperature" not in sent:
            reply = complete(text, sent)
            first_went_on.set()
            return reply
        both_asked.wait(timeout=10)  # both have decided to send a temperature
        with lock:
            told.append(text)
            second = len(told) == 2
        if second:
            assert first_went_on.wait(timeout=10)
        server.faults = [refusal]
        return complete(text, sent)

    asking._post = post
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(asking.ask, ["this", "that"])) == ["you said this", "you said that"]
    sent = sorted("temperature" in request for request in server.requests)
    assert sent == [False, False, True, True]


@pytest.mark.parametrize(
    "url",
    ["http://me:secret@localhost/v1", "http://localhost/v1?key=secret", "localhost:8000/v1"],
)
def test_an_address_that_holds_a_secret_or_is_none_is_refused(url):
    with pytest.raises(UsageError) as refused:
        LLMClient("fake", base_url=url)
    assert "secret" not in str(refused.value)


def test_the_key_is_in_no_message(server, monkeypatch):
    monkeypatch.setenv("OTHER_KEY", "sk-secret")
    server.faults = [(401, error("Incorrect API key provided: sk-secret"))]
    with pytest.raises(UsageError, match="Incorrect API key provided: <key>") as refused:
        client(server, key_variable="OTHER_KEY").check()
    assert "sk-secret" not in str(refused.value)
    assert server.requests[0]["headers"]["Authorization"] == "Bearer sk-secret"


def test_a_lasting_fault_names_model_place_and_reason(server, monkeypatch):
    server.faults = [(404, error("no model called fake"))]
    with pytest.raises(UsageError, match=rf"fake at {server.url}: NotFound.*no model called fake"):
        client(server).ask("this")
    nobody = LLMClient("fake", base_url="http://127.0.0.1:9/v1")
    monkeypatch.setattr(llm_patience, "RETRIES", 0)
    with pytest.raises(UsageError, match="APIConnectionError"):
        nobody.check()


def test_a_model_that_refuses_a_temperature_is_asked_without(server):
    server.faults = [(400, error("Unsupported value: 'temperature' does not support 0.0"))]
    asking = client(server)
    assert asking.ask("this") == "you said this"
    assert asking.ask("that") == "you said that"
    assert ["temperature" in request for request in server.requests] == [True, False, False]


def test_nothing_is_paid_for_twice(server, tmp_path):
    kept = KeptReplies(Cache(tmp_path / "kept"))
    texts = [f"text {i}" for i in range(20)]
    with ThreadPoolExecutor(8) as pool:
        first = list(pool.map(client(server, replies=kept).ask, texts))
    assert len(server.requests) == 20
    assert [client(server, replies=kept).ask(text) for text in texts] == first
    assert len(server.requests) == 20
    LLMClient("other", base_url=server.url, replies=kept).ask(texts[0])
    assert len(server.requests) == 21


def test_an_unreadable_reply_is_asked_again_and_never_kept(server, tmp_path):
    replies = iter(["hm", "hm", "yes", "hm", "hm", "hm"])
    server.reply = lambda _: next(replies)
    asking = client(server, replies=KeptReplies(Cache(tmp_path)))
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


def test_replies_that_cannot_be_kept_are_not_asked_for(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"replies cannot be kept in .*set OOCR_CACHE"):
        KeptReplies(Cache(tmp_path / "file"))
