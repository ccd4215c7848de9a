"""A plan out of the cache is the plan, field by field and in what a model scores by it."""

import dataclasses
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from oocr_influence.datasets.document_dataset import EvalDatasetBuilder
from oocr_influence.evaluation import plan_cache
from oocr_influence.evaluation.evaluate import Evaluator
from oocr_influence.evaluation.plan import build_plan
from oocr_influence.evaluation.plan_cache import suite_digest
from oocr_influence.results.cache import Cache

SAMPLE = Path(__file__).parents[1] / "samples" / "earlier_structured_dataset.json"


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


@pytest.fixture
def planned(monkeypatch):
    """How often something was planned."""
    calls = []

    def build(*given, **named):
        calls.append(1)
        return build_plan(*given, **named)

    monkeypatch.setattr(plan_cache, "build_plan", build)
    return calls


def cached_plan(builders, tokenizer, cache):
    return plan_cache.cached_plan(builders, tokenizer, suite_digest(builders, tokenizer), cache)


def same(one, other):
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if dataclasses.is_dataclass(one):
        fields = [field.name for field in dataclasses.fields(one)]
        return all(same(getattr(one, name), getattr(other, name)) for name in fields)
    if isinstance(one, dict) and all(map(dataclasses.is_dataclass, one.values())):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("kind", ["bos", "no_bos", "adds_bos", "merging"])
def test_a_cached_plan_is_the_built_one_field_by_field(builders, tokenizers, cache, planned, kind):
    tokenizer = tokenizers[kind]
    built = build_plan(builders, tokenizer)
    first = cached_plan(builders, tokenizer, cache)
    again = cached_plan(builders, tokenizer, cache)
    assert len(planned) == 1
    assert same(built, first)
    assert same(built, again)
    assert not same(built, dataclasses.replace(again, token_E=again.token_E + 1))


def test_a_cached_plan_scores_the_same_bits(builders, tokenizers, olmo, plan, cache):
    cached_plan(builders, tokenizers["bos"], cache)
    one = Evaluator(plan).evaluate(olmo)
    other = Evaluator(cached_plan(builders, tokenizers["bos"], cache)).evaluate(olmo)
    assert one.records == other.records
    assert one.eval_sets == other.eval_sets
    assert one.scores.logprob_E.tobytes() == other.scores.logprob_E.tobytes()


def test_any_other_text_order_metric_or_tokenizer_is_another_suite(builders, tokenizers):
    tokenizer = tokenizers["bos"]
    changed = {name: builder.model_copy(deep=True) for name, builder in builders.items()}
    changed["gen"].eval_points[3].fact_template.prompt += "!"
    metric = {**builders, "gen": builders["gen"].model_copy(update={"metrics": []})}
    digests = [
        suite_digest(builders, tokenizer),
        suite_digest(changed, tokenizer),
        suite_digest(metric, tokenizer),
        suite_digest(dict(reversed(builders.items())), tokenizer),
        suite_digest(builders, tokenizers["no_bos"]),
        suite_digest(builders, tokenizers["merging"]),
    ]
    assert len(set(digests)) == len(digests)
    copied = {
        name: EvalDatasetBuilder.model_validate_json(builder.model_dump_json())
        for name, builder in builders.items()
    }
    assert suite_digest(copied, tokenizer) == digests[0]


def test_a_saved_tokenizer_is_the_same_one_used_or_not(builders, tokenizers, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = tokenizers["bos"]
    tokenizer(["a", "b c"], padding=False, truncation=True, max_length=2)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert suite_digest(builders, loaded) == suite_digest(builders, tokenizer)


def test_a_damaged_plan_is_made_anew(builders, tokenizers, cache, planned, caplog):
    cached_plan(builders, tokenizers["bos"], cache)
    [path] = cache.root.glob("plans/*/plan.npz")
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    plan = cached_plan(builders, tokenizers["bos"], cache)
    assert len(planned) == 2
    assert "damaged" in caplog.text
    assert same(plan, build_plan(builders, tokenizers["bos"]))


def test_other_sources_make_another_plan(builders, tokenizers, cache, planned, monkeypatch):
    cached_plan(builders, tokenizers["bos"], cache)
    monkeypatch.setattr(plan_cache, "sources_digest", lambda: "another version")
    cached_plan(builders, tokenizers["bos"], cache)
    assert len(planned) == 2


def test_without_a_cache_nothing_is_kept(builders, tokenizers, cache, planned):
    cached_plan(builders, tokenizers["bos"], None)
    cached_plan(builders, tokenizers["bos"], None)
    assert len(planned) == 2
    assert not cache.root.exists()


def test_two_processes_plan_once(tmp_path):
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        from oocr_influence.datasets.document_dataset import load_structured_dataset
        from oocr_influence.evaluation import plan_cache
        from oocr_influence.models.tiny import tiny_tokenizer
        from oocr_influence.results.cache import Cache
        build = plan_cache.build_plan
        def planned(*given):
            with open(sys.argv[3], "a") as file:
                file.write("planned\\n")
            return build(*given)
        plan_cache.build_plan = planned
        builders = load_structured_dataset(sys.argv[1]).eval_dataset_builders
        tokenizer, cache = tiny_tokenizer(), Cache(Path(sys.argv[2]))
        suite = plan_cache.suite_digest(builders, tokenizer)
        print(plan_cache.cached_plan(builders, tokenizer, suite, cache).digest)
    """)
    paths = [SAMPLE, tmp_path / "cache", tmp_path / "log"]
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, paths)]
    jobs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    digests = [job.communicate(timeout=120)[0] for job in jobs]
    assert digests[0] == digests[1] != ""
    assert (tmp_path / "log").read_text() == "planned\n"
