"""What the figures of a page draw, against the records read one by one."""

import itertools
import re

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed (make smollm2)")
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from page_runs import ENTITIES, SETS, make_outputs, make_run, records_of  # noqa: E402

from oocr_influence.reports.page.data import page_data  # noqa: E402
from oocr_influence.reports.page.drawing import colours, look_of  # noqa: E402
from oocr_influence.reports.page.figures import SUFFIXES, draw_figures, page_figures  # noqa: E402
from oocr_influence.results import collect, mean_interval  # noqa: E402
from oocr_influence.results.run_folder import ExperimentFolder  # noqa: E402
from oocr_influence.results.step_log import read_steps  # noqa: E402

CHANCE = (ENTITIES + 1) / 2
STEPS, EPOCHS = (0, 4, 8), (0.0, 0.5, 1.0)
METRICS = ("rank_tie_averaged", "accuracy", "loss", "logprob", "prob", "rank")
CLOSE = pytest.approx


def read(folder):
    with collect(folder) as collected:
        return page_data(collected)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    return make_outputs(tmp_path_factory.mktemp("outputs"))


@pytest.fixture(scope="module")
def data(outputs):
    return read(outputs)


@pytest.fixture(scope="module")
def figures(data):
    return dict(page_figures(data))


@pytest.fixture(scope="module")
def records(outputs):
    return [row for row in records_of(outputs) if row["experiment"].endswith("_one")]


def drawn(axes, gid):
    """The lines of axes that bear a name."""
    return [line for line in axes.get_lines() if line.get_gid() == gid]


def names_of(axes, kind):
    gids = [line.get_gid() or "" for line in axes.get_lines()]
    return [gid.removeprefix(f"{kind} ") for gid in gids if gid.startswith(f"{kind} ")]


def run_means(rows, metric):
    """By run, in the order of runs: its mean over the rows at each step."""
    runs = sorted({row["run"] for row in rows})
    return [
        [np.mean([r[metric] for r in rows if (r["run"], r["step"]) == (run, s)]) for s in STEPS]
        for run in runs
    ]


def band_of(axes, name):
    (band,) = [one for one in axes.collections if one.get_gid() == f"band {name}"]
    corners = band.get_paths()[0].vertices
    at = [corners[corners[:, 0] == epoch, 1] for epoch in EPOCHS]
    return [values.min() for values in at], [values.max() for values in at]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("ending", "panel_of"),
    [
        ("", lambda row: ""),
        ("_by_relation", lambda row: row["relation"]),
        ("_by_examples", lambda row: "with examples" if row["shots"] else "no examples"),
        (
            "_by_form",
            lambda row: {
                ("gen", "default"): "completed sentence",
                ("qa", "default"): "question",
                ("qa", "first_name"): "question, first name",
                ("reversed", "default"): "reversed",
            }[row["style"], row["answer_format"]],
        ),
    ],
)
def test_lines_and_bands_are_means_and_ranges_of_the_runs(
    figures, records, metric, ending, panel_of
):
    figure = figures[f"one_{metric}{ending}"]
    expected = {(panel_of(row), row["asked"]) for row in records}
    found = set()
    for axes in figure.axes:
        texts = [text.get_text() for text in axes.texts]
        panel = next((p for p in {panel_of(r) for r in records} if p in texts), "")
        for name in names_of(axes, "mean"):
            rows = [r for r in records if (panel_of(r), r["asked"]) == (panel, name)]
            runs = run_means(rows, metric)
            (mean,) = drawn(axes, f"mean {name}")
            assert list(mean.get_xdata()) == list(EPOCHS)
            assert list(mean.get_ydata()) == CLOSE(np.mean(runs, axis=0), rel=1e-4)
            assert mean.get_color() == look_of(name).colour
            low, high = band_of(axes, name)
            assert low == CLOSE(np.min(runs, axis=0), rel=1e-4)
            assert high == CLOSE(np.max(runs, axis=0), rel=1e-4)
            if not ending:
                thin = [list(line.get_ydata()) for line in drawn(axes, f"run {name}")]
                assert np.array(thin) == CLOSE(np.array(runs), rel=1e-4)
            found.add((panel, name))
        levels = {line.get_ydata()[0] for line in drawn(axes, "chance")}
        assert levels == ({CHANCE} if metric.startswith("rank") else set())
        low, high = sorted(axes.get_ylim())
        ends = [v for line in axes.get_lines() for v in line.get_ydata()]
        assert min(ends) >= low
        assert max(ends) <= high
        assert axes.yaxis_inverted() == metric.startswith("rank")  # rank 1 stands on top
    assert found == expected


