"""Answers that a model gives when asked again and again, at a temperature.

    samples = sample_answers(model, tokenizer, prompts, n_samples=20, temperature=1.0, seed=0)
    distinct(samples[0])        # {" Marian Holloway": 17, " Marian Hollow": 3}

Every sample has random numbers of its own, drawn from (seed, prompt, number of the sample), so that
neither the batch nor the number of samples changes any: only prompts of equal length share a
forward pass, without padding, and a token is the first whose cumulated probability (float64, over
float32 logits) exceeds the number drawn. Where two batches differ in a logit's last bit, a number
would have to fall between the two sums.

Letters: B prompts of a batch, N samples a prompt, R = B·N rows, T prompt tokens, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from oocr_influence.evaluation.float32_head import float32_head
from oocr_influence.evaluation.scores import evaluation_mode, model_device
from oocr_influence.evaluation.tokens import Tokens, encode

# An answer ends where a sentence or a line does; "St. Ives" ends too early, which grading notices.
STOPS = ("\n", ". ", " Q:")
ROWS = 256  # of a forward pass


def sample_answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    n_samples: int,
    temperature: float = 1.0,
    max_new_tokens: int = 24,
    seed: int = 0,
    batch_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[str]]:
    """`n_samples` completions of each prompt, cut where the answer ends (`cut_answer`).

    `batch_size` is the number of prompts of a forward pass (default: as many as make 256 rows).
    `progress(done, total)` counts prompts. Raises ValueError for a temperature or a number that is
    not positive, and for a prompt without tokens.
    """
    if temperature <= 0 or n_samples < 1 or max_new_tokens < 1:
        raise ValueError(
            f"temperature {temperature}, {n_samples} samples, {max_new_tokens} tokens: each must "
            "be positive"
        )
    tokens = encode(tokenizer, list(prompts))
    if not all(tokens):
        raise ValueError(f"prompt {prompts[tokens.index(())]!r} has no tokens to answer after")
    distinct_prompts = sorted(set(tokens), key=lambda row: (len(row), row))
    size = batch_size or max(1, ROWS // n_samples)
    found: dict[Tokens, list[str]] = {}
    with evaluation_mode(model), float32_head(model):
        for batch in _batches(distinct_prompts, size):
            drawn_RS = torch.stack(
                [
                    _drawn(seed, prompt, sample, max_new_tokens)
                    for prompt in batch
                    for sample in range(n_samples)
                ]
            )
            rows = _generate(model, batch, drawn_RS, temperature, tokenizer.eos_token_id)
            texts = tokenizer.batch_decode(
                rows, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
            for place, prompt in enumerate(batch):
                own = texts[place * n_samples : (place + 1) * n_samples]
                found[prompt] = [cut_answer(text) for text in own]
            if progress is not None:
                progress(len(found), len(distinct_prompts))
    return [found[row] for row in tokens]


def cut_answer(text: str) -> str:
    """The text up to the end of its first line or sentence, without blanks or a full stop there."""
    start = len(text) - len(text.lstrip())
    body = text[start:]
    end = min((place for stop in STOPS if (place := body.find(stop)) >= 0), default=len(body))
    body = body[:end].rstrip()
    return text[:start].replace("\n", " ") + body.removesuffix(".")


def distinct(samples: Sequence[str]) -> dict[str, int]:
    """How often each answer was given, most frequent first, in the order given where equal."""
    return dict(Counter(samples).most_common())


def _generate(
    model: Any,
    prompts: Sequence[Tokens],
    drawn_RS: torch.Tensor,
    temperature: float,
    eos: int | None,
) -> list[list[int]]:
    """New tokens of each row, EOS left out; each prompt is read once, its samples are branches."""
    device = model_device(model)
    n_samples = len(drawn_RS) // len(prompts)
    ids_BT = torch.tensor(prompts, device=device)
    output = model(input_ids=ids_BT, use_cache=True, return_dict=True)
    cache = output.past_key_values
    cache.batch_repeat_interleave(n_samples)
    logits_RV = output.logits[:, -1].repeat_interleave(n_samples, 0)
    rows: list[list[int]] = [[] for _ in drawn_RS]
    going = [True] * len(rows)
    for step in range(drawn_RS.shape[1]):
        token_R = _choose(logits_RV, drawn_RS[:, step], temperature)
        for row, token in enumerate(token_R.tolist()):
            going[row] = going[row] and token != eos
            if going[row]:
                rows[row].append(token)
        if not any(going) or step + 1 == drawn_RS.shape[1]:
            break
        output = model(
            input_ids=token_R[:, None].to(device),
            past_key_values=cache,
            use_cache=True,
            return_dict=True,
        )
        cache, logits_RV = output.past_key_values, output.logits[:, -1]
    return rows


def _choose(logits_RV: torch.Tensor, drawn_R: torch.Tensor, temperature: float) -> torch.Tensor:
    """The first token whose cumulated probability exceeds the number drawn, on the CPU."""
    probs_RV = (logits_RV.float().cpu().double() / temperature).softmax(-1)
    sums_RV = probs_RV.cumsum(-1)
    wanted_R1 = (drawn_R * sums_RV[:, -1])[:, None]
    return torch.searchsorted(sums_RV, wanted_R1, right=True)[:, 0].clamp(
        max=logits_RV.shape[1] - 1
    )


def _drawn(seed: int, prompt: Tokens, sample: int, count: int) -> torch.Tensor:
    """Numbers in [0, 1) of one sample; more of them begin with the same."""
    key = f"sampled_answer:{seed}:{','.join(map(str, prompt))}:{sample}"
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    return torch.stack(
        [torch.rand((), generator=generator, dtype=torch.float64) for _ in range(count)]
    )


def _batches(prompts: Sequence[Tokens], size: int) -> Iterator[list[Tokens]]:
    alike: dict[int, list[Tokens]] = defaultdict(list)
    for prompt in prompts:
        alike[len(prompt)].append(prompt)
    for same in alike.values():
        for start in range(0, len(same), size):
            yield same[start : start + size]
