"""The reference scorer: one forward pass for each (prompt, candidate), nothing shared or batched.

Slow and plain on purpose. The tree scorer is tested and probed against it, and models that the tree
cannot serve are scored by it. Logits are float32 whatever the weights are: the head is applied in
float32, and what the model does to its logits afterwards (scaling, capping) stays in force.

Letters: T tokens of prefix and answer, K answer tokens, V vocabulary, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from oocr_influence.evaluation.float32_head import float32_head
from oocr_influence.evaluation.plan import EvalPlan
from oocr_influence.evaluation.scores import Scores, evaluation_mode, model_device, put_together
from oocr_influence.evaluation.tokens import Tokens
from oocr_influence.models.team import ALONE, Team


def score_plain(
    model: Any,
    plan: EvalPlan,
    progress: Callable[[int], None] | None = None,
    team: Team = ALONE,
) -> Scores:
    """Score every path of `plan`; `progress` is told the number of groups just finished.

    Processes of a team each take a share of the groups, and all return the scores of all.
    """
    n_tokens = len(plan.token_E)
    logprob_E = np.full(n_tokens, np.nan, np.float32)
    correct_E = np.zeros(n_tokens, bool)
    softmargin_E = np.full(n_tokens, np.nan, np.float32)
    with evaluation_mode(model):
        for group in team.share(range(len(plan.prefixes))):
            prefix = plan.prefixes[group]
            for path in range(*plan.first_path_G[group : group + 2].tolist()):
                logits_KV = answer_logits(model, prefix, plan.answer(path))
                tokens_K = torch.tensor(plan.answer(path), device=logits_KV.device)
                here = slice(*plan.first_token_P[path : path + 2].tolist())
                logprob_E[here] = _logprobs(logits_KV, tokens_K).cpu().numpy()
                if plan.right_E[here].all():
                    correct_E[here] = _strictly_highest(logits_KV, tokens_K).cpu().numpy()
                    softmargin_E[here] = _softmargins(logits_KV, tokens_K).cpu().numpy()
            if progress is not None:
                progress(1)
    return put_together(Scores(plan.digest, logprob_E, correct_E, softmargin_E), team)


def answer_logits(model: Any, prefix: Tokens, answer: Tokens) -> torch.Tensor:
    """Float32 logits (K, V) that predict each token of `answer`, from one forward pass of both."""
    ids_1T = torch.tensor([[*prefix, *answer]], device=model_device(model))
    with float32_head(model):
        output = model(input_ids=ids_1T, use_cache=False, return_dict=True)
    logits_TV: torch.Tensor = output.logits[0].float()
    return logits_TV[len(prefix) - 1 : -1]


def answer_logprobs(model: Any, prefix: Tokens, answer: Tokens) -> torch.Tensor:
    """Float32 log-probability (K,) of each token of `answer` after `prefix`, on the CPU."""
    logits_KV = answer_logits(model, prefix, answer)
    return _logprobs(logits_KV, torch.tensor(answer, device=logits_KV.device)).cpu()


def _logprobs(logits_KV: torch.Tensor, tokens_K: torch.Tensor) -> torch.Tensor:
    # In float32 on a CPU, log_softmax over a vocabulary of 49,152 is up to 1e-5 too high, token for
    # token; logsumexp rounds both ways.
    return logits_KV.gather(1, tokens_K[:, None])[:, 0] - logits_KV.logsumexp(-1)


def _strictly_highest(logits_KV: torch.Tensor, tokens_K: torch.Tensor) -> torch.Tensor:
    right_K1 = logits_KV.gather(1, tokens_K[:, None])
    at_least_as_high_K = (logits_KV >= right_K1).sum(-1)
    return at_least_as_high_K == 1


def _softmargins(logits_KV: torch.Tensor, tokens_K: torch.Tensor) -> torch.Tensor:
    margins = []
    for logits_V, token in zip(logits_KV, tokens_K.tolist(), strict=True):
        others = torch.cat([logits_V[:token], logits_V[token + 1 :]])
        margins.append(logits_V[token] - others.logsumexp(-1))
    return torch.stack(margins)
