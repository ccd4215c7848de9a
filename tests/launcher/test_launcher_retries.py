"""Which ends are followed by another attempt, as a table."""

import pytest

from launcher.retries import UNASKED_INTERRUPTIONS, kinds_of, next_try, on_exit_faults


def ended(status, code=1, error=None, *, asked=False, patch=None):
    about = {"type": error} if error else None
    record = {"status": status, "exit_code": code, "error": about, "stop_requested": asked}
    return record | ({"patch": patch} if patch else {})


LOST, HUNG, KILLED = ended("lost", -9), ended("hung", -9), ended("failed", -9)
OUT_OF_MEMORY, OTHER = ended("failed", 1, "OutOfMemoryError"), ended("failed", 1, "ValueError")
STOPPED, UNASKED = ended("interrupted", 75, asked=True), ended("interrupted", 75)
LESS = {"batch": 2}


@pytest.mark.parametrize(
    ("on_exit", "ends", "patch"),
    [
        # Nothing is retried that the spec does not name.
        ({}, [OTHER], None),
        ({}, [LOST], None),
        ({}, [KILLED], None),
        ({"lost": {"retry": False, "limit": 9}}, [LOST], None),
        ({"lost": {"limit": 9}}, [LOST], None),
        # By kind, and each kind as often as its limit, whatever came between.
        ({"lost": {"retry": True}}, [LOST], {}),
        ({"lost": {"retry": True}}, [LOST, LOST], None),
        ({"lost": {"retry": True, "limit": 2}}, [LOST, STOPPED, LOST], {}),
        ({"lost": {"retry": True, "limit": 2}}, [LOST, LOST, STOPPED, LOST], None),
        ({"lost": {"retry": True}, "hung": {"retry": True}}, [LOST, HUNG], {}),
        ({"lost": {"retry": True, "limit": 0}}, [LOST], None),
        ({"hung": {"retry": True}}, [LOST], None),
        ({"-9": {"retry": True}}, [KILLED], {}),
        ({"1": {"retry": True}}, [OTHER], {}),
        ({"ValueError": {"retry": True}}, [OTHER], {}),
        ({"ValueError": {"retry": True}}, [OUT_OF_MEMORY], None),
        # The most telling name decides: a rule for the exception before one for the status.
        ({"1": {"retry": True}, "ValueError": {"retry": False}}, [OTHER], None),
        # A patch stays, and further ones are put upon it.
        ({"OutOfMemoryError": {"retry": True, "patch": LESS}}, [OUT_OF_MEMORY], LESS),
        ({"lost": {"retry": True}}, [ended("lost", -9, patch=LESS)], LESS),
        (
            {"OutOfMemoryError": {"retry": True, "limit": 2, "patch": {"batch": 1}}},
            [OUT_OF_MEMORY, ended("failed", 1, "OutOfMemoryError", patch={"batch": 2, "x": 3})],
            {"batch": 1, "x": 3},
        ),
        # Who was asked to stop goes on, however often; who was not, three times.
        ({}, [STOPPED] * 50, {}),
        ({}, [ended("interrupted", 75, asked=True, patch=LESS)], LESS),
        ({}, [UNASKED] * UNASKED_INTERRUPTIONS, {}),
        ({}, [UNASKED] * (UNASKED_INTERRUPTIONS + 1), None),
        ({}, [STOPPED, UNASKED, STOPPED, UNASKED], {}),
    ],
)
def test_next_try(on_exit, ends, patch):
    assert on_exit_faults(on_exit) == []
    before = [dict(end) for end in ends]
    assert next_try(on_exit, ends) == patch
    assert ends == before


def test_kinds_come_the_most_telling_first():
    assert kinds_of(OUT_OF_MEMORY) == ["failed", "OutOfMemoryError", "1"]
    assert kinds_of(LOST) == ["lost", "-9"]
