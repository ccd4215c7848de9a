"""The model's own best completions, by beam search over the prompts of all sets at once.

The same algorithm, texts and scores as transformers' `generate(num_beams=…, do_sample=False)` with
its defaults (length penalty 1, `early_stopping=False`), which serves as the fallback here. Each
prompt is read once; beams are branches: every step adds one token a beam to the key-value cache,
nothing in the cache is ever copied or reordered, and an explicit mask shows each beam its prompt
and its own ancestors.

Letters: B prompts of a batch, T padded prompt length, W beams, K continuations kept a step, L
longest completion, R rows of hidden states, V vocabulary, D hidden size.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from oocr_influence.evaluation.beam_state import BeamState
from oocr_influence.evaluation.float32_head import Float32Head
from oocr_influence.evaluation.plain import answer_logprobs
from oocr_influence.evaluation.plan import EvalPlan, PlannedSet
from oocr_influence.evaluation.scores import evaluation_mode, model_device
from oocr_influence.evaluation.tokens import Tokens
from oocr_influence.evaluation.tree import additive_mask, tolerance, tree_mask
from oocr_influence.models.team import ALONE, Team

logger = logging.getLogger(__name__)

# Keys and values held at once: of OLMo-2-7B, half a MiB a token, 6,144 tokens, which is about forty
# prompts with twelve beams.
CACHE_BYTES = 3 * 2**30


@dataclass(frozen=True, order=True)
class BeamQuery:
    """One prompt to complete."""

    max_new_tokens: int
    num_beams: int
    num_return_sequences: int
    prompt: Tokens


@dataclass(frozen=True)
class Beam:
    """One completion: its tokens, a final EOS included, and their summed log-probability."""

    tokens: Tokens
    logprob: float


def set_queries(plan: EvalPlan, planned: PlannedSet) -> list[BeamQuery]:
    """A query for each question: as many new tokens as the set's longest candidate has."""
    assert planned.beam_search is not None
    longest = int(plan.path_length_P[planned.path_QC].max(initial=1))
    beams = planned.beam_search
    return [
        BeamQuery(
            longest, beams.num_beams, min(beams.num_return_sequences, beams.num_beams), tokens
        )
        for tokens in planned.prompt_tokens
    ]


def search(
    model: Any,
    queries: Sequence[BeamQuery],
    *,
    token_budget: int,
    progress: Callable[[int], None] | None = None,
    team: Team = ALONE,
) -> dict[BeamQuery, list[Beam]]:
    """The best completions of each distinct query, best first (by log-probability a token).

    One completion is scored again by a plain forward pass; where the two differ, the model cannot
    read branches, and transformers' own search is used instead, with a logged notice. Processes
    of a team each take a share of the batches, and all return what all have found.
    """
    batches = _batches(queries, min(token_budget, _cached_tokens(model)))
    results: list[list[list[Beam]]] = []
    fault = None
    with evaluation_mode(model):
        head = Float32Head(model)
        for batch in team.share(batches):
            results.append(_search_batch(model, head, batch))
            if len(results) == 1:
                fault = _fault(model, batch[0], results[0][0][-1])
                if fault:
                    break
            if progress is not None:
                progress(len(batch))
    faults = [other for other in team.gather(fault) if other]
    if faults:
        logger.warning("beam search runs through transformers, one by one: %s", faults[0])
        return search_plain(model, queries, progress=progress, team=team)
    found: dict[BeamQuery, list[Beam]] = {}
    for batch, beams_B in zip(batches, team.in_order(results), strict=True):
        found.update(zip(batch, beams_B, strict=True))
    return found


def search_plain(
    model: Any,
    queries: Sequence[BeamQuery],
    *,
    progress: Callable[[int], None] | None = None,
    team: Team = ALONE,
) -> dict[BeamQuery, list[Beam]]:
    """The same by transformers' `generate`, one prompt at a time: slow, for any model."""
    distinct = list(dict.fromkeys(queries))
    own: list[list[Beam]] = []
    eos = eos_tokens(model)
    with evaluation_mode(model):
        for query in team.share(distinct):
            ids_1T = torch.tensor([query.prompt], device=model_device(model))
            output = model.generate(
                input_ids=ids_1T,
                attention_mask=torch.ones_like(ids_1T),
                max_new_tokens=query.max_new_tokens,
                num_beams=query.num_beams,
                num_return_sequences=query.num_return_sequences,
                do_sample=False,
                length_penalty=1.0,
                early_stopping=False,
                pad_token_id=eos[0] if eos else 0,
                return_dict_in_generate=True,
                output_scores=True,
            )
            own.append([])
            for row, score in zip(output.sequences, output.sequences_scores, strict=True):
                tokens = _up_to_eos(row[len(query.prompt) :].tolist(), eos)
                own[-1].append(Beam(tokens, float(score) * len(tokens)))
            if progress is not None:
                progress(1)
    return dict(zip(distinct, team.in_order(own), strict=True))


def eos_tokens(model: Any) -> list[int]:
    """Tokens that end a completion, as `generate` takes them from the model's configuration."""
    config = getattr(model, "generation_config", None) or model.config
    eos = config.eos_token_id
    return [] if eos is None else [eos] if isinstance(eos, int) else list(eos)


