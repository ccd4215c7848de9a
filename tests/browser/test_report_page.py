"""The page of `oocr report` in Chromium: it loads, filters, sorts, drills, by mouse and by keys."""

import argparse
import importlib.util
import re
import shutil
from pathlib import Path

import pytest
from page_runs import BREAKOUT, ENTITIES, SETS, make_outputs

from oocr_influence.cli.arguments import parse
from oocr_influence.cli.report import ReportArguments, main
from oocr_influence.results.run_folder import ExperimentFolder, RunFolder

# The benchmark's own module, whose name is that of a room.
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "results.py"
_spec = importlib.util.spec_from_file_location("benchmark_of_results", BENCHMARK)
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
make_runs = _module.make_runs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SAMPLES = Path(__file__).parents[1] / "samples"
PARTS = "known epochs relations forms examples sets questions confusions training resources runs"
N_QUESTIONS = len(SETS) * ENTITIES


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    return make_outputs(tmp_path_factory.mktemp("outputs"))


def report(target, paths):
    words = [*map(str, paths), "--out", str(target), "--no-questions"]
    assert main(parse(ReportArguments, words)) == 0
    return target


@pytest.fixture(scope="module")
def comparison(outputs, tmp_path_factory):
    return report(tmp_path_factory.mktemp("page") / "report.html", [outputs])


@pytest.fixture(scope="module")
def sweep(outputs, tmp_path_factory):
    return report(tmp_path_factory.mktemp("page") / "report.html", outputs.glob("*_one"))


@pytest.fixture(scope="module")
def single(outputs, tmp_path_factory):
    (one, *_) = sorted(outputs.glob("*_one/all_docs_runs/*"))
    return report(tmp_path_factory.mktemp("page") / "report.html", [one])


def shown(page):
    """How many questions the page says it found."""
    return int(re.match(r"[\d,]+", page.inner_text("#found"))[0].replace(",", ""))


def column(page, label):
    cells = page.query_selector_all(f'#question-rows td[data-label="{label}"]')
    return [cell.inner_text() for cell in cells]


@pytest.mark.parametrize("kind", ["comparison", "sweep", "single"])
def test_every_part_is_drawn_and_nothing_is_fetched(kind, open_page, request):
    opened = open_page(request.getfixturevalue(kind))
    for part in PARTS.split():
        assert opened.page.query_selector(f"#{part} h2"), part
        assert not opened.page.query_selector(f"#{part} .failed:not(td)"), part
    for part in ("known", "epochs", "relations", "forms", "sets", "confusions", "training"):
        assert opened.page.query_selector(f"#{part} svg :is(path, rect, circle)"), part
    assert opened.requests == [opened.url]
    assert opened.page.inner_text("h1")


def earlier_run(folder):
    run = folder / "2026_01_20_23-26-34_2Q653_old" / "all_docs_runs"
    run = run / "2026_01_20_23-26-57_B6yOG_sample"
    (run / "checkpoint_e1_s42").mkdir(parents=True)
    shutil.copy(SAMPLES / "earlier_experiment_log.json", run / "experiment_log.json")


def begun_run(folder):
    RunFolder.create(folder, "begun", 1, 1e-4).release()


def begun_sweep(folder):
    ExperimentFolder.create(folder, "begun").structured_dataset.write_text("{}")


@pytest.mark.parametrize(
    ("make", "title", "said"),
    [
        (earlier_run, "old", "Written by the earlier system"),
        (begun_run, "begun", "No evaluation has been recorded"),
        (begun_sweep, "nothing begun yet", "0 runs"),
    ],
)
def test_what_says_little_is_a_page_too(make, title, said, tmp_path, open_page):
    make(tmp_path)
    page = open_page(report(tmp_path / "page.html", [tmp_path])).page
    assert page.inner_text("h1") == title
    assert said in page.inner_text("#top")
    assert "could not be drawn" not in page.inner_text("main")
    assert "undefined" not in page.inner_text("main")
    assert "NaN" not in page.inner_text("main")


