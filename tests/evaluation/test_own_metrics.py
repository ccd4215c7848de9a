"""A metric is one short file: its columns reach the records, its means the results."""

import logging
import re
from pathlib import Path

import numpy as np
import pytest

from oocr_influence.datasets.document_dataset import EvalDatasetBuilder, StructuredDataset
from oocr_influence.evaluation.evaluate import Evaluator
from oocr_influence.evaluation.metrics import load_metric_files, metric, registered
from oocr_influence.evaluation.metrics.registry import _REGISTERED
from oocr_influence.evaluation.plan import build_plan
from oocr_influence.results.evaluation_files import records_table

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


@pytest.fixture(autouse=True)
def registry():
    """What a test registers is gone after it."""
    before = dict(_REGISTERED)
    yield
    _REGISTERED.clear()
    _REGISTERED.update(before)


@pytest.fixture
def documented(tmp_path):
    """The example of docs/metrics.md as a file."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path / "top_three.py"
    path.write_text(code, encoding="utf-8")
    return path


def test_the_documented_example_runs(documented, builders, tokenizers, olmo):
    names = load_metric_files([documented])
    assert names == ["top_three"]
    asked = {name: builder.also_asking(names) for name, builder in builders.items()}
    found = Evaluator(build_plan(asked, tokenizers["bos"])).evaluate(olmo, beam_search=False)
    for row in found.records:
        probs = np.exp(row["candidate_logprobs"])
        right = row["candidate_texts"].index(row["completion"])
        assert row["share_right"] == pytest.approx(probs[right] / probs.sum())
        if row["rank_tie_averaged"] is not None:
            assert row["in_top_three"] == (row["rank_tie_averaged"] <= 3)
    for name, means in found.eval_sets.items():
        rows = [row for row in found.records if row["set"] == name]
        for column in ("share_right", "in_top_three"):
            mean = sum(row[column] for row in rows) / len(rows)
            assert means[f"mean_{column}"] == pytest.approx(mean)
    # A set of right answers alone is scored on all candidates once a metric looks at them.
    assert len(found.records[-1]["candidate_texts"]) == 7
    assert "share_right" in records_table(found.records).column_names


def test_others_are_the_same_with_and_without_it(documented, builders, tokenizers, olmo):
    plain = Evaluator(build_plan(builders, tokenizers["bos"])).evaluate(olmo)
    names = load_metric_files([documented])
    with_own = {**builders, "gen": builders["gen"].also_asking(names)}
    more = Evaluator(build_plan(with_own, tokenizers["bos"])).evaluate(olmo)
    for row, other in zip(plain.records, more.records, strict=True):
        assert row.items() <= other.items()
        assert (other["share_right"] is not None) == (row["set"] == "gen")
    assert plain.eval_sets["bank"] == more.eval_sets["bank"]


def test_a_file_may_be_loaded_twice_but_a_name_belongs_to_one(documented, tmp_path):
    assert load_metric_files([documented, documented]) == ["top_three"] * 2
    other = tmp_path / "other.py"
    other.write_text(documented.read_text(), encoding="utf-8")
    with pytest.raises(ValueError, match=r"other\.py: ValueError: a metric 'top_three'"):
        load_metric_files([other])
    with pytest.raises(ValueError, match="column 'rank' belongs to 'ranks'"):
        metric("mine", columns=["rank"])(lambda asked: {})
    with pytest.raises(ValueError, match="'ranks' is registered already"):
        metric("ranks", columns=["x"])(lambda asked: {})


@pytest.mark.parametrize(
    ("source", "message"),
    [("1 / 0", "ZeroDivisionError"), ("x = 1", "registers no metric")],
)
def test_a_file_that_is_none_is_named(source, message, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(source, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"mine\.py.*{message}"):
        load_metric_files([path])
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_metric_files([tmp_path / "nowhere.py"])


@pytest.mark.parametrize("values", [{"x": np.zeros(3)}, {"y": np.zeros(7)}])
def test_what_a_metric_did_not_register_is_refused(values, builders, tokenizers, olmo):
    metric("mine", columns=["x"])(lambda asked: values)
    one = {"gen": builders["gen"].also_asking(["mine"])}
    with pytest.raises(ValueError, match=r"metric 'mine' gives set 'gen'"):
        Evaluator(build_plan(one, tokenizers["bos"])).evaluate(olmo, beam_search=False)


def test_options_of_the_file_arrive(builder, tokenizers, olmo):
    seen = []

    @metric("mine", columns=["x"])
    def mine(asked):
        seen.append(dict(asked.options))
        return {}

    asked = builder("r", "In {city}:", " {person}", metrics=[{"function_name": "mine", "k": 3}])
    found = Evaluator(build_plan({"r": asked}, tokenizers["bos"])).evaluate(olmo)
    assert seen == [{"k": 3}]
    assert found.eval_sets["r"]["mean_x"] is None
    assert {row["x"] for row in found.records} == {None}


def test_an_unknown_metric_loads_survives_and_is_named_once(builder, tokenizers, olmo, caplog):
    unknown = [{"function_name": "ranks"}, {"function_name": "entropy", "base": [2]}]
    builders = {n: builder(n, "In {city}:", " {person}", metrics=unknown) for n in ("a", "b")}
    dataset = StructuredDataset.model_validate(
        {"document_dataset": {"docs": []}, "eval_dataset_builders": builders}
    )
    text = dataset.model_dump_json(exclude_unset=True)
    again = StructuredDataset.model_validate_json(text)
    assert again.model_dump_json(exclude_unset=True) == text
    assert again.eval_dataset_builders["a"].metrics[1].model_dump() == unknown[1]
    assert "entropy" not in registered()
    with caplog.at_level(logging.WARNING):
        evaluator = Evaluator(build_plan(builders, tokenizers["bos"]))
        found = [evaluator.evaluate(olmo).eval_sets["a"] for _ in range(2)]
    (told,) = [text for text in caplog.messages if "entropy" in text]
    assert told.startswith(
        "no metric is registered as 'entropy': left out; known are accuracy_and_loss, "
        "beam_search, ranks"
    )
    assert told.endswith("(see docs/metrics.md)")
    assert all(means["mean_rank"] >= 1 for means in found)


def test_a_metric_without_a_name_is_a_fault():
    with pytest.raises(ValueError, match="function_name"):
        EvalDatasetBuilder.model_validate({"eval_points": [], "metrics": [{"num_beams": 3}]})
