"""The loop's scorer: every candidate of every question in one pass over each prompt.

A group is read as one sequence (`trie.py`): the prefix, then the tree of its answers, with explicit
positions (prefix length + depth) and an explicit mask (the prefix, a node's own ancestors, itself).
No KV cache and no copies of the prompt. The head is applied in float32 to the rows that are read.

What is silently wrong in transformers and avoided here: a boolean mask under eager attention (the
mask is additive), and explicit positions with the default `use_cache=True`.

Letters: B sequences, T padded length, R rows read, K answer tokens, V vocabulary, D hidden size,
E answer tokens of the whole plan.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from oocr_influence.evaluation.float32_head import Float32Head
from oocr_influence.evaluation.plain import answer_logprobs
from oocr_influence.evaluation.plan import EvalPlan
from oocr_influence.evaluation.scores import Scores, evaluation_mode, model_device, put_together
from oocr_influence.evaluation.trie import TreeBatch, lay_out
from oocr_influence.models.head import has_plain_head
from oocr_influence.models.team import ALONE, Team

logger = logging.getLogger(__name__)

PROBED_GROUPS = 3
PROBED_PATHS = 4  # of each probed group
# Largest difference from the plain scorer, in nats a token, that is still rounding. Tiny models of
# four families differ by at most 0.07 in bf16 and 0.012 in fp16, and by 2.4 and more once the mask
# leaks.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4, torch.bfloat16: 0.5, torch.float16: 0.1}


def score_tree(
    model: Any,
    plan: EvalPlan,
    batches: Sequence[TreeBatch],
    progress: Callable[[int], None] | None = None,
    team: Team = ALONE,
) -> Scores:
    """Score every path of `batches`; `progress` is told the number of groups just finished.

    Processes of a team each take a share of the batches, and all return the scores of all.
    """
    device = model_device(model)
    n_tokens = len(plan.token_E)
    logprob_E = torch.full((n_tokens,), torch.nan, device=device)
    correct_E = torch.zeros(n_tokens, dtype=torch.bool, device=device)
    softmargin_E = torch.full((n_tokens,), torch.nan, device=device)
    with evaluation_mode(model):
        head = Float32Head(model)
        for batch in team.share(batches):
            hidden_RD = read_hidden(model, batch)
            _read_scores(head, batch, hidden_RD, logprob_E, correct_E, softmargin_E)
            if progress is not None:
                progress(len(batch.groups))
    own = Scores(
        plan.digest, logprob_E.cpu().numpy(), correct_E.cpu().numpy(), softmargin_E.cpu().numpy()
    )
    return put_together(own, team)


def tree_mask(subtree_end_BT: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Additive (B, 1, T, T) mask: 0 where query i sees key j, the lowest number elsewhere."""
    place_T = torch.arange(subtree_end_BT.shape[1], device=subtree_end_BT.device)
    query_T1, key_T = place_T[:, None], place_T
    seen_BTT = (key_T <= query_T1) & (query_T1 < subtree_end_BT[:, None, :])
    return additive_mask(seen_BTT, dtype)


