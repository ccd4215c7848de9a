"""Runs that are killed with -9 again and again end with the bits of one that nobody disturbed.

Each attempt is a process of its own, forked from this one so that the libraries are imported once.
It kills itself at a moment drawn from a seed, inside of a phase: in the middle of an update, of an
evaluation, or of a checkpoint that is half written.
"""

import os
import random
import signal
import sys
import warnings
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "cli"))  # test_resuming.py

from test_resuming import arguments, check_same, contents

from oocr_influence.cli import run_saving
from oocr_influence.cli.one_run import run_once
from oocr_influence.cli.resuming import find_unfinished
from oocr_influence.cli.verify import dataset_of, expected_of
from oocr_influence.results.checkpoints import faults_of, has_tokenizer
from oocr_influence.results.finding import find_runs
from oocr_influence.results.run_folder import RunFolder
from oocr_influence.results.verification import verify_run
from oocr_influence.training import loop

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*")]
KILLS = 21
PHASES = ("update", "evaluation", "checkpoint", "state")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def dying(own, nth, *, after):
    """`own`, at whose n-th call the process dies: before it, or once it has done its part."""
    calls = 0

    def call(*given, **named):
        nonlocal calls
        calls += 1
        if calls == nth and not after:
            die()
        result = own(*given, **named)
        if calls == nth:
            die()
        return result

    return call


def half_written(own, nth):
    """`own` writes a file or a folder; at the n-th call half of its bytes are there, then death."""

    def torn(target):
        files = [target] if target.is_file() else sorted(target.rglob("*.safetensors"))
        for file in files:
            with file.open("r+b") as opened:
                opened.truncate(file.stat().st_size // 2)
        die()

    calls = 0

    def call(first, second, *rest, **named):
        nonlocal calls
        calls += 1
        result = own(first, second, *rest, **named)
        if calls == nth:
            target = rest[0] if rest else second
            torn(Path(getattr(target, "name", target)))  # torch.save is given an open file
        return result

    return call


def plant(phase, draw):
    """Where this attempt will die; it may end before it comes to that."""
    nth = draw.randint(1, 3)
    if phase == "update":
        loop.window_loss = dying(loop.window_loss, draw.randint(1, 25), after=draw.random() < 0.5)
    elif phase == "evaluation":
        from oocr_influence.evaluation import evaluate

        evaluate.score_tree = dying(evaluate.score_tree, nth, after=draw.random() < 0.5)
    elif phase == "checkpoint":
        for name in ("save_checkpoint", "stream_checkpoint"):
            setattr(run_saving, name, half_written(getattr(run_saving, name), nth))
    else:
        torch.save = half_written(torch.save, nth)


def attempt(args, phase, draw):
    """Go on with the run, or begin it, in another process; its exit status, -9 if it was killed."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), 1)
                os.dup2(nowhere.fileno(), 2)
            torch.set_num_threads(1)
            if phase is not None:
                plant(phase, draw)
            run_once(args, unfinished=find_unfinished(args))
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def check_nothing_half_is_visible(args):
    """Whatever has a checkpoint's or an evaluation's name is whole."""
    for run in find_runs(args.output_dir):
        for name in run.checkpoints():
            assert faults_of(run.checkpoint(name)) == []
            assert has_tokenizer(run.checkpoint(name))
        for name in run.evaluations():
            run.read_evaluation(name)
            run.read_records(name)


@pytest.mark.parametrize("seed", range(3))
def test_kills_change_nothing(tmp_path, seed):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    # Without the cache, so that the untouched model's evaluation is a moment to die in as well.
    shared = {"epochs": 3, "eval_cache": False}
    whole = RunFolder(Path(run_once(arguments(tmp_path / "whole", **shared))["run"]))
    expected = contents(whole)
    assert len(expected["evaluations"]) == len(expected["weights"]) == 7
    args = arguments(tmp_path / "killed", **shared)
    draw = random.Random(seed)
    killed = dict.fromkeys(PHASES, 0)
    rounds = 0
    while sum(killed.values()) < KILLS // 3:
        rounds += 1
        assert rounds < 60, killed
        # Those that have seen the fewest kills come first.
        phase = min(draw.sample(PHASES, len(PHASES)), key=lambda p: killed[p])
        status = attempt(args, phase, draw)
        assert status in (0, -signal.SIGKILL)
        killed[phase] += status == -signal.SIGKILL
        check_nothing_half_is_visible(args)
        if status == 0:  # it came to its end before its moment: another one takes the blows
            (done,) = find_runs(args.output_dir)
            check_same(done, whole)
            args = arguments(tmp_path / f"killed_{rounds}", **shared)
    assert min(killed.values()) >= 1
    assert attempt(args, None, draw) == 0
    (run,) = find_runs(args.output_dir)
    check_same(run, whole)
    assert verify_run(run, expected_of, dataset_of(run)).ok
    assert run.unfinished() == []
    assert not run.training_state.exists()