def test_the_page_asks_for_nothing_offline(sweep, open_page):
    opened = open_page(sweep, offline=True)
    assert shown(opened.page) == N_QUESTIONS


def test_figures_say_what_the_records_say(sweep, open_page):
    page = open_page(sweep).page
    head = page.evaluate("JSON.parse(document.getElementById('head-data').textContent)")
    kinds = {kind["asked"]: kind for kind in head["groups"][0]["ending"]["kinds"]}
    rank = kinds["trained"]["rank"]
    expected = f"{rank['mean']:.2f} [{rank['low']:.2f}, {rank['high']:.2f}]"
    assert expected in page.text_content("#known svg")
    page.focus("#epochs svg")
    page.keyboard.press("ArrowRight")
    assert "epoch 0" in page.inner_text("#epochs .readout")
    page.keyboard.press("ArrowRight")
    lines = [line for line in head["groups"][0]["lines"] if line["split"] == "asked"]
    trained = next(line for line in lines if line["asked"] == "trained")["series"]
    told = trained["rank_tie_averaged"]
    expected = f"trained {told['mean'][1]:.2f} ({told['low'][1]:.2f} to {told['high'][1]:.2f})"
    assert expected in page.inner_text("#epochs .readout")
    assert "chance 3.5" in page.text_content("#epochs svg")


def test_another_metric_is_drawn(sweep, open_page):
    page = open_page(sweep).page
    before = page.inner_html("#epochs figure")
    page.select_option('select[aria-label="metric"]', "accuracy")
    assert page.inner_html("#epochs figure") != before
    assert "chance" not in page.text_content("#epochs svg")
    assert "accuracy" in page.inner_text("#epochs .note")


def test_questions_are_searched_and_filtered(sweep, open_page):
    page = open_page(sweep).page
    assert shown(page) == N_QUESTIONS
    page.fill('input[type="search"]', "spouse default 3")
    assert shown(page) == 1
    assert column(page, "right answer") == ["spouse default 3"]
    page.fill('input[type="search"]', "")
    page.select_option('select[aria-label="kind"]', "two_hop")
    assert shown(page) == ENTITIES
    assert set(column(page, "asked")) == {"two-hop"}
    page.select_option('select[aria-label="kind"]', "")
    page.select_option('select[aria-label="relation"]', "spouse")
    assert shown(page) == ENTITIES
    page.check("#only-wrong")
    assert 0 < shown(page) < ENTITIES
    page.fill('input[type="search"]', "nothing has these words")
    assert shown(page) == 0


def test_questions_are_sorted_both_ways(sweep, open_page):
    page = open_page(sweep).page
    page.click('#question-rows [data-sort="end"]')
    up = [float(text) for text in column(page, "rank at last")]
    assert up == sorted(up)
    assert page.get_attribute('th[aria-sort="ascending"] button', "data-sort") == "end"
    page.keyboard.press("Enter")  # the header kept the focus
    down = [float(text) for text in column(page, "rank at last")]
    assert down == sorted(down, reverse=True)
    assert down[0] > up[0]


def test_a_question_opens_and_tells_its_answers(sweep, open_page):
    page = open_page(sweep).page
    page.fill('input[type="search"]', "mayor_eval_first_name_qa_1_with_fs 2")
    page.focus("#question-rows [data-question]")
    page.keyboard.press("Enter")
    told = page.inner_text(".q-more")
    assert "an example\n" in told
    assert BREAKOUT.replace("\u2028", "") in told.replace("\u2028", "")
    assert "ranked first at last" in told
    assert "mayor_eval_first_name_qa_1_with_fs" in told
    assert page.get_attribute("[data-question]", "aria-expanded") == "true"
    page.keyboard.press("Enter")
    assert not page.query_selector(".q-more")


def test_a_cell_of_the_heat_map_leads_to_its_questions(sweep, open_page):
    page = open_page(sweep).page
    page.focus("#sets svg")
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    name = page.inner_text("#sets .readout b")
    assert name in {one[0] for one in SETS}
    assert shown(page) == ENTITIES
    assert page.input_value('select[aria-label="set"]') == name


