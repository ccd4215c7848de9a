"""The ledger's claims under every order of takes, ends, crashes and returns that hypothesis finds.

An attempt may die between any two of its file operations: `dying` raises at a drawn one, before or
after it has been done, and what stands on the disk is all that the others then know.
"""

import contextlib
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from launcher import claims
from launcher.claims import (
    ask_again,
    end,
    is_open,
    last_claim,
    last_exit,
    read_exit,
    standing,
    take,
)

SPEC = SimpleNamespace(
    id="j",
    on_exit={"lost": {"retry": True, "limit": 2}, "-9": {"retry": True, "patch": {"batch": 1}}},
)
WRITERS = ("create_record", "write_record")
# (status, exit code, who stopped it) of the ends that an attempt can say
ENDS = [("ok", 0, False), ("failed", 1, False), ("failed", -9, False), ("interrupted", 75, True)]
CRASHES = st.none() | st.tuples(st.integers(1, 4), st.booleans())


class Died(BaseException):
    """The process is no more: nothing of ours may catch it."""


@contextlib.contextmanager
def dying(crash):
    """The process dies at the n-th file operation of claims.py: before it, or once it is done."""
    calls, own = 0, {name: getattr(claims, name) for name in WRITERS}

    def wrapped(name):
        def call(*given, **named):
            nonlocal calls
            calls += 1
            if crash == (calls, False):
                raise Died
            result = own[name](*given, **named)
            if crash == (calls, True):
                raise Died
            return result

        return call

    for name in WRITERS:
        setattr(claims, name, wrapped(name))
    try:
        yield
    finally:
        for name, function in own.items():
            setattr(claims, name, function)


class Ledger(RuleBasedStateMachine):
    """One job, and the processes that take it, die, come back and are given up."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="ledger"))
        self.job = SimpleNamespace(spec=SPEC, folder=self.folder, log=self.folder / "log")
        self.open = None  # the claim of the attempt that may publish
        self.stale = []  # claims of attempts that were ended by others, and may come back
        self.ended = {}  # the number of each ended attempt to its status
        self.number = 0

    def teardown(self):
        shutil.rmtree(self.folder)

    def read_exits(self):
        """The ends as they stand on the disk, read without the code under test."""
        import json

        found = {}
        for path in (self.folder / "attempts").glob("*.exit.json"):
            if not path.name.startswith("."):
                record = json.loads(path.read_text())
                found[int(path.name.split(".")[0])] = (record["status"], record["attempt"])
        return found

    def note(self):
        """What a process that died in between has left is what the others find."""
        for number, (status, _) in self.read_exits().items():
            self.ended.setdefault(number, status)
        claim = last_claim(self.folder)
        self.number = max(self.number, claim["attempt_number"] if claim else 0)
        self.open = claim if claim and claim["attempt_number"] not in self.ended else None

    @rule(crash=CRASHES)
    def take(self, crash):
        before = standing(self.job)
        claim = None
        with contextlib.suppress(Died), dying(crash):
            claim = take(self.job, worker="w")
        if before.state != "waiting":
            assert claim is None, "nothing finished and nothing taken is taken"
            assert standing(self.job) == before
        elif claim is not None:
            assert claim["attempt_number"] == self.number + 1
            assert claim["patch"] == dict(before.patch or {})
        elif crash is None:
            raise AssertionError("a waiting job is there to be taken")
        self.note()

    @precondition(lambda self: self.open is not None)
    @rule(how=st.sampled_from(ENDS), crash=CRASHES)
    def end(self, how, crash):
        claim, (status, code, asked) = self.open, how
        assert is_open(self.folder, claim["attempt_number"])
        said = None
        with contextlib.suppress(Died), dying(crash):
            said = end(self.job, claim, status, code, result=claim["attempt"], stop_requested=asked)
            assert said is not None
        self.note()
        if self.open is not None:  # it died before it could say so, and its process is gone
            assert said is None
            assert self.open["attempt"] == claim["attempt"]

    @precondition(lambda self: self.open is not None)
    @rule(crash=CRASHES)
    def give_up(self, crash):
        claim = self.open
        with contextlib.suppress(Died), dying(crash):
            assert end(self.job, claim, "lost", -9, said_by={"pid": 1}) is not None
        self.note()
        if self.open is None:
            self.stale.append(claim)

    @precondition(lambda self: self.stale)
    @rule(data=st.data(), how=st.sampled_from(ENDS))
    def come_back(self, data, how):
        claim = data.draw(st.sampled_from(self.stale))
        before, exits = standing(self.job), self.read_exits()
        assert not is_open(self.folder, claim["attempt_number"])
        assert end(self.job, claim, how[0], how[1], result="from beyond") is None
        assert standing(self.job) == before
        assert self.read_exits() == exits

    @rule(even_done=st.booleans(), crash=CRASHES)
    def ask_again(self, even_done, crash):
        before, asked = standing(self.job).state, False
        with contextlib.suppress(Died), dying(crash):
            asked = ask_again(self.job, why="a test", even_done=even_done)
        allowed = before == "failed" or (even_done and before == "done")
        assert allowed or not asked
        after = standing(self.job).state
        assert after == ("waiting" if asked else before) or (crash and after == "waiting")
        if asked and before == "done":  # a person wants it once more: what was published stays
            self.ended[self.number] = "ok, asked again"

    @invariant()
    def holds(self):
        exits = self.read_exits()
        assert set(exits) == set(self.ended), "no end is lost, none comes from nowhere"
        for number, (status, _) in exits.items():
            assert self.ended[number].startswith(status), "an end is said once and for ever"
        # Published ok by one attempt alone, unless a person asked for another.
        assert sum(status == "ok" for status in self.ended.values()) <= 1
        now = standing(self.job)
        assert now.number == self.number
        assert (now.state == "open") == (self.open is not None)
        if now.state == "done":
            assert self.ended[self.number] == "ok"
            assert read_exit(self.folder) == last_exit(self.folder) == now.exit
        # Not lost: it is open, done, or somebody may take it, or a person may ask for it.
        if self.number and self.ended.get(self.number, "").startswith(("interrupted", "lost")):
            assert now.state in ("waiting", "failed")


def search(machine, examples):
    checked = settings(
        max_examples=examples,
        stateful_step_count=25,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    run_state_machine_as_test(machine, settings=checked)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """Thousands of records: what a power cut would take is not the question here."""
    from launcher import ledger

    monkeypatch.setattr(ledger.os, "fsync", lambda descriptor: None)


def test_no_order_of_crashes_publishes_twice_or_loses_a_job():
    search(Ledger, examples=60)


@pytest.mark.parametrize("fault", ["overwrites", "forgets"])
def test_the_search_finds_a_planted_fault(monkeypatch, fault):
    def overwrites(path, record):  # as a rename would: the last one to speak is believed
        claims.write_record(path, record)
        return True

    def forgets(path, record):  # an end that is never on the disk
        return own(path, record) if not path.name.endswith("exit.json") else True

    own = claims.create_record
    monkeypatch.setattr(claims, "create_record", locals()[fault])
    with pytest.raises(Exception) as found:  # noqa: PT011 - hypothesis may group several
        search(Ledger, examples=30)
    assert "AssertionError" in repr(found.value) or isinstance(found.value, AssertionError)
