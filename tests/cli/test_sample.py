"""`oocr sample` writes a dataset that loads, is the same again, and can be evaluated."""

import json

import pytest
from llm_server import Server, error

from oocr_influence.cli.arguments import UsageError, parse
from oocr_influence.cli.sample import SampleArguments, main
from oocr_influence.datasets.document_dataset import load_structured_dataset
from oocr_influence.evaluation.evaluate import Evaluator
from oocr_influence.evaluation.plan import build_plan
from oocr_influence.models.load import load_model, load_tokenizer
from oocr_influence.models.resolve import resolve_model

pytestmark = pytest.mark.filterwarnings("ignore:.*more than once")


def arguments(sample, tmp_path, **changes):
    values = {
        "structured_dataset": [sample],
        "model": "olmo2-tiny",
        "sets": ["name_mayor_eval_qa_*"],
        "n_samples": 3,
        "max_new_tokens": 6,
        "output": tmp_path / "sampled.json",
    }
    return SampleArguments(**(values | changes))


def test_what_is_written_loads_and_can_be_evaluated(sample, tmp_path, capsys):
    args = arguments(sample, tmp_path)
    assert main(args) == 0
    said = capsys.readouterr().out
    written = load_structured_dataset(args.output)
    names = ["name_mayor_eval_qa_1_no_fs_sampled", "name_mayor_eval_qa_1_with_fs_sampled"]
    assert list(written.eval_dataset_builders) == names
    assert all(name.removesuffix("_sampled") in said for name in names)
    assert written.document_dataset.docs == []
    assert written.metadata["sampling"]["grader"] == "grade_by_rule"
    asked = load_structured_dataset(sample).eval_dataset_builders
    for name, builder in written.eval_dataset_builders.items():
        source = asked[name.removesuffix("_sampled")]
        assert [p.prompt for p in builder.eval_points] == [p.prompt for p in source.eval_points]
        for point in builder.eval_points:
            assert sum(answer["count"] for answer in point.sampled_answers) == 3
    resolved = resolve_model("olmo2-tiny")
    plan = build_plan(written.eval_dataset_builders, load_tokenizer(resolved))
    found = Evaluator(plan).evaluate(load_model(resolved))
    assert all(found.eval_sets[name]["mean_rank"] >= 1 for name in names)


def test_the_batch_changes_no_byte_and_the_seed_does(sample, tmp_path):
    written = {}
    for name, changes in {
        "a": {},
        "b": {"batch_size": 1},
        "c": {"seed": 1},
    }.items():
        args = arguments(sample, tmp_path, output=tmp_path / f"{name}.json", **changes)
        main(args)
        written[name] = json.loads(args.output.read_text())["eval_dataset_builders"]
    assert written["a"] == written["b"]
    assert written["a"] != written["c"]


def test_faults_are_told_before_a_model_is_loaded(sample, tmp_path):
    with pytest.raises(UsageError, match=r"--sets nothing: no such set; .*name_mayor_eval_qa_1"):
        main(arguments(sample, tmp_path, sets=["nothing"]))
    (tmp_path / "sampled.json").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="--overwrite"):
        main(arguments(sample, tmp_path))
    with pytest.raises(UsageError, match="2 datasets"):
        main(arguments(sample, tmp_path, structured_dataset=[sample] * 2, overwrite=True))
    with pytest.raises(UsageError, match="--temperature"):
        parse(SampleArguments, ["x.json", "--model", "m", "--output", "o", "--temperature", "0"])


def test_a_language_model_grades_what_the_rule_leaves(sample, tmp_path, monkeypatch):
    """The same file whoever answers first; a second run asks only whether the model is there."""
    monkeypatch.setenv("OOCR_CACHE", str(tmp_path / "cache"))
    with Server(lambda _: "yes").running() as server:
        llm = {"grader": "llm", "grader_model": "fake", "grader_base_url": server.url}
        written = []
        for name in ("one", "two"):
            args = arguments(sample, tmp_path, output=tmp_path / name, **llm)
            main(args)
            written.append(json.loads(args.output.read_text()))
            if name == "one":
                n_requests = len(server.requests)
    assert n_requests > 1
    assert len(server.requests) == n_requests + 1
    assert written[0] == written[1]
    for builder in written[0]["eval_dataset_builders"].values():
        for point in builder["eval_points"]:
            said = point["sampled_answers"]
            assert all(answer["equivalent"] == bool(answer["text"].strip()) for answer in said)
    assert written[0]["metadata"]["sampling"]["grader_model"] == "fake"


def test_a_grader_that_is_not_there_is_told_before_a_model_is_loaded(sample, tmp_path):
    with Server(lambda _: "yes").running() as server:
        server.faults = [(404, error("no such model"))]
        llm = {"grader": "llm", "grader_model": "fake", "grader_base_url": server.url}
        with pytest.raises(UsageError, match="no such model"):
            main(arguments(sample, tmp_path, model="/nowhere", **llm))
    command = ["x.json", "--model", "m", "--output", "o"]
    with pytest.raises(UsageError, match="--grader llm needs --grader_model"):
        parse(SampleArguments, [*command, "--grader", "llm"])
    with pytest.raises(UsageError, match="--grader_model goes with --grader llm"):
        parse(SampleArguments, [*command, "--grader_model", "some"])
