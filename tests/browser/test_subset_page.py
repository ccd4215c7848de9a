"""Datamodels and attributions of a page in Chromium: they are drawn, read by keys, and fit."""

import pytest
from page_subsets import make_sweep, make_table

from oocr_influence.cli.arguments import parse
from oocr_influence.cli.report import ReportArguments, main

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def subsets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    make_sweep(folder / "outputs")
    make_table(folder / "outputs" / "scored" / "final")
    words = [str(folder / "outputs"), "--out", str(folder / "page.html"), "--no-questions"]
    assert main(parse(ReportArguments, words)) == 0
    return folder / "page.html"


def head_of(page):
    return page.evaluate("JSON.parse(document.getElementById('head-data').textContent)")


def ends(values):
    """`1.2 [1.1, 1.3]`, as the page writes three digits."""
    mean, low, high = (f"{float(f'{value:.3g}'):g}".replace("-", "−") for value in values)
    return f"{mean} [{low}, {high}]"


def test_parts_are_drawn_from_what_was_computed(subsets, open_page):
    opened = open_page(subsets)
    page, head = opened.page, head_of(opened.page)
    assert not page.query_selector("main .failed:not(td)")
    assert opened.requests == [opened.url]
    for word in ("undefined", "NaN", "could not be drawn"):
        assert word not in page.inner_text("main")
    (told,) = head["datamodels"]
    drawn = page.text_content("#datamodel")
    for kind in told["effects"]["kinds"]:
        for who in ("own", "entity", "others"):
            assert kind[who] is None or ends(kind[who]) in drawn, (kind, who)
    for fact in told["effects"]["facts"]:
        assert ends(fact["own"]) in drawn
    for score in told["lds"]["scores"]:
        assert score["kind"] != "all" or ends(score["interval"]) in drawn
    assert "Datamodels" in page.inner_text("nav")
    assert "Attribution" in page.inner_text("nav")
    assert "made (train subsets)" in page.inner_text("#top")
    assert "so far" not in page.inner_text("#top")
    assert "subsets and seeds" in page.inner_text("#epochs")
    assert "person 3" in page.text_content("#datamodel")


def test_bars_are_read_by_keys_and_chosen(subsets, open_page):
    page = open_page(subsets).page
    (told,) = head_of(page)["datamodels"]
    page.select_option('#datamodel select[aria-label="LDS of questions"]', "trained")
    best = max(
        (one for one in told["lds"]["scores"] if one["kind"] == "trained"),
        key=lambda one: one["interval"][0],
    )
    figure = page.query_selector_all("#datamodel svg")[-1]
    assert len(figure.query_selector_all(".ceiling")) == 2
    assert len(figure.query_selector_all(".chance")) == 2
    figure.focus()
    page.keyboard.press("ArrowDown")
    read = page.query_selector_all("#datamodel .readout")[-1].inner_text()
    assert read.startswith(best["name"])
    assert ends(best["interval"]) in read
    assert "ceiling" in read
    assert "by chance" in read


def test_methods_stand_beside_baselines(subsets, open_page):
    page = open_page(subsets).page
    retrieval = page.query_selector("#attribution .panels svg")
    names = [one.text_content() for one in retrieval.query_selector_all(".name")]
    assert names == ["gradient_dot", "bm25", "exposure"]
    assert len(retrieval.query_selector_all("g.k-control")) == 2
    tables = page.query_selector_all("#attribution table")
    (table,) = head_of(page)["attributions"]
    between = table["agreement"]["rows"][1][2]
    assert f"{between:.2f}" in tables[0].inner_text()
    page.select_option('select[aria-label="on top by method"]', "exposure")
    cells = page.query_selector_all("#attribution table")[1].query_selector_all("tbody tr")
    assert cells[1].inner_text().split("\t")[1:] == ["50 %", "50 %"]


@pytest.mark.parametrize("width", [320, 380, 760])
def test_a_narrow_window_scrolls_down_alone(subsets, width, open_page):
    page = open_page(subsets, viewport={"width": width, "height": 800}).page
    for summary in page.query_selector_all("summary"):
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_everything_is_named_and_reached_by_keys(subsets, open_page):
    page = open_page(subsets, color_scheme="dark").page
    nameless = page.evaluate("""[...document.querySelectorAll("button, select, svg[role]")].filter(
        (one) => !one.ariaLabel && !one.textContent.trim() && !one.labels?.length).length""")
    assert nameless == 0
    unreachable = page.evaluate("""[...document.querySelectorAll("figure svg[role]:not(.spark)")]
        .filter((one) => one.tabIndex < 0).length""")
    assert unreachable == 0
