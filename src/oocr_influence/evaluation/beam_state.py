"""The bookkeeping of a beam search, as tensors for many prompts at once.

A prompt has W running beams and up to W finished ones. A step extends every running beam by every
token and keeps the K best by summed log-probability. Those that ended (EOS, or the last step)
compete for the finished places by log-probability a token if they are among the best W; the best W
that did not end run on. A prompt is closed once its best running beam, at its present length, can
no longer beat its worst finished one. This is the rule of transformers' beam search with its
defaults, so that results are the same.

Letters: B prompts, W beams, K continuations kept a step, L most new tokens, V vocabulary.
"""

from __future__ import annotations

import torch

NO_CHANCE = -1e9  # a score that loses against every real one and stays finite


class BeamState:
    """Running and finished beams of B prompts; `advance` takes one step."""

    def __init__(
        self, n_prompts: int, n_beams: int, n_steps: int, eos: list[int], device: torch.device
    ) -> None:
        self.step = 0
        """Tokens chosen so far."""
        self.n_kept = max(2, 1 + len(eos)) * n_beams
        self._n_steps, self._n_beams = n_steps, n_beams
        self._eos = torch.tensor(eos, dtype=torch.int64, device=device)
        shape = (n_prompts, n_beams, n_steps)
        self._tokens_BWL = torch.zeros(shape, dtype=torch.int64, device=device)
        self._slot_BWL = torch.zeros(shape, dtype=torch.int64, device=device)
        """Place within its step's W cache entries of each of a running beam's tokens."""
        self._score_BW = torch.full((n_prompts, n_beams), NO_CHANCE, device=device)
        self._score_BW[:, 0] = 0
        self._done_tokens_BWL = torch.zeros(shape, dtype=torch.int64, device=device)
        self._done_length_BW = torch.zeros(shape[:2], dtype=torch.int64, device=device)
        self._done_score_BW = torch.full((n_prompts, n_beams), NO_CHANCE, device=device)
        self._is_done_BW = torch.zeros(shape[:2], dtype=torch.bool, device=device)
        self._open_B = torch.ones(n_prompts, dtype=torch.bool, device=device)

    @property
    def done(self) -> bool:
        """Whether no further step can change a result."""
        return self.step == self._n_steps or not bool(self._open_B.any())

    def newest_tokens(self) -> torch.Tensor:
        """Last token (B, W) of each running beam."""
        return self._tokens_BWL[:, :, self.step - 1]

    def seen(self) -> torch.Tensor:
        """Which of the W cache entries of each step so far a beam sees: boolean (B, W, step*W)."""
        slots_BWL = self._slot_BWL[:, :, : self.step]
        seen_BWLW = torch.nn.functional.one_hot(slots_BWL, self._n_beams).bool()
        return seen_BWLW.flatten(2)

    def advance(self, logprob_RK: torch.Tensor, token_RK: torch.Tensor) -> None:
        """Choose the next token of every beam from its best ones; R = B*W rows, K best of each."""
        n_prompts, n_beams = self._score_BW.shape
        n_each = logprob_RK.shape[1]
        total_BWK = logprob_RK.view(n_prompts, n_beams, n_each) + self._score_BW[:, :, None]
        total_BK, index_BK = total_BWK.flatten(1).topk(self.n_kept)
        parent_BK = index_BK // n_each
        token_BK = token_RK.view(n_prompts, -1).gather(1, index_BK)
        tokens_BKL = _pick(self._tokens_BWL, parent_BK)
        tokens_BKL[:, :, self.step] = token_BK
        slots_BKL = _pick(self._slot_BWL, parent_BK)
        self.step += 1
        ended_BK = torch.isin(token_BK, self._eos)
        if self.step == self._n_steps:
            ended_BK = torch.ones_like(ended_BK)
        self._finish(total_BK, tokens_BKL, ended_BK)
        self._run_on(total_BK, tokens_BKL, slots_BKL, ended_BK)
        best_possible_B = self._score_BW[:, 0] / self.step
        worst_BW = self._done_score_BW.amin(1, keepdim=True).expand(-1, n_beams)
        worst_BW = torch.where(self._is_done_BW, worst_BW, NO_CHANCE)
        self._open_B &= (best_possible_B[:, None] > worst_BW).any(1)

    def _run_on(
        self,
        total_BK: torch.Tensor,
        tokens_BKL: torch.Tensor,
        slots_BKL: torch.Tensor,
        ended_BK: torch.Tensor,
    ) -> None:
        self._score_BW, best_BW = (total_BK + NO_CHANCE * ended_BK).topk(self._n_beams)
        self._tokens_BWL = _pick(tokens_BKL, best_BW)
        self._slot_BWL = _pick(slots_BKL, best_BW)
        # The new token of beam w becomes entry w of this step in the cache.
        self._slot_BWL[:, :, self.step - 1] = torch.arange(self._n_beams, device=best_BW.device)

    def _finish(
        self, total_BK: torch.Tensor, tokens_BKL: torch.Tensor, ended_BK: torch.Tensor
    ) -> None:
        among_best_K = torch.arange(self.n_kept, device=total_BK.device) < self._n_beams
        finishes_BK = ended_BK & among_best_K
        admitted_BK = finishes_BK & self._open_B[:, None]
        score_BK = torch.where(admitted_BK, total_BK / self.step, 2 * NO_CHANCE)
        all_scores = torch.cat([self._done_score_BW, score_BK], 1)
        self._done_score_BW, best_BW = all_scores.topk(self._n_beams)
        self._done_tokens_BWL = _pick(torch.cat([self._done_tokens_BWL, tokens_BKL], 1), best_BW)
        lengths = torch.cat(
            [self._done_length_BW, torch.full_like(best_BW[:, :1], self.step).expand_as(total_BK)],
            1,
        )
        self._done_length_BW = lengths.gather(1, best_BW)
        self._is_done_BW = torch.cat([self._is_done_BW, admitted_BK], 1).gather(1, best_BW)

    def finished(self, n_best: int) -> list[list[tuple[list[int], float]]]:
        """Tokens and summed log-probability of each prompt's best completions, best first."""
        tokens, lengths = self._done_tokens_BWL.tolist(), self._done_length_BW.tolist()
        sums = (self._done_score_BW.double() * self._done_length_BW).tolist()
        return [
            [(row[:length], total) for row, length, total in zip(*beams, strict=True)][:n_best]
            for beams in zip(tokens, lengths, sums, strict=True)
        ]


def _pick(values_BWL: torch.Tensor, index_BK: torch.Tensor) -> torch.Tensor:
    """Rows `index_BK` of each prompt: (B, K, L)."""
    return values_BWL.gather(1, index_BK[:, :, None].expand(-1, -1, values_BWL.shape[2]))
