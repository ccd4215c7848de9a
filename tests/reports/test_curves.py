"""Curves of a run: means against numpy, a figure that is the same every time."""

from pathlib import Path

import numpy as np
import pytest

from oocr_influence.reports import curves as module
from oocr_influence.reports.curves import (
    Group,
    check_drawing,
    draw_curves,
    rank_curves,
    render_curves,
)
from oocr_influence.results.run_folder import RunFolder

N_ENTITIES, N_SETS = 10, 3
EPOCHS = (0, 1, 2)
GROUPS = [Group("asked forward", "trained", "gen"), Group("control", "control")]
KINDS = [group.kind for group in GROUPS]


def ranks(kind, epoch):
    """(entities, sets) ranks of 10: the trained ones improve, the control stays."""
    draw = np.random.default_rng([epoch, len(kind)])
    values = draw.integers(1, 11, size=(N_ENTITIES, N_SETS)).astype(float)
    return values if kind == "control" else np.maximum(1, values - 3 * epoch)


@pytest.fixture
def run(tmp_path):
    folder = RunFolder.create(tmp_path, "curves", 2, 1e-4)
    for epoch in EPOCHS:
        name = {0: "start", 2: "final"}.get(epoch, f"e{epoch}_s{epoch}")
        records = [
            {
                "set": f"{kind}_{number}",
                "kind": kind,
                "style": "gen",
                "index": entity,
                "rank_tie_averaged": float(ranks(kind, epoch)[entity, number]),
                "n_candidates": 10,
                "accuracy": float(ranks(kind, epoch)[entity, number] == 1),
            }
            for kind in KINDS
            for number in range(N_SETS)
            for entity in range(N_ENTITIES)
        ]
        folder.write_evaluation(
            name,
            step_num=epoch,
            epoch_num=float(epoch),
            eval_seconds=0.0,
            eval_sets={f"{kind}_{n}": {"n": N_ENTITIES} for kind in KINDS for n in range(N_SETS)},
            records=records,
        )
    folder.release()
    return folder


def test_points_are_the_means_of_the_records(run):
    found = rank_curves(run, GROUPS)
    assert [curve.group for curve in found] == GROUPS
    for curve in found:
        assert curve.n_questions == N_ENTITIES * N_SETS
        assert curve.chance == 5.5
        assert [point.epoch for point in curve.points] == list(EPOCHS)
        for point in curve.points:
            expected = ranks(curve.group.kind, int(point.epoch))
            assert point.rank == pytest.approx(expected.mean())
            assert point.part_ranks == pytest.approx(expected.mean(axis=0))
            assert point.accuracy == pytest.approx((expected == 1).mean())


def test_the_table_names_every_epoch_and_chance(run):
    text = render_curves(rank_curves(run, GROUPS))
    assert [f"epoch {epoch}" in text for epoch in EPOCHS] == [True] * 3
    assert f"{ranks('trained', 2).mean():.2f} (" in text
    assert "by chance 5.5" in text


@pytest.mark.parametrize("group", [Group("x", "two_hop"), Group("x", "trained", "qa")])
def test_a_group_that_the_run_did_not_ask_is_an_error(run, group):
    with pytest.raises(ValueError, match="no ranked question of Group"):
        rank_curves(run, [*GROUPS, group])


def test_a_run_without_evaluations_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="has no evaluation"):
        rank_curves(RunFolder.create(tmp_path, "empty", 1, 1e-4), GROUPS)


@pytest.mark.parametrize(
    ("places", "heights", "expected"),
    [
        ([1.0, 5.0], [1.0, 1.0], [1.0, 5.0]),
        ([1.0, 1.2], [1.0, 1.0], [0.6, 1.6]),
        ([1.0, 1.0, 5.0], [1.0, 3.0, 1.0], [-0.5, 1.5, 5.0]),
        ([1.0, 1.0, 2.2], [1.0, 1.0, 1.0], [0.4, 1.4, 2.4]),  # moved into the next, and on
    ],
)
def test_labels_that_would_touch_are_moved_apart(places, heights, expected):
    assert module.apart(places, heights) == pytest.approx(expected)


def test_without_matplotlib_the_remedy_is_named(run, monkeypatch, tmp_path):
    found = rank_curves(run, GROUPS)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install matplotlib"):
        check_drawing()
    with pytest.raises(ModuleNotFoundError, match="pip install matplotlib"):
        draw_curves(found, tmp_path / "f.png", title="x")
    assert not (tmp_path / "f.png").exists()


def test_the_same_curves_give_the_same_bytes(run, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (make smollm2)")
    found = rank_curves(run, GROUPS)
    for suffix in (".svg", ".png"):
        paths = [tmp_path / f"{n}{suffix}" for n in "ab"]
        for path in paths:
            draw_curves(found, path, title="A title")
        assert paths[0].read_bytes() == paths[1].read_bytes()
        draw_curves(found[:1], paths[1], title="A title")
        assert paths[0].read_bytes() != paths[1].read_bytes()
    assert b"<dc:date>" not in Path(tmp_path / "a.svg").read_bytes()


def test_every_label_and_chance_are_in_the_figure(run, tmp_path, monkeypatch):
    matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")  # text stays text
    draw_curves(
        rank_curves(run, GROUPS), tmp_path / "f.svg", title="A title", subtitle="As a guess"
    )
    drawn = (tmp_path / "f.svg").read_text()
    for words in (
        *(group.label for group in GROUPS),
        "A title",
        "guess: 5.5",
        "1 = right",
        "epochs of training",
    ):
        assert words in drawn