def test_the_null_level_is_graded_by_another_entitys_answer(figures, records):
    (axes,) = figures["one_rank_tie_averaged"].axes
    (line,) = drawn(axes, "swapped")
    rows = [row for row in records if row["asked"] == "trained"]
    expected = np.mean(run_means(rows, "rank_swapped"), axis=0)
    assert list(line.get_ydata()) == CLOSE(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("metric", "shade"),
    [
        ("rank_tie_averaged", lambda rank, _: max(-1.0, (CHANCE - rank) / (CHANCE - 1))),
        ("accuracy", lambda share, _: share),
        ("loss", lambda loss, all_of: (max(all_of) - loss) / (max(all_of) - min(all_of))),
        ("logprob", lambda value, all_of: (value - min(all_of)) / (max(all_of) - min(all_of))),
    ],
)
def test_the_heat_map_shades_every_set_at_every_evaluation(figures, records, metric, shade):
    def cell(name, step):
        return np.mean([r[metric] for r in records if (r["set"], r["step"]) == (name, step)])

    values = {one[0]: [cell(one[0], step) for step in STEPS] for one in SETS}
    every = list(itertools.chain(*values.values()))
    axes = figures[f"one_{metric}_sets"].axes[0]
    seen = []
    for block in axes.collections:
        names = block.get_gid().split("\n")
        shades = np.asarray(block.get_array()).reshape(len(names), len(STEPS))
        for name, row in zip(names, shades, strict=True):
            assert list(row) == CLOSE([shade(v, every) for v in values[name]], abs=2e-3)
        seen += names
        paper, good = block.get_cmap()(0.5), block.get_cmap()(1.0)
        assert matplotlib.colors.to_hex(paper) == colours()["paper"]
        assert matplotlib.colors.to_hex(good) == colours()["heat-good"]
    assert sorted(seen) == sorted(values)


def test_what_was_known_has_means_intervals_entities_and_where_it_began(figures, records):
    (axes,) = figures["known"].axes
    kinds = {row["asked"] for row in records}
    assert {f"one {kind}" for kind in kinds} <= set(names_of(axes, "mean"))
    for kind in kinds:
        rows = [r for r in records if (r["asked"], r["step"]) == (kind, 8)]
        ranks = [row["rank_tie_averaged"] for row in rows]
        (mean,) = drawn(axes, f"mean one {kind}")
        assert mean.get_xdata()[0] == CLOSE(np.mean(ranks), rel=1e-4)
        expected = mean_interval(
            ranks, runs=[r["run"] for r in rows], entities=[r["entity"] for r in rows]
        )
        (interval,) = drawn(axes, f"interval one {kind}")
        assert list(interval.get_xdata()) == CLOSE([expected.low, expected.high], rel=1e-4)
        (start,) = drawn(axes, f"start one {kind}")
        first = [r for r in records if (r["asked"], r["step"]) == (kind, 0)]
        expected = np.mean([row["rank_tie_averaged"] for row in first])
        assert start.get_xdata()[0] == CLOSE(expected, rel=1e-4)
        (dots,) = [one for one in axes.collections if one.get_gid() == f"parts one {kind}"]
        entities = [
            np.mean([r["rank_tie_averaged"] for r in rows if r["entity"] == entity])
            for entity in {r["entity"] for r in rows}
        ]
        assert sorted(dots.get_offsets()[:, 0]) == CLOSE(sorted(entities), rel=1e-4)
    assert {line.get_xdata()[0] for line in drawn(axes, "chance")} == {CHANCE}


