"""What runs write down for those who compare them: digests of weights, diffs of the code."""

import hashlib

import numpy as np
import pytest
from made_runs import make_experiment
from safetensors.numpy import save_file

from oocr_influence.results import checkpoints
from oocr_influence.results.atomic import write_json
from oocr_influence.results.code_differences import code_difference
from oocr_influence.results.differing import record_of
from oocr_influence.results.digests import text_digest
from oocr_influence.results.run_differences import differences
from oocr_influence.results.run_outcomes import compare_outcomes

TENSORS = {
    "b.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "a.bias": np.array([1.5, -2.0], dtype=np.float16),
}


def test_a_digest_of_weights_is_that_of_their_tensors(tmp_path):
    whole, sharded, other = (tmp_path / name for name in ("whole", "sharded", "other"))
    for folder in (whole, sharded, other):
        folder.mkdir()
    save_file(TENSORS, whole / "model.safetensors", metadata={"format": "pt"})
    for number, name in enumerate(TENSORS):
        save_file({name: TENSORS[name]}, sharded / f"model-{number}.safetensors")
    weight_map = {name: f"model-{number}.safetensors" for number, name in enumerate(TENSORS)}
    write_json(sharded / "model.safetensors.index.json", {"weight_map": weight_map})
    wanted = hashlib.sha256()
    for name, dtype in (("a.bias", "F16"), ("b.weight", "F32")):
        shape = tuple(TENSORS[name].shape)
        wanted.update(f"{name}:{dtype}:{shape}\n".encode() + TENSORS[name].tobytes())
    assert checkpoints.content_digest(whole) == wanted.hexdigest()
    assert checkpoints.content_digest(sharded) == wanted.hexdigest()
    changed = {**TENSORS, "a.bias": np.array([1.5, -2.001], dtype=np.float16)}
    save_file(changed, other / "model.safetensors")
    assert checkpoints.content_digest(other) != wanted.hexdigest()
    (other / "model.safetensors").write_bytes(b"short")
    with pytest.raises(ValueError, match="cut short"):
        checkpoints.content_digest(other)


def test_the_first_diff_stays_beside_later_ones(tmp_path):
    run = make_experiment(tmp_path).run
    run.save_diff("one\n")
    run.save_diff("one\n")
    run.save_diff("two\n")
    assert run.working_tree_diff.read_text() == "one\n"
    assert run.later_diff(text_digest("two\n")).read_text() == "two\n"
    assert len(list(run.saved_objects.glob("*.diff"))) == 2


def test_uncommitted_changes_are_told_apart():
    clean = {"commit": "1" * 40, "diff_digest": None}
    one = {"commit": "1" * 40, "diff_digest": "a" * 64}
    other = {"commit": "1" * 40, "diff_digest": "b" * 64}
    assert code_difference(clean, dict(clean), None, None) is None
    assert code_difference(one, dict(one), "x\n", "x\n") is None
    told = code_difference(clean, one, None, "+x = 1\n")
    assert told.words == f"A had none, B had uncommitted changes ({'a' * 12}…)"
    assert "+x = 1" in told.detail
    told = code_difference(one, other, "+x = 1\n", "+x = 2\n")
    assert "-+x = 1" in told.detail
    assert "++x = 2" in told.detail
    told = code_difference(one, other, None, "+x = 2\n")
    assert told.detail == "(the uncommitted changes of A were not kept)"


def test_two_orders_of_the_same_differ_in_the_order_and_what_follows(tmp_path):
    made = make_experiment(tmp_path, n_runs=2)
    found = differences(*(record_of(run) for run in made.runs))
    assert {one.part for one in found.found} == {"data order"}
    words = [one.words for one in found.found]
    assert "data_order_seed: 42 in A, 43 in B" in words
    assert "the windows of epoch 2 come in another order" in words
    assert "the code's commit" in found.unknown  # made runs have none
    outcomes = compare_outcomes(*made.runs)
    assert not outcomes.is_same
    (line,) = outcomes.different
    assert line.startswith("6 of 6 updates; first update 1, in window_ids")
    assert outcomes.same[0].startswith("the last weights, digest ")
    assert outcomes.same[1] == "answers of start, e1_s2, e1_s3, e2_s5, final (30 compared in all)"


def test_what_is_not_there_makes_nothing_the_same(tmp_path):
    made = make_experiment(tmp_path, n_runs=2)
    a, b = made.runs
    b.steps.unlink()
    b.remove_checkpoint("final")
    for name in b.evaluations():
        b.evaluation(name).unlink()
    outcomes = compare_outcomes(a, b)
    assert outcomes.same == []
    assert not outcomes.is_same
    assert outcomes.unknown == [
        "losses: no log of updates in B",
        "last weights: neither checkpoint_final nor its digest in B",
        "answers: no evaluation is in both",
    ]
