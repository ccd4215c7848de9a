"""The metrics of a page: what each is called, what unit it has, which end is good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Metric:
    """A column of `evaluations`, as a page tells of it."""

    key: str
    """Its column of `questions`."""
    column: str
    """Its mean's column of `evaluations`."""
    label: str
    explained: str
    better: str | None
    """low, high, or None where nobody says."""
    ranks: bool = False
    """Whether a guess has (n + 1) / 2 of it."""
    swapped: str | None = None
    """The column of the same mean, graded by another entity's answer."""

    def to_json(self) -> dict[str, Any]:
        told = {"key": self.key, "label": self.label, "explained": self.explained}
        return {**told, "better": self.better, "ranks": self.ranks}


_KNOWN = (
    (
        "rank_tie_averaged",
        "rank of the right answer",
        "place of the right answer among the set's candidates by loss a token, 1 is best; "
        "tied candidates share their places",
        "low",
        True,
    ),
    (
        "accuracy",
        "accuracy",
        "share of questions whose answer's tokens are all the most probable ones",
        "high",
        False,
    ),
    ("loss", "loss of the answer (nats a token)", "mean over the answer's tokens", "low", False),
    (
        "prob",
        "probability of the answer",
        "of the whole answer, the product over its tokens",
        "high",
        False,
    ),
    ("logprob", "log-probability of the answer (nats)", "sum over its tokens", "high", False),
    (
        "softmargin",
        "soft margin (logits)",
        "the right token's logit minus the log-sum-exp of all others, mean over tokens",
        "high",
        False,
    ),
    (
        "rank",
        "strict rank of the right answer",
        "1 + candidates with a strictly lower loss: where answers tie, it flatters",
        "low",
        True,
    ),
    (
        "rank_logprob",
        "rank by log-probability",
        "candidates ordered by summed log-probability, not by loss a token",
        "low",
        True,
    ),
    (
        "rank_prior_corrected",
        "rank, corrected for prior",
        "each candidate's loss minus its mean over the set's prompts",
        "low",
        True,
    ),
    (
        "rank_step0_corrected",
        "rank, corrected for step 0",
        "each candidate's loss minus the untouched model's",
        "low",
        True,
    ),
    (
        "rank_without_few_shot",
        "rank without shown answers",
        "answers shown as examples before the question are no candidates",
        "low",
        False,
    ),
    ("normalised_rank", "normalised rank", "(strict rank − 1) / (candidates − 1)", "low", False),
    ("beam_found", "found by beam search", "share of answers among the beam", "high", False),
    (
        "beam_prob_right",
        "probability in the beam",
        "of the right answer, 0 where it was not found",
        "high",
        False,
    ),
)
_LEFT_OUT = {"n_candidates", "n_tied", "softmargin_sum"}


def metrics_of(columns: Sequence[str]) -> list[Metric]:
    """The metrics that a table of means has, ours in a fixed order, then those of others."""
    known = {key: (label, told, better, ranks) for key, label, told, better, ranks in _KNOWN}
    by_key = {column.removeprefix("mean_"): column for column in columns}
    own = [key for key in by_key if key not in known and not key.endswith("_swapped")]
    found = []
    for key in [key for key in known if key in by_key] + sorted(own):
        label, told, better, ranks = known.get(key, (key, "a metric of your own", None, False))
        # The swapped answer's rank is the tie-averaged one.
        swapped = {"rank_tie_averaged": "rank_swapped", "rank": ""}.get(key, f"{key}_swapped")
        found.append(Metric(key, by_key[key], label, told, better, ranks, by_key.get(swapped)))
    return [metric for metric in found if metric.key not in _LEFT_OUT]


def main_metric(metrics: Sequence[Metric], present: Mapping[str, bool]) -> Metric | None:
    """What is shown first: the tie-averaged rank where it was measured, else the next known."""
    order = ("rank_tie_averaged", "rank", "accuracy", "loss")
    ranked = {metric.key: metric for metric in metrics}
    return next((ranked[key] for key in order if present.get(key) and key in ranked), None)


__all__ = ["Metric", "main_metric", "metrics_of"]