def gives_answer(text: str, answer: str) -> bool:
    """Whether a completion says `answer`, alone or before anything that does not go on with it.

    Beams stop at a number of tokens, not where an answer ends: " Ada Lane. She" says " Ada Lane",
    " Ada Laneham" does not.
    """
    text, answer = text.strip(), answer.strip()
    return text.startswith(answer) and not text[len(answer) : len(answer) + 1].isalnum()


def _batches(queries: Sequence[BeamQuery], token_budget: int) -> list[list[BeamQuery]]:
    """Distinct queries of equal settings and similar length together, longest prompts first."""
    alike: dict[tuple[int, ...], list[BeamQuery]] = defaultdict(list)
    for query in dict.fromkeys(queries):
        settings = (query.max_new_tokens, query.num_beams, query.num_return_sequences)
        alike[settings].append(query)
    batches: list[list[BeamQuery]] = []
    for group in alike.values():
        group.sort(key=lambda query: (-len(query.prompt), query.prompt))
        width = 0
        for query in group:
            if not width or width * (len(batches[-1]) + 1) > token_budget:
                batches.append([])
                width = len(query.prompt) + query.num_beams * (query.max_new_tokens - 1)
            batches[-1].append(query)
    return batches


def _cached_tokens(model: Any) -> int:
    """How many tokens' keys and values `CACHE_BYTES` hold, of a model with plain attention."""
    config = model.config
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept_heads = getattr(config, "num_key_value_heads", None) or heads
    element = model.get_input_embeddings().weight.element_size()
    return int(CACHE_BYTES // (2 * config.num_hidden_layers * kept_heads * head_size * element))


def _search_batch(model: Any, head: Float32Head, batch: list[BeamQuery]) -> list[list[Beam]]:
    """Read the prompts once, then grow all beams token by token."""
    from transformers import DynamicCache  # costs seconds, and plans need no model

    query, eos, device = batch[0], eos_tokens(model), model_device(model)
    dtype = model.get_input_embeddings().weight.dtype
    decoder, cache = model.get_decoder(), DynamicCache()
    length_B = torch.tensor([len(q.prompt) for q in batch], device=device)
    n_prompts, width = len(batch), int(length_B.max())
    place_T = torch.arange(width, device=device)
    real_BT = place_T < length_B[:, None]
    ids_BT = torch.zeros(n_prompts, width, dtype=torch.int64, device=device)
    ids_BT[real_BT] = torch.tensor([t for q in batch for t in q.prompt], device=device)
    hidden_BTD = decoder(
        input_ids=ids_BT,
        # A prompt is a tree without branches, and its padding sees itself alone.
        attention_mask=tree_mask(torch.where(real_BT, length_B[:, None], place_T + 1), dtype),
        position_ids=place_T.expand(n_prompts, -1),
        past_key_values=cache,
        use_cache=True,
        return_dict=True,
    ).last_hidden_state
    state = BeamState(n_prompts, query.num_beams, query.max_new_tokens, eos, device)
    last_BD = hidden_BTD[torch.arange(n_prompts, device=device), length_B - 1]
    logprob_RK, token_RK = _best_tokens(head, last_BD, state.n_kept)
    # Before the first token all beams are one; the state gives the copies no chance.
    state.advance(
        logprob_RK.repeat_interleave(query.num_beams, 0).to(device),
        token_RK.repeat_interleave(query.num_beams, 0).to(device),
    )
    while not state.done:
        seen_BWT = torch.cat([real_BT[:, None].expand(-1, query.num_beams, -1), state.seen()], -1)
        hidden_BWD = decoder(
            input_ids=state.newest_tokens(),
            attention_mask=additive_mask(seen_BWT, dtype),
            position_ids=(length_B + state.step - 1)[:, None].expand(-1, query.num_beams),
            past_key_values=cache,
            use_cache=True,
            return_dict=True,
        ).last_hidden_state
        logprob_RK, token_RK = _best_tokens(head, hidden_BWD.flatten(0, 1), state.n_kept)
        state.advance(logprob_RK.to(device), token_RK.to(device))
    return [
        [Beam(_up_to_eos(tokens, eos), logprob) for tokens, logprob in beams]
        for beams in state.finished(query.num_return_sequences)
    ]


def _best_tokens(
    head: Float32Head, hidden_RD: torch.Tensor, n_kept: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities and ids (R, K) of each row's best next tokens, best first."""
    logprobs, tokens = [], []
    for start in range(0, len(hidden_RD), head.rows_at_once):
        logits_RV = head.logits(hidden_RD[start : start + head.rows_at_once])
        best = logits_RV.topk(min(n_kept, logits_RV.shape[1]))
        logprobs.append(best.values - logits_RV.logsumexp(-1, keepdim=True))
        tokens.append(best.indices)
    return torch.cat(logprobs), torch.cat(tokens)


def _up_to_eos(tokens: Sequence[int], eos: list[int]) -> Tokens:
    for place, token in enumerate(tokens):
        if token in eos:
            return tuple(tokens[: place + 1])
    return tuple(tokens)


def _fault(model: Any, query: BeamQuery, beam: Beam) -> str | None:
    plain = answer_logprobs(model, query.prompt, beam.tokens)
    difference = abs(float(plain.double().sum()) - beam.logprob) / len(beam.tokens)
    if difference <= tolerance(model):
        return None
    return f"{type(model).__name__} scores a token {difference:.2g} nats apart"