def additive_mask(seen_BTT: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """(B, 1, queries, keys) of zeros and the dtype's lowest value from a boolean mask."""
    mask = torch.zeros(seen_BTT.shape, dtype=dtype, device=seen_BTT.device)
    return mask.masked_fill_(~seen_BTT, torch.finfo(dtype).min)[:, None]


def read_hidden(model: Any, batch: TreeBatch) -> torch.Tensor:
    """Final hidden states (R, D) of the rows that are read."""
    device = model_device(model)
    embeddings = model.get_input_embeddings()
    output = model.get_decoder()(
        input_ids=batch.ids_BT.to(device),
        attention_mask=tree_mask(batch.subtree_end_BT.to(device), embeddings.weight.dtype),
        position_ids=batch.positions_BT.to(device),
        use_cache=False,
        return_dict=True,
    )
    hidden_BTD: torch.Tensor = output.last_hidden_state
    return hidden_BTD.flatten(0, 1)[batch.read_R.to(hidden_BTD.device)]


def _read_scores(
    head: Float32Head,
    batch: TreeBatch,
    hidden_RD: torch.Tensor,
    logprob_E: torch.Tensor,
    correct_E: torch.Tensor,
    softmargin_E: torch.Tensor,
) -> None:
    """Fill in the scores of this batch's answer tokens."""
    n_rows = len(hidden_RD)
    starts = list(range(0, n_rows, head.rows_at_once))
    cuts = torch.searchsorted(batch.row_K, torch.tensor([*starts, n_rows])).tolist()
    for start, first, last in zip(starts, cuts[:-1], cuts[1:], strict=True):
        logits_RV = head.logits(hidden_RD[start : start + head.rows_at_once])
        device = logits_RV.device
        row_K = batch.row_K[first:last].to(device) - start
        token_K = batch.token_K[first:last].to(device)
        entry_K = batch.entry_K[first:last].to(logprob_E.device)
        logit_K = logits_RV[row_K, token_K]
        logprob_K = logit_K - logits_RV.logsumexp(-1)[row_K]
        logprob_E[entry_K] = logprob_K.to(logprob_E.device)
        right = batch.right_K[first:last]
        if right.any():
            # The right logit is left out before the logsumexp: 1 - p cancels where p is near one.
            others_KV = logits_RV[row_K[right.to(device)]]
            others_KV.scatter_(1, token_K[right.to(device)][:, None], -torch.inf)
            right_K = logit_K[right.to(device)]
            entry_K = entry_K[right.to(entry_K.device)]
            correct_E[entry_K] = (right_K > others_KV.amax(-1)).to(correct_E.device)
            softmargin_E[entry_K] = (right_K - others_KV.logsumexp(-1)).to(softmargin_E.device)


def probe(model: Any, plan: EvalPlan, token_budget: int) -> str | None:
    """Score a few of the plan's own groups both ways; say why the tree cannot be used, or None.

    The tree is wrong for a model whose attention ignores the mask or the positions, that sees only
    a window shorter than the sequence, or that scales or caps its logits behind the head.
    """
    if not plan.prefixes:
        return None
    groups = _groups_to_probe(plan)
    try:
        scores = score_tree(model, plan, lay_out(plan, token_budget, groups))
    except torch.OutOfMemoryError:
        raise
    except (
        AttributeError,
        IndexError,
        NotImplementedError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as e:
        return f"{type(model).__name__} cannot run it: {type(e).__name__}: {e}"
    allowed = tolerance(model)
    with evaluation_mode(model):
        for group in groups:
            for path in _paths_to_probe(plan, group):
                plain_K = answer_logprobs(model, plan.prefixes[group], plan.answer(path)).numpy()
                tree_K = scores.logprob_E[slice(*plan.first_token_P[path : path + 2].tolist())]
                if not np.isfinite(plain_K).all():
                    return None  # the weights are at fault; the metrics name the question
                difference = float(np.abs(plain_K - tree_K).max())
                if not difference <= allowed:
                    return (
                        f"{type(model).__name__} scores a token {difference:.2g} nats apart "
                        f"(allowed: {allowed:.2g})"
                    )
    # A cap at 30 hides in rounding while logits are small, and not in later checkpoints.
    if not has_plain_head(model):
        return f"{type(model).__name__} changes its logits behind the head"
    return None


def tolerance(model: Any) -> float:
    """Nats a token that rounding may change in this model."""
    return TOLERANCE.get(model.get_input_embeddings().weight.dtype, TOLERANCE[torch.bfloat16])


def _groups_to_probe(plan: EvalPlan) -> list[int]:
    """The longest prefix, the most answers, and the shortest prefix with several answers."""
    length_G = np.array([len(prefix) for prefix in plan.prefixes])
    answers_G = np.diff(plan.first_path_G)
    shortest = np.where(answers_G > 1, length_G, length_G.max() + 1)
    chosen = [int(length_G.argmax()), int(answers_G.argmax()), int(shortest.argmin())]
    return list(dict.fromkeys(chosen))[:PROBED_GROUPS]


def _paths_to_probe(plan: EvalPlan, group: int) -> list[int]:
    """The longest answers: their last tokens have the most to see, and the most to leave out."""
    first, last = plan.first_path_G[group : group + 2].tolist()
    lengths = plan.path_length_P[first:last]
    return [first + int(i) for i in np.argsort(-lengths, kind="stable")[:PROBED_PATHS]]