def test_training_draws_every_update(figures, outputs):
    logs = [
        [row.loss for row in read_steps(path)]
        for path in sorted(outputs.glob("*_one/all_docs_runs/*/saved_objects/steps.jsonl"))
    ]
    axes = next(
        axes
        for axes in figures["one_training"].axes
        if "loss of the batch" in [text.get_text() for text in axes.texts]
    )
    (mean,) = drawn(axes, "mean loss")
    assert list(mean.get_ydata()) == CLOSE(np.mean(logs, axis=0), rel=1e-4)
    assert list(mean.get_xdata()) == CLOSE([step / 8 for step in range(1, 9)])


def test_groups_stand_beside_each_other_on_one_scale(figures, data):
    figure = figures["groups_accuracy"]
    titles = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert {group["name"] for group in data.head["groups"]} <= set(titles)
    assert len({axes.get_ylim() for axes in figure.axes}) == 1


def test_a_group_that_was_asked_once_is_drawn_as_rows(tmp_path):
    experiment = ExperimentFolder.create(tmp_path, "once")
    for seed in (42, 43):
        make_run(experiment, seed, learning_rate=1e-4, n_evaluations=1)
    figures = dict(page_figures(read(tmp_path)))
    (axes,) = figures["once_loss_by_relation"].axes
    (heading,) = [text for text in axes.texts if text.get_text() == "spouse"]
    (mean,) = [  # the row below its heading
        line
        for line in drawn(axes, "mean trained")
        if 0 < line.get_ydata()[0] - heading.xy[1] < 0.4
    ]
    rows = [r for r in records_of(tmp_path) if r["relation"] == "spouse"]
    runs = {r["run"] for r in rows}
    means = [np.mean([r["loss"] for r in rows if r["run"] == run]) for run in runs]
    assert mean.get_xdata()[0] == CLOSE(np.mean(means), rel=1e-4)


LONG = "a_name_of_thirty_six_letters_or_more, learning_rate 0.0001, packing concat, batch_size 16"


@pytest.mark.parametrize("name", [None, LONG])
def test_no_text_touches_another_or_leaves_the_sheet(data, figures, name):
    drawn = page_figures(page_data_named(data, name), metrics=["loss"]) if name else figures.items()
    for stem, figure in drawn:
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        boxes = [
            (text.get_text(), text.get_window_extent(renderer))
            for text in figure.findobj(matplotlib.text.Text)
            if text.get_text().strip() and text.get_visible()
        ]
        for text, box in boxes:
            inside = [box.x0, figure.bbox.x1 - box.x1, box.y0, figure.bbox.y1 - box.y1]
            assert min(inside) >= 0, (stem, text)
        for (one, a), (other, b) in itertools.combinations(boxes, 2):
            wide = min(a.x1, b.x1) - max(a.x0, b.x0)
            high = min(a.y1, b.y1) - max(a.y0, b.y0)
            assert min(wide, high) <= 2, (stem, one, other)


def test_colours_are_the_pages_and_kinds_differ():
    assert colours()["trained"] == "#0072b2"
    assert colours()["heat-good"] == "#005a9c"
    kinds = ("trained", "reversed", "two_hop", "first_hop", "control: untold")
    assert len({look_of(kind).colour for kind in kinds}) == len(kinds)


def test_only_the_metrics_asked_for_are_drawn(data):
    stems = [stem for stem, _ in page_figures(data, metrics=["accuracy"])]
    assert all(re.search(r"known|training|accuracy", stem) for stem in stems)
    assert "one_accuracy_by_relation" in stems


def test_every_figure_is_two_files_and_groups_of_one_name_keep_apart(tmp_path, data):
    again = page_data_named(data, "one")
    paths = draw_figures(again, tmp_path / "figures", metrics=["accuracy"])
    assert sorted(paths) == sorted((tmp_path / "figures").iterdir())
    stems = {path.stem for path in paths}
    assert {"one_accuracy", "one_2_accuracy"} <= stems
    assert len(paths) == len(stems) * len(SUFFIXES)
    for path in paths:
        head = path.read_bytes()[:200]
        assert head.startswith(b"\x89PNG") if path.suffix == ".png" else b"<?xml" in head


def page_data_named(data, name):
    """The same page, all of whose groups have one name."""
    groups = [group | {"name": name} for group in data.head["groups"]]
    return type(data)(data.head | {"groups": groups}, data.detail)
