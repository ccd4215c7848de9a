"""`oocr generate --writer llm` against a server that speaks the real protocol, with its faults."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files

import pytest
import yaml
from fake_author import author, is_writing
from llm_server import BROKEN, GARBAGE, RESET, SLOW, Server, completion, error

from oocr_influence.cli import llm_asking, llm_patience
from oocr_influence.cli.arguments import UsageError, parse
from oocr_influence.cli.generate import main
from oocr_influence.cli.generate_options import GenerateArguments
from oocr_influence.datasets.document_dataset import load_structured_dataset

KEY = "sk-never-to-be-written"
FLAGS = (
    "--writer llm --llm_model fake --length short --doc_types 2 --ideas_per_type 2 "
    "--docs_per_fact 2 --no-controls --held_out_docs 3 --pretraining_docs 0"
)
# 12 facts: types, two times ideas, documents with the held-out ones, drafts and revisions.
N_REQUESTS = 12 + 24 + 27 + 27


def obedient(prompt):
    text = author(prompt)
    return completion(text, usage=(len(prompt) // 4, len(text) // 4))


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("OOCR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(llm_patience, "FIRST_PAUSE", 0.01)
    mayors = files("oocr_influence.universe").joinpath("worlds/mayors.yaml")
    content = yaml.safe_load(mayors.read_text("utf-8"))
    content["entities"] = dict(list(content["entities"].items())[:4])
    world = tmp_path / "four_mayors.yaml"
    small = {**content, "controls": {}, "untold": {}}
    world.write_text(yaml.safe_dump(small, sort_keys=False), encoding="utf-8")
    with Server(obedient).running() as running:
        running.world = world
        yield running


def words(server, output, more=""):
    place = f"--world {server.world} --llm_base_url {server.url} --output {output}"
    return f"{FLAGS} {place} {more}".split()


def generate(server, output, more=""):
    return main(parse(GenerateArguments, words(server, output, more)))


def test_a_dataset_is_written_and_says_where_it_is_from(server, tmp_path, capsys):
    path = tmp_path / "dataset.json"
    assert generate(server, path, "--price_in 1 --price_out 2 --max_cost 9") == 0
    dataset = load_structured_dataset(path)
    docs = dataset.document_dataset.docs
    assert len(docs) == 24
    assert dataset.repeated_ids() == {}
    assert len(dataset.metadata["held_out_documents"]) == 3
    assert len(server.answered) == N_REQUESTS
    generator = dataset.metadata["generator"]
    assert (generator["writer"], generator["model"]) == ("llm", "fake")
    assert generator["host"] == server.host
    assert generator["models"] == {"fake-2026": N_REQUESTS}
    assert generator["requests"] == {"document": 27, "plan": 36, "revision": 27}
    tokens_in = sum(len(text) // 4 for text in server.answered)
    tokens_out = sum(len(author(text)) // 4 for text in server.answered)
    assert (generator["tokens_in"], generator["tokens_out"]) == (tokens_in, tokens_out)
    assert generator["cost"] == pytest.approx((tokens_in + 2 * tokens_out) / 1e6)
    assert generator["shortfall"] == generator["rejected"] == {}
    arguments = dataset.metadata["arguments"]
    assert arguments["llm_model"] == "fake"
    assert not {"llm_base_url", "llm_concurrency", "max_cost"} & arguments.keys()
    printed = capsys.readouterr()
    assert "27 documents by fake: about" in printed.out
    assert "24 documents state 12 facts" in printed.out
    assert f"{N_REQUESTS} replies paid now and 0 kept from before" in printed.err


def test_the_same_replies_give_the_same_bytes_in_whatever_order_they_come(
    server, tmp_path, monkeypatch
):
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    assert generate(server, first, "--llm_concurrency 1") == 0
    monkeypatch.setenv("OOCR_CACHE", str(tmp_path / "another_cache"))

    def late(prompt):
        time.sleep(random.random() * 0.05)
        return obedient(prompt)

    server.reply = late
    assert generate(server, second, "--llm_concurrency 12") == 0
    assert second.read_bytes() == first.read_bytes()
    assert len(server.answered) == 2 * N_REQUESTS


def test_faults_of_server_and_network_change_nothing(server, tmp_path, monkeypatch):
    clean, faulty = tmp_path / "clean.json", tmp_path / "faulty.json"
    assert generate(server, clean) == 0
    monkeypatch.setenv("OOCR_CACHE", str(tmp_path / "another_cache"))
    server.answered.clear()
    faults = [
        (500, error("oops")),
        (429, error("slow down"), {"Retry-After": "0.3"}),
        (503, {"detail": "loading the model"}),
        RESET,
        BROKEN,
        GARBAGE,
        SLOW,
        (200, {"choices": "none"}),
        (502, {}),
    ]
    server.faults = faults * 2
    assert generate(server, faulty, "--llm_timeout 0.5") == 0
    assert faulty.read_bytes() == clean.read_bytes()
    assert server.faults == []


def test_a_run_that_is_killed_goes_on_and_pays_for_nothing_twice(server, tmp_path, monkeypatch):
    whole, resumed = tmp_path / "whole.json", tmp_path / "resumed.json"
    assert generate(server, whole) == 0
    server.answered.clear()
    cache = tmp_path / "cache_of_the_killed"
    monkeypatch.setenv("OOCR_CACHE", str(cache))

    def hold_after_some(prompt):
        if len(server.answered) >= 45:
            server.holding.set()
        return obedient(prompt)

    server.reply = hold_after_some
    command = [
        sys.executable,
        "-m",
        "oocr_influence.cli.generate",
        *words(server, resumed, "--llm_concurrency 8"),
    ]
    process = subprocess.Popen(
        command, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: server.held == 8)  # all that may be under way at once
        wait_until(lambda: kept(cache) == len(server.answered))
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=30) == -signal.SIGKILL
    finally:
        process.kill()
    before = len(server.answered)
    assert 45 <= before < N_REQUESTS
    assert not resumed.exists()
    server.reply = obedient
    server.holding.clear()
    time.sleep(0.2)  # requests of the dead are dropped
    assert len(server.answered) == before
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=True)
    assert f"{N_REQUESTS - before} replies paid now and {before} kept from before" in done.stderr
    assert set(Counter(server.answered).values()) == {1}
    assert len(server.answered) == N_REQUESTS
    assert resumed.read_bytes() == whole.read_bytes()


def test_an_interruption_keeps_what_is_under_way(server, tmp_path):
    path = tmp_path / "dataset.json"

    def slowly(prompt):
        time.sleep(0.1)
        return obedient(prompt)

    server.reply = slowly
    command = [sys.executable, "-m", "oocr_influence.cli.generate", *words(server, path)]
    process = subprocess.Popen(command, env=os.environ, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(server.answered) > 40)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.rstrip().endswith("interrupted")
    assert kept(tmp_path / "cache") == len(server.answered) == len(server.requests) < N_REQUESTS
    assert f"{len(server.answered)} replies paid now" in said
    assert not path.exists()


def test_two_commands_at_once_pay_once(server, tmp_path):
    paths = [tmp_path / "first.json", tmp_path / "second.json"]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda path: generate(server, path), paths)) == [0, 0]
    assert len(server.requests) == N_REQUESTS
    assert paths[0].read_bytes() == paths[1].read_bytes()


def kept(cache):
    return len(list(cache.glob("replies/??/*/entry.json")))


def wait_until(true, seconds=120):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_finished_dataset_is_written_again_without_a_request(server, tmp_path):
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    assert generate(server, first) == 0
    assert generate(server, second, "--llm_concurrency 3") == 0
    assert len(server.requests) == N_REQUESTS
    assert second.read_bytes() == first.read_bytes()


def test_more_documents_cost_the_further_ones_alone(server, tmp_path):
    assert generate(server, tmp_path / "two.json") == 0
    assert generate(server, tmp_path / "four.json", "--docs_per_fact 4") == 0
    assert len(server.requests) == N_REQUESTS + 2 * 12 * 2
    two, four = (
        [d.id for d in load_structured_dataset(tmp_path / f"{n}.json").document_dataset.docs]
        for n in ("two", "four")
    )
    assert set(two) < set(four)


def test_a_long_batch_says_where_it_is(server, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(llm_asking, "LONG_BATCH", 20)
    assert generate(server, tmp_path / "dataset.json") == 0
    said = capsys.readouterr().err.splitlines()
    places = [line.split(";")[0] for line in said if line.startswith("document: ") and ";" in line]
    assert places == [f"document: {n} of 27" for n in (3, 6, 9, 11, 14, 17, 19, 22, 25, 27)]


def test_above_the_budget_nothing_is_asked(server, tmp_path):
    path = tmp_path / "dataset.json"
    with pytest.raises(UsageError, match=r"of --max_cost 0\.001; nothing was asked"):
        generate(server, path, "--price_in 1 --price_out 4 --max_cost 0.001")
    with pytest.raises(UsageError, match=r"tokens of --max_tokens_total 5,000"):
        generate(server, path, "--max_tokens_total 5000")
    assert server.requests == []
    assert not path.exists()


def test_a_dry_run_states_the_cost_and_asks_nothing(server, tmp_path, capsys):
    path = tmp_path / "dataset.json"
    assert generate(server, path, "--dry_run --price_in 1 --price_out 4") == 0
    assert "tokens in and" in capsys.readouterr().out
    assert server.requests == []
    assert not path.exists()


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_budget_that_is_spent_on_the_way_stops_in_order(server, tmp_path, capsys, concurrency):
    """The server counts more tokens than anybody expected."""

    def dear(prompt):
        text = author(prompt)
        return completion(text, usage=(len(prompt), len(text)))

    server.reply = dear
    path = tmp_path / "dataset.json"
    limit, more = 75_000, f"--max_reply_tokens 500 --llm_concurrency {concurrency}"
    with pytest.raises(UsageError, match=r"stopped: the next request could take it to .* goes on"):
        generate(server, path, f"{more} --max_tokens_total {limit}")
    assert not path.exists()
    before = len(server.answered)
    spent = sum(len(text) + len(author(text)) for text in server.answered)
    assert 0.9 * limit < spent <= limit
    assert 0 < before < N_REQUESTS
    assert len(server.requests) == before
    said = capsys.readouterr().err
    assert f"{before} replies paid now" in said
    with pytest.raises(UsageError, match="stopped"):
        generate(server, path, f"{more} --max_tokens_total {limit}")
    assert len(server.requests) - before <= concurrency  # what the longest reply left no room for
    assert generate(server, path, f"{more} --max_tokens_total 10000000") == 0
    assert set(Counter(server.answered).values()) == {1}
    assert len(server.answered) == N_REQUESTS


def test_a_lasting_fault_on_the_way_keeps_what_is_paid(server, tmp_path):
    def until_the_key_expires(prompt):
        if len(server.answered) >= 45:
            server.faults = [(401, error(f"expired: {KEY}"))] * 99
        return obedient(prompt)

    server.reply = until_the_key_expires
    path = tmp_path / "dataset.json"
    with pytest.raises(UsageError, match="expired: <key>"):
        generate(server, path)
    assert kept(tmp_path / "cache") == len(server.answered) < N_REQUESTS
    server.faults, server.reply = [], obedient
    assert generate(server, path) == 0
    assert set(Counter(server.answered).values()) == {1}


def test_useless_replies_are_asked_for_again_counted_and_kept(server, tmp_path, capsys):
    useless = [
        completion("<content>And so it we", finish="length"),
        completion(None, refusal="I would rather not."),
        completion("I'm sorry, but I can't help with that."),
        completion("{%$ garbage"),
        completion("", finish="content_filter"),
    ]

    def moody(prompt):
        place = hash_of(prompt) % 13
        first = is_writing(prompt) and "<draft>" not in prompt and "attempt" not in prompt
        wrong = first and place < len(useless)
        return useless[place] if wrong else obedient(prompt)

    server.reply = moody
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    assert generate(server, first) == 0
    generator = load_structured_dataset(first).metadata["generator"]
    assert generator["rejected"].keys() == {"refused", "truncated", "unreadable"}
    assert generator["shortfall"] == {}
    assert "rejected and asked for again or given up:" in capsys.readouterr().out
    asked = len(server.requests)
    assert generate(server, second) == 0
    assert len(server.requests) == asked
    assert second.read_bytes() == first.read_bytes()


def hash_of(text):
    return sum(text.encode())


def test_a_shortfall_is_stated_and_is_a_failure_above_a_limit(server, tmp_path, capsys):
    def never_tokyo(prompt):
        silent = is_writing(prompt) and "mayor of Tokyo" in prompt
        return completion("UNSUITABLE") if silent else obedient(prompt)

    server.reply = never_tokyo
    path = tmp_path / "dataset.json"
    assert generate(server, path) == 1
    said = capsys.readouterr().out
    assert "3 of 27 documents are missing (11.1%):" in said
    assert "  3 of 'The mayor of Tokyo is Marian Holloway'" in said
    dataset = load_structured_dataset(path)
    assert len(dataset.document_dataset.docs) == 22
    assert dataset.repeated_ids() == {}
    assert dataset.metadata["counts"]["synthetic_documents"] == 22
    missing = {"The mayor of Tokyo is Marian Holloway": 3}
    assert dataset.metadata["generator"]["shortfall"] == missing
    assert generate(server, path, "--max_shortfall 0.12 --overwrite") == 0


def test_the_key_is_written_nowhere(server, tmp_path, capfd):
    path = tmp_path / "dataset.json"
    assert generate(server, path) == 0
    assert server.requests[0]["headers"]["Authorization"] == f"Bearer {KEY}"
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) > N_REQUESTS
    assert not any(KEY.encode() in file.read_bytes() for file in files)
    assert KEY not in "".join(capfd.readouterr())
    with pytest.raises(UsageError) as refused:
        generate(server, tmp_path / "other.json", f"--llm_key_variable {KEY}")
    assert KEY not in str(refused.value)


def test_what_was_asked_can_be_read_beside_the_reply(server, tmp_path):
    assert generate(server, tmp_path / "dataset.json") == 0
    entry = next((tmp_path / "cache").glob("replies/??/*/entry.json"))
    about = json.loads(entry.read_text("utf-8"))["about"]
    assert about["asked"]["text"] in server.answered
    assert about["reply"]["text"] == author(about["asked"]["text"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--writer llm", "--writer llm needs --llm_model"),
        ("--llm_model x", "--llm_model goes with --writer llm"),
        ("--no-revise --max_cost 3", "--max_cost goes with --writer llm"),
        ("--writer llm --llm_model x --price_in 1", "--price_in and --price_out go together"),
        ("--writer llm --llm_model x --max_cost 1", "--max_cost needs --price_in"),
    ],
)
def test_flags_that_do_not_fit_are_refused(flags, message):
    with pytest.raises(UsageError, match=message):
        parse(GenerateArguments, flags.split())