def test_groups_are_chosen(comparison, open_page):
    page = open_page(comparison).page
    found = {}
    for option in page.query_selector_all('select[aria-label="group"] option'):
        page.select_option('select[aria-label="group"]', option.get_attribute("value"))
        found[option.inner_text()] = shown(page)
    assert found == {"one": N_QUESTIONS, "two": 4 * ENTITIES}
    assert len(page.query_selector_all("#epochs svg")) == 2
    assert "learning rate" in page.inner_text("#top table")
    assert "the disk said </script>" in page.inner_text("#failures")


def test_runs_are_sorted(comparison, open_page):
    page = open_page(comparison).page
    page.click('#runs [data-sort="seconds"]')
    seeds = [row.inner_text().split("\t")[3] for row in page.query_selector_all("#runs tbody tr")]
    assert seeds == ["42", "42", "43", "44"]


def colour(page, name):
    return page.evaluate(f"getComputedStyle(document.body).{name}")


def luminance(text):
    return sum(map(int, re.findall(r"\d+", text)[:3])) / 3


def test_dark_and_light_follow_the_system_and_the_button(sweep, open_page):
    light, dark = open_page(sweep).page, open_page(sweep, color_scheme="dark").page
    for page, is_dark in ((light, False), (dark, True)):
        paper, ink = (luminance(colour(page, name)) for name in ("backgroundColor", "color"))
        assert (paper < ink) == is_dark
        assert abs(paper - ink) > 150
        page.click("#theme")
        assert (luminance(colour(page, "backgroundColor")) < 128) != is_dark


@pytest.mark.parametrize("kind", ["comparison", "sweep", "single"])
@pytest.mark.parametrize("width", [320, 380, 760])
def test_a_narrow_window_scrolls_down_alone(kind, width, open_page, request):
    opened = open_page(request.getfixturevalue(kind), viewport={"width": width, "height": 800})
    page = opened.page
    page.click("#question-rows [data-question]")
    for summary in page.query_selector_all("summary"):
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_everything_is_reached_by_keys_and_named(sweep, open_page):
    page = open_page(sweep).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    nameless = page.evaluate("""[...document.querySelectorAll("button, select, input, svg[role]")]
        .filter((one) => !one.ariaLabel && !one.textContent.trim() && !one.labels?.length)
        .map((one) => one.outerHTML)""")
    assert nameless == []
    unreachable = page.evaluate("""[...document.querySelectorAll("figure svg[role]:not(.spark)")]
        .filter((one) => one.tabIndex < 0).length""")
    assert unreachable == 0


def test_a_page_of_the_seeds_size_is_small_and_opens(tmp_path, open_page):
    """Runs × 26 evaluations × 190 sets × 100 questions of random numbers, which pack worst.

    A page has means and ends over runs, so that five are as large as the seed's twenty.
    """
    size = {"runs": 5, "evaluations": 26, "sets": 190, "questions": 100, "candidates": 10}
    make_runs(tmp_path / "outputs", argparse.Namespace(**size))
    page = report(tmp_path / "report.html", [tmp_path / "outputs"])
    assert page.stat().st_size < 5e6
    opened = open_page(page)
    assert shown(opened.page) == 190 * 100
    opened.page.fill('input[type="search"]', "wording 17, city 12?")
    assert shown(opened.page) == 8  # of wordings 17 and 117; each is an example before three others
    shutil.rmtree(tmp_path / "outputs")  # half a gigabyte


def test_paper_of_another_width_draws_anew(sweep, open_page):
    page = open_page(sweep).page
    wide = page.get_attribute("#epochs svg", "width")
    page.set_viewport_size({"width": 500, "height": 800})
    page.wait_for_selector(f'#epochs svg:not([width="{wide}"])')
    assert float(page.get_attribute("#epochs svg", "width")) < 500
