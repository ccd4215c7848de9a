"""The tree scorer and beam search of the evaluation benchmark, and what they are measured against.

A scorer goes from texts to losses a token, (questions, candidates).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from evaluation_suites import BEAMS, Suite

from oocr_influence.evaluation.beam_search import BeamQuery
from oocr_influence.evaluation.evaluate import TOKEN_BUDGET
from oocr_influence.evaluation.metrics import question_metrics, set_means, sum_paths
from oocr_influence.evaluation.plan import EvalPlan
from oocr_influence.evaluation.records import set_records
from oocr_influence.evaluation.scores import Scores
from oocr_influence.evaluation.tokens import encode
from oocr_influence.evaluation.tree import score_tree
from oocr_influence.evaluation.trie import lay_out

Losses = np.ndarray[Any, Any]
Scorer = Callable[[Any, Any, Suite], Losses]


def by_tree(model: Any, tokenizer: Any, suite: Suite) -> Losses:
    """What an evaluation does, from texts to records, once the model is proved to take a tree."""
    plan = suite.plan(tokenizer)
    records = plan_records(plan, score_tree(model, plan, lay_out(plan, TOKEN_BUDGET["cpu"])))
    logprob_QC = np.array([row["candidate_logprobs"] for row in records])
    return -logprob_QC / np.array([row["candidate_n_tokens"] for row in records])


def plan_records(plan: EvalPlan, scores: Scores) -> list[dict[str, Any]]:
    """Metrics and records of all sets."""
    sums = sum_paths(plan, scores)
    records = []
    for planned in plan.sets.values():
        columns = question_metrics(planned, sums)
        set_means(planned, columns)
        records += set_records(plan, planned, columns, sums, scores, None, {})
    return records


def naive(batch_size: int) -> Scorer:
    """Each pair as a row, in the order in which they are asked."""

    def score(model: Any, tokenizer: Any, suite: Suite) -> Losses:
        pad = tokenizer.pad_token_id
        rows = []
        for prompt in suite.prompts:
            start = len(encode(tokenizer, [prompt])[0])
            joint = encode(tokenizer, [prompt + candidate for candidate in suite.candidates])
            rows += [(start, tokens) for tokens in joint]
        losses = []
        with torch.no_grad():
            for first in range(0, len(rows), batch_size):
                batch = rows[first : first + batch_size]
                width = max(len(tokens) for _, tokens in batch)
                ids = torch.tensor([[*t, *[pad] * (width - len(t))] for _, t in batch])
                seen = torch.tensor([[1] * len(t) + [0] * (width - len(t)) for _, t in batch])
                logits = model(input_ids=ids, attention_mask=seen, use_cache=False).logits
                logprobs = (
                    logits.float().log_softmax(-1)[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
                )
                for (start, tokens), row in zip(batch, logprobs, strict=True):
                    losses.append(-float(row[start - 1 : len(tokens) - 1].double().mean()))
        return np.array(losses).reshape(len(suite.prompts), -1)

    return score


def by_lm_eval(model: Any, tokenizer: Any) -> Scorer:
    """lm-evaluation-harness, 64 pairs a batch. A BOS is spelled out, to read what we read."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=64, max_length=2048)
    bos = tokenizer.bos_token or ""

    def score(model: Any, tokenizer: Any, suite: Suite) -> Losses:
        requests = [
            Instance("loglikelihood", {}, (bos + prompt, candidate), 0)
            for prompt in suite.prompts
            for candidate in suite.candidates
        ]
        sums = [logprob for logprob, _ in harness.loglikelihood(requests, disable_tqdm=True)]
        joint = encode(tokenizer, [suite.prompts[0] + text for text in suite.candidates])
        start = len(encode(tokenizer, suite.prompts[:1])[0])
        lengths = [len(tokens) - start for tokens in joint]
        return -np.array(sums).reshape(len(suite.prompts), -1) / np.array(lengths)

    return score


def scorers(model: Any, tokenizer: Any) -> dict[str, Scorer]:
    """The tree first, then its rivals."""
    found: dict[str, Scorer] = {"tree": by_tree, "naive-8": naive(8), "naive-64": naive(64)}
    if find_spec("lm_eval") is None:
        print("lm_eval is not installed: left out (this file's docstring says how)")
    else:
        found["lm-eval"] = by_lm_eval(model, tokenizer)
    return found


def generate(
    model: Any, pad: int, queries: Sequence[BeamQuery], batch_size: int
) -> dict[BeamQuery, list[tuple[int, ...]]]:
    """The same by transformers, prompts of equal settings together in the order asked."""
    found: dict[BeamQuery, list[tuple[int, ...]]] = {}
    by_steps: dict[int, list[BeamQuery]] = {}
    for query in dict.fromkeys(queries):
        by_steps.setdefault(query.max_new_tokens, []).append(query)
    eos = model.generation_config.eos_token_id
    for alike in by_steps.values():
        for first in range(0, len(alike), batch_size):
            batch = alike[first : first + batch_size]
            width = max(len(query.prompt) for query in batch)
            pads = [width - len(query.prompt) for query in batch]
            output = model.generate(
                input_ids=torch.tensor(
                    [[pad] * n + list(q.prompt) for n, q in zip(pads, batch, strict=True)]
                ),
                attention_mask=torch.tensor([[0] * n + [1] * (width - n) for n in pads]),
                max_new_tokens=batch[0].max_new_tokens,
                do_sample=False,
                pad_token_id=pad,
                **BEAMS,
            )
            rows = output[:, width:].tolist()
            k = BEAMS["num_return_sequences"]
            for place, query in enumerate(batch):
                own = [_until(row, eos) for row in rows[place * k : (place + 1) * k]]
                found[query] = own
    return found


def _until(row: list[int], eos: int) -> tuple[int, ...]:
    return tuple(row[: row.index(eos) + 1] if eos in row else row)
