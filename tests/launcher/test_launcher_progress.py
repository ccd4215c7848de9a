"""What a person sees: bars in a terminal, few plain lines elsewhere, the same lines in the log."""

import io
import logging

import pytest
from rich.console import Console

from launcher import progress
from launcher.claims import take
from launcher.jobs import RunningJob
from launcher.ledger import write_record
from launcher.outcomes import JobOutcome, SweepResult, duration
from launcher.progress import Display


class Clock:
    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def console(terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=120)


@pytest.fixture
def started(make_job):
    """A job taken by this process, and how it reports."""
    job = make_job("seed_42", label="seed 42 [a]")
    job.write()
    running = RunningJob(job, take(job))

    def report(**values):
        running.state.update(status="running", report=values)
        write_record(job.folder / "state.json", running.state)

    return job, report


def test_plain_lines_are_few_and_go_to_the_log_too(started, clock, caplog):
    job, report = started
    out = console(terminal=False)
    with caplog.at_level(logging.INFO, logger="launcher"), Display(2, console=out) as display:
        display.done_before(1)
        display.started(job, "GPU 0")
        for step in range(1, 61):  # one second each
            clock.now += 1
            stage = "  evaluating e1_s42" if 40 <= step < 45 else ""
            report(completed=step, total=209, message=f"loss {3 - step / 100:.2f}{stage}")
            display.update()
        display.ended(JobOutcome(job, "ok", 0, 60.0))
    lines = out.file.getvalue().splitlines()
    assert lines == [
        "1 of 2 jobs were done before",
        "seed 42 [a]: starts on GPU 0",
        "seed 42 [a]: 5/209 loss 2.95 [0:05, 3:24 left]",
        "seed 42 [a]: 35/209 loss 2.65 [0:35, 2:54 left]",
        "seed 42 [a]: 40/209 loss 2.60  evaluating e1_s42 [0:40, 2:49 left]",
        "seed 42 [a]: 45/209 loss 2.55 [0:45, 2:44 left]",
        "seed 42 [a]: ok in 1:00",
    ]
    assert [record.getMessage() for record in caplog.records] == lines


def test_a_terminal_shows_bars_and_keeps_a_line_for_each_ended_job(started, clock, caplog):
    job, report = started
    out = console(terminal=True)
    with caplog.at_level(logging.INFO, logger="launcher"), Display(3, console=out) as display:
        display.started(job, "GPU 0")
        for completed in (10, 12):
            clock.now += 10
            report(completed=completed, total=209, message="loss 2.31  5,120 tok/s  [e1_s42]")
            display.update()
        shown = out.file.getvalue()
        for part in ("seed 42 [a]", "━", "12/209", "2.31  5,120 tok/s  [e1_s42]", "16:25 left"):
            assert part in shown
        assert "0 of 3 done, 1 running, 2 waiting" in shown
        display.ended(JobOutcome(job, "failed", 3, 20.0, message="ValueError: no\nmore"))
    assert "failed in 0:20 (exit status 3, ValueError: no); see" in out.file.getvalue()
    assert str(job.log) in out.file.getvalue().replace("\n", "")
    assert caplog.records[-1].getMessage().startswith("seed 42 [a]: failed in 0:20")


def test_an_earlier_attempts_report_is_not_shown(started, clock):
    job, report = started
    report(completed=200, total=209)
    write_record(job.folder / "state.json", {"status": "interrupted", "report": {"completed": 200}})
    out = console(terminal=False)
    with Display(1, console=out) as display:
        display.started(job, "GPU 0")
        clock.now += 31
        display.update()
        (job.folder / "state.json").unlink()
        clock.now += 31
        display.update()
    assert "200" not in out.file.getvalue()
    assert out.file.getvalue().count("seed 42 [a]: [") == 2


def test_hidden_progress_still_reaches_the_log(started, capsys, caplog):
    with caplog.at_level(logging.INFO, logger="launcher"), Display(1, show=False) as display:
        display.started(started[0], "GPU 0")
    assert capsys.readouterr().out == ""
    assert caplog.messages == ["seed 42 [a]: starts on GPU 0"]


def test_the_summary_counts_and_names(make_job):
    result = SweepResult(
        [
            JobOutcome(make_job("a"), "ok", 0, done_before=True),
            JobOutcome(make_job("b"), "failed", -9, 2.0, ["x", "y"], message="killed by SIGKILL"),
            JobOutcome(make_job("c"), "not_started"),
        ],
        interrupted=True,
        seconds=3723,
    )
    assert result.summary().splitlines() == [
        "3 jobs: 1 ok (1 done before), 1 failed, 1 not started; 1:02:03",
        "",
        "failed: b (killed by SIGKILL)",
        f"  {result.failed[0].job.folder}",
        "  | x",
        "  | y",
    ]
    assert not result.ok
    assert [duration(s) for s in (0.4, 59.6, 3600)] == ["0:00", "1:00", "1:00:00"]
