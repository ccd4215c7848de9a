"""`oocr view` in Chromium: what lands is drawn, and what the reader has opened stays open."""

import threading

import pytest
from page_runs import ENTITIES, SETS, make_run

from oocr_influence.cli.page_server import LivePage, PageServer
from oocr_influence.cli.view import _read, fingerprint
from oocr_influence.results.run_folder import ExperimentFolder

pytestmark = pytest.mark.slow
OPENED = "mayor_eval_first_name_qa_1_with_fs 2"


def test_what_lands_is_drawn_and_what_is_open_stays(tmp_path, open_page):
    experiment = ExperimentFolder.create(tmp_path, "live")
    make_run(experiment, 42, learning_rate=1e-4)
    live = LivePage(lambda: _read([tmp_path]), lambda: fingerprint([tmp_path]), every=0.1)
    server = PageServer(live, 0)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        opened = open_page(server.url)
        page = opened.page
        page.select_option('select[aria-label="metric"]', "loss")
        page.fill('input[type="search"]', OPENED)
        page.click("[data-question]")
        page.click("#runs summary")
        page.focus('input[type="search"]')
        page.evaluate("document.querySelector('input[type=search]').setSelectionRange(3, 3)")
        page.evaluate("scrollTo({top: 1200, behavior: 'instant'})")
        place = page.evaluate("scrollY")
        make_run(experiment, 43, learning_rate=1e-4)
        page.wait_for_selector('#top p:has-text("data order seed (42, 43)")')
        assert len(page.query_selector_all("#runs tbody tr")) == 2
        assert page.inner_text("#live").startswith("live, ")
        assert page.query_selector(".q-more")
        assert page.input_value('input[type="search"]') == OPENED
        assert page.evaluate("document.activeElement.type") == "search"
        assert page.evaluate("document.activeElement.selectionStart") == 3
        assert page.input_value('select[aria-label="metric"]') == "loss"
        assert page.query_selector("#runs details[open] pre")
        assert abs(page.evaluate("scrollY") - place) < 200
        page.fill('input[type="search"]', "")
        assert page.inner_text("#found").startswith(f"{len(SETS) * ENTITIES} questions")
        assert {url.removeprefix(server.url) for url in opened.requests} == {"", "data.json"}
        server.shutdown()
        server.server_close()
        page.wait_for_selector("#live.lost", timeout=20_000)
        assert "not heard since" in page.inner_text("#live")
        opened.complaints.clear()  # Chromium tells of a server that is gone
    finally:
        live.stop()
