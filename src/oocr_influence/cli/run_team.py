"""One run by several processes: the first is the run, the others help it.

The leader (`one_run.py`) does all that one process does, and alone writes. All train together, as
`training/shared.py` says. Between two updates the others obey: the leader tells what it begins that
takes all of them.

    leader                                  the others
    tell("fill"), sharded.fill()            obey() → sharded.fill()
    …
    tell("go on")                           obey() returns
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.preparation import Preparation, prepare
from oocr_influence.cli.run_asking import loss_documents, plan_of
from oocr_influence.cli.run_context import RunStopped
from oocr_influence.evaluation.document_losses import DocumentLosses
from oocr_influence.evaluation.evaluate import Evaluator
from oocr_influence.models.load import load_model, recompute_activations
from oocr_influence.models.sharding import ShardedModel
from oocr_influence.models.team import Team
from oocr_influence.results.cache import Cache
from oocr_influence.training.kernels import settle_kernels
from oocr_influence.training.loop import Snapshot, train
from oocr_influence.training.shared import SharedTraining
from oocr_influence.training.state import State


class Leader:
    """What the run's own process has the others do."""

    def __init__(self, team: Team, model: Any) -> None:
        self._team = team
        self.sharded = ShardedModel(model, team)
        self.sharded.fill()
        self.training = SharedTraining(self.sharded)

    @contextmanager
    def whole_weights(self) -> Iterator[None]:
        """Within, the plain model has the weights of this moment, here and on the others."""
        self._team.tell("fill")
        self.sharded.fill()
        yield
        self._team.tell("release")
        self.sharded.release()

    def snapshot(self, take: Snapshot) -> Snapshot:
        """The same snapshot, for which the others are told to do their part."""

        def together() -> State:
            self._team.tell("snapshot")
            return take()

        return together

    def agree(self, preparation: Preparation, plan_digest: str) -> None:
        """Raise TeamDisagreesError unless all processes train and ask the same."""
        self._team.tell("planned")
        _agree(self._team, preparation, plan_digest)

    def go_on(self) -> None:
        """Let the others train again."""
        self._team.tell("go on")


def help_run(args: TrainingArgs, team: Team) -> None:
    """Be one of the others, from the leader's first word to the end of training.

    Raises RunStopped if the leader was asked to stop.
    """
    (state_file,) = _wait_for(team, "prepared")  # what it has tokenised is in the cache by now
    preparation = prepare(args)
    model = load_model(preparation.resolved, precision=args.precision)
    if args.gradient_checkpointing:
        recompute_activations(model)
    (attention,) = _wait_for(team, "kernels")
    kernels = settle_kernels(
        model,
        preparation.windows,
        attention=attention,
        compiled="off",
        micro_batch_size=args.micro_batch,
    )
    sharded = ShardedModel(model, team)
    sharded.fill()
    _wait_for(team, "planned")
    cache = Cache.default() if args.eval_cache else None
    evaluator = plan_of(preparation, cache).evaluator
    _agree(team, preparation, evaluator.plan.digest)
    sharded.release()
    helper = _Helper(team, sharded, evaluator, loss_documents(preparation))
    train(
        model,
        preparation.windows,
        preparation.schedule,
        args.rate(preparation.schedule),
        args.optimizer_settings(),
        data_order_seed=args.data_order_seed,
        micro_batch_size=args.micro_batch,
        attention=kernels.attention,
        after_step=lambda _, snapshot: helper.obey(snapshot),
        log_step=lambda _: None,
        after_update=helper.obey,
        start=lambda: _read(state_file),
        shared=SharedTraining(sharded),
    )


class _Helper:
    """One of the others while the leader saves and asks."""

    def __init__(
        self,
        team: Team,
        sharded: ShardedModel,
        evaluator: Evaluator,
        losses: DocumentLosses | None,
    ) -> None:
        self._team, self._sharded = team, sharded
        self._evaluator, self._losses = evaluator, losses

    def obey(self, snapshot: Snapshot) -> None:
        """Do what the leader says until it says to go on."""
        orders: dict[str, Callable[..., Any]] = {
            "fill": self._sharded.fill,
            "release": self._sharded.release,
            "snapshot": snapshot,
            "evaluate": self._evaluate,
            "losses": self._measure_losses,
        }
        while (message := _hear(self._team))[0] != "go on":
            orders[message[0]](*message[1:])

    def _evaluate(self, beam_search: bool, ranks: Any) -> None:
        self._evaluator.assist(
            self._sharded.whole, beam_search=beam_search, ranks=ranks, team=self._team
        )

    def _measure_losses(self) -> None:
        assert self._losses is not None
        self._losses.measure(self._sharded.whole, self._team)


def _agree(team: Team, preparation: Preparation, plan_digest: str) -> None:
    team.agree("windows", preparation.windows.digest())
    team.agree("questions", plan_digest)


def _hear(team: Team) -> tuple[Any, ...]:
    message = team.hear()
    if message[0] == "stop":
        raise RunStopped(message[1], Path(message[2]))
    return message


def _wait_for(team: Team, word: str) -> tuple[Any, ...]:
    found, *rest = _hear(team)
    assert found == word, f"{found} where {word} was due"
    return tuple(rest)


def _read(state_file: str | None) -> State | None:
    if state_file is None:
        return None
    state: State = torch.load(state_file, map_location="cpu", weights_only=True, mmap=True)
    return state
