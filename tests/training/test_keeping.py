"""Which checkpoints are written and which stay."""

import pytest

from oocr_influence.training.keeping import Keeping
from oocr_influence.training.schedule import Cadence, Schedule

SCHEDULED = Schedule(n_windows=40, batch_size=8, epochs=2).milestones(Cadence(0.4, "epochs"))
NAMES = ["start", "e1_s2", "e1_s4", "e1_s5", "e2_s6", "e2_s8", "final"]


def names(moments):
    return [moment.name for moment in moments]


def test_the_schedule_is_what_this_file_takes_it_for():
    assert names(SCHEDULED) == NAMES


def test_all():
    keeping = Keeping.parse("all")
    assert names(keeping.written(SCHEDULED)) == names(keeping.kept(SCHEDULED)) == NAMES


@pytest.mark.parametrize(
    ("until", "kept"),
    [
        (0, ["start"]),
        (2, ["start", "e1_s2"]),
        (5, ["start", "e1_s4", "e1_s5"]),
        (7, ["start", "e1_s5", "e2_s6"]),
        (None, ["start", "e2_s8", "final"]),
    ],
)
def test_the_last_ones(until, kept):
    keeping = Keeping.parse("2")
    assert names(keeping.written(SCHEDULED)) == NAMES
    assert names(keeping.kept(SCHEDULED, until=until)) == kept


def test_named_ones():
    keeping = Keeping.parse("final, e1_s4")
    assert names(keeping.written(SCHEDULED)) == ["e1_s4", "final"]
    assert names(keeping.kept(SCHEDULED)) == ["e1_s4", "final"]
    assert names(keeping.kept(SCHEDULED, until=4)) == ["e1_s4"]
    assert Keeping.parse("final,e1_s3").unknown(SCHEDULED) == ["e1_s3"]


@pytest.mark.parametrize("text", ["0", "-1", "", "start,,final", ","])
def test_nonsense(text):
    with pytest.raises(ValueError, match="all"):
        Keeping.parse(text)
