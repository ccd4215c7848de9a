"""What a model says of a plan: one log-probability for each answer token, and how it was had.

Both scorers (`tree.py`, `plain.py`) return the same `Scores`; every metric is computed from them.

Letters: E answer tokens of all paths of the plan.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from oocr_influence.evaluation.plan import EvalPlan
from oocr_influence.models.compiled import run_eager
from oocr_influence.models.modes import modes_kept
from oocr_influence.models.team import Team

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


class NonFiniteScoreError(ValueError):
    """A model gave a loss that is no finite number, so that no rank means anything."""


@dataclass(frozen=True)
class Scores:
    """Scores of one model on one plan (float32, in nats), aligned with the plan's token_E."""

    plan_digest: str
    logprob_E: Floats
    """Log-probability of each answer token after its prefix and the answer so far."""
    correct_E: Bools
    """Right answers only: the token's logit is strictly above every other. An exact tie, and so a
    row of equal logits, is not correct. False elsewhere."""
    softmargin_E: Floats
    """Right answers only: the token's logit minus logsumexp of all the others. NaN elsewhere."""
    pruned_P: Bools | None = None
    """Where candidates that had lost were not read on (`pruned.py`): which paths these are."""

    def check(self, plan: EvalPlan) -> None:
        """Raise ValueError unless these scores belong to `plan`."""
        if self.plan_digest != plan.digest:
            raise ValueError(
                f"these scores belong to plan {self.plan_digest[:12]}, not to {plan.digest[:12]}: "
                "a baseline must come from the same sets, candidates and tokenizer"
            )

    def check_baseline(self, plan: EvalPlan) -> None:
        """Raise ValueError unless these scores of `plan` have every candidate's log-probability."""
        self.check(plan)
        if self.pruned_P is not None:
            raise ValueError("a baseline needs every candidate's score: score it with ranks='full'")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as .npz, so that another process can take these scores as its baseline."""
        pruned: dict[str, Any] = {} if self.pruned_P is None else {"pruned_P": self.pruned_P}
        with Path(path).open("wb") as file:
            np.savez_compressed(
                file,
                plan_digest=np.array(self.plan_digest),
                logprob_E=self.logprob_E,
                correct_E=self.correct_E,
                softmargin_E=self.softmargin_E,
                **pruned,
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Scores:
        """Read what `save` wrote."""
        with np.load(Path(path), allow_pickle=False) as stored:
            return cls(
                plan_digest=str(stored["plan_digest"]),
                logprob_E=stored["logprob_E"],
                correct_E=stored["correct_E"],
                softmargin_E=stored["softmargin_E"],
                pruned_P=stored.get("pruned_P"),
            )


def asking_attention(model: Any) -> str | None:
    """The attention that a model is asked with: its own, or sdpa where that takes no dense mask."""
    own = getattr(model.config, "_attn_implementation", None)
    return own if own in (None, "sdpa", "eager") else "sdpa"


def put_together(own: Scores, team: Team) -> Scores:
    """The scores of all processes of a team, each of which has scored other paths; for all."""
    if team.size == 1:
        return own
    parts = team.gather(own)
    whole = parts[0]
    for part in parts[1:]:
        whole = Scores(
            own.plan_digest,
            np.where(np.isnan(whole.logprob_E), part.logprob_E, whole.logprob_E),
            whole.correct_E | part.correct_E,
            np.where(np.isnan(whole.softmargin_E), part.softmargin_E, whole.softmargin_E),
        )
    return whole


@contextmanager
def evaluation_mode(model: Any) -> Iterator[None]:
    """Dropout and compilation off, an attention that takes explicit masks; all restored.

    Gradients are off through `no_grad`, not `inference_mode`: some models keep tensors made in the
    forward pass (rotary frequencies that grow with the length), and an inference tensor left in a
    model breaks its next training step.
    """
    attention = getattr(model.config, "_attn_implementation", None)
    asking = asking_attention(model)
    switch = asking != attention and hasattr(model, "set_attn_implementation")
    try:
        if switch:  # flash and flex attention do not take a dense mask
            model.set_attn_implementation(asking)
        with modes_kept(model), torch.no_grad(), run_eager(model):
            model.eval()
            yield
    finally:
        if switch:
            model.set_attn_implementation(attention)


def model_device(model: Any) -> torch.device:
    """Where the token ids go: the device of the input embeddings."""
    device = model.get_input_embeddings().weight.device
    assert isinstance(device, torch.device)
    return device
