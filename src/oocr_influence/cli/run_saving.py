"""Checkpoints and the training state of one run, written beside what is computed meanwhile.

    saving.after_step(step, snapshot, …)    begins to write what the schedule asks for
    saving.fence()                          before the next update, which changes the weights

Weights are frozen while the model is asked, and from then until the next update. What is written
appears whole or not at all (results/atomic.py).
"""

from __future__ import annotations

import errno
import logging
import re
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from oocr_influence.cli.run_context import RunContext
from oocr_influence.cli.start_checkpoint import same_start
from oocr_influence.models.load import save_checkpoint
from oocr_influence.models.streaming import CheckpointLayout, Tensors, stream_checkpoint
from oocr_influence.results.checkpoints import content_digest
from oocr_influence.training.loop import Snapshot
from oocr_influence.training.moments import write_moments
from oocr_influence.training.state import Place, State, place_of

logger = logging.getLogger("oocr_influence")

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# safetensors is written in Rust, and says it so.
_NO_ROOM_IN_RUST = re.compile(rf"\(os error ({'|'.join(map(str, _NO_ROOM))})\)")


class DiskFullError(OSError):
    """There was no room for a checkpoint or a state; what was there before is intact."""


class RunSaving:
    """What a run saves, and when. To be made while the model has its untouched weights."""

    def __init__(self, run: RunContext, model: Any, weights_digest: str) -> None:
        self._run, self._model, self._weights_digest = run, model, weights_digest
        self._scheduled = run.preparation.scheduled_checkpoints
        self._keeping = run.args.keeping
        self._checkpoints = {m.step: m.name for m in self._keeping.written(self._scheduled)}
        self._state_steps = {m.step for m in self._scheduled} if run.args.save_state else set()
        self._state_of: Place | None = None
        self._layout: CheckpointLayout | None = None
        self._has_looked = False
        if run.folder.checkpoint("start").is_dir():  # an earlier attempt's
            self._look("start")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._pending: Future[float] | None = None
        self.final_digest: str | None = None
        """Of the tensors of `checkpoint_final`, once it is written."""

    def is_due(self, step: int) -> bool:
        """Whether the schedule asks for anything at this step."""
        return step in self._checkpoints or step in self._state_steps

    def after_step(self, step: int, snapshot: Snapshot, *, resumed_here: bool) -> None:
        """Begin to write what the schedule asks for, and what an earlier attempt has not written.

        The state comes first, so that a run that dies while it saves goes on from here.
        """
        run = self._run
        run.check_may_save()
        with_state = step in self._state_steps and 0 < step < run.total_steps and not resumed_here
        name = self._checkpoints.get(step)
        if name is not None and run.folder.checkpoint(name).exists():
            name = None
        if name == "start":
            self._save_start()
        elif with_state or name is not None:
            self.fence()
            self._write(snapshot(), name, step, with_state=with_state)

    def save_state(self, snapshot: Snapshot) -> None:
        """Write the state of this moment, if it is not there, and wait for it."""
        self.fence()
        state = snapshot()
        if place_of(state) != self._state_of:
            self._write(state, None, None, with_state=True)
            self.fence()

    def fence(self) -> None:
        """Wait until all that was begun is on disk.

        Raises what its writer raised, and DiskFullError where that was for want of room.
        """
        if self._pending is not None:
            pending, self._pending = self._pending, None
            with self._run.phases("save_stall"), self._room_asked_for():
                self._run.phases.add("save", pending.result())
            self._run.look_at_disk()

    def close(self) -> None:
        """Let the writer come to its end, also where the run has met with an error."""
        self._writer.shutdown(wait=True)
        if self._pending is not None and (error := self._pending.exception()) is not None:
            logger.error("while saving: %s", error)

    def _write(self, state: State, name: str | None, step: int | None, *, with_state: bool) -> None:
        # What training changes is in the state; where several processes train, that alone is whole.
        tensors = {**self._model.state_dict(), **state["model"]}

        def write() -> float:
            began = time.perf_counter()
            if with_state:
                self._write_state(state)
            if name is not None:
                self._write_checkpoint(name, tensors, state)
                if name == "final":  # beside the last evaluation, out of the system's memory
                    self.final_digest = self._digest_of(name)
            if step is not None:
                self._prune(step)
            return time.perf_counter() - began

        if name is None or self._layout is not None:
            self._pending = self._writer.submit(write)
            return
        # As transformers writes it: only then is it known how this model is laid out.
        with self._room_asked_for():
            seconds = write()
        self._run.phases.add("save", seconds)
        self._run.phases.add("save_stall", seconds)
        self._look(name)

    def _digest_of(self, name: str) -> str | None:
        """Of what has just been written; a run is not lost for a line of its record."""
        try:
            return content_digest(self._run.folder.checkpoint(name))
        except (OSError, ValueError) as error:
            logger.warning("no digest of checkpoint_%s: %s", name, error)
            return None

    def _write_state(self, state: State) -> None:
        with self._run.folder.writing_training_state() as path:
            with path.open("wb") as file:  # torch.save forgets why, where it opens the file itself
                torch.save(state, file)
            self._run.check_may_save()
        self._state_of = place_of(state)

    def _write_checkpoint(self, name: str, tensors: Tensors, state: State | None) -> None:
        """`tensors` are the model's, and `state` has their moments, where there are any."""
        run = self._run
        with run.folder.writing_checkpoint(name) as folder:
            if self._layout is None:
                save_checkpoint(self._model, run.preparation.tokenizer, folder)
            else:
                stream_checkpoint(tensors, self._layout, folder)
            if state is not None and run.args.save_optimizer:
                write_moments(state, folder)
            run.check_may_save()

    def _save_start(self) -> None:
        # The runs of a sweep begin with the same weights: one writes them, the others link to them.
        run = self._run
        waiting = run.waiting("first checkpoint by another run")
        cache = run.cache
        alone = cache.alone("start_checkpoints", self._weights_digest, waiting) if cache else None
        with alone or nullcontext(), run.phases("save"), self._room_asked_for():
            written = same_start(run.folder, run.log.log_dict)
            if written is None:
                self._write_checkpoint("start", self._model.state_dict(), None)
            else:
                run.folder.link_checkpoint("start", written)
                logger.info("checkpoint_start is another name of %s", written)
        self._look("start")

    def _look(self, name: str) -> None:
        """See how transformers lays this model out, once, in a checkpoint of its weights now."""
        if self._has_looked:
            return
        self._has_looked = True
        self._layout = CheckpointLayout.of(self._model, self._run.folder.checkpoint(name))
        if self._layout is None:
            logger.info(
                "training waits while a checkpoint is written, which is not this model's tensors "
                "as they are"
            )

    def _prune(self, step: int) -> None:
        """Delete the checkpoints that are not kept once that of `step` is there."""
        folder = self._run.folder
        kept = {moment.name for moment in self._keeping.kept(self._scheduled, until=step)}
        for moment in self._scheduled:
            if moment.step <= step and moment.name not in kept:
                folder.remove_checkpoint(moment.name)

    @contextmanager
    def _room_asked_for(self) -> Iterator[None]:
        """Say what a full disk means for this run, and what to do."""
        try:
            yield
        except Exception as error:
            if not _is_no_room(error):
                raise
            path = self._run.folder.path
            raise DiskFullError(
                f"no room to save in {path} ({error}). What was there is intact: free some space, "
                "then go on with the run or its sweep by --resume"
            ) from error


def _is_no_room(error: BaseException | None) -> bool:
    """Whether it, or what it arose from, is for want of room on the disk."""
    if error is None:
        return False
    known = isinstance(error, OSError) and error.errno in _NO_ROOM
    told = _NO_ROOM_IN_RUST.search(str(error)) is not None
    return known or told or _is_no_room(error.__cause__ or error.__context__)
