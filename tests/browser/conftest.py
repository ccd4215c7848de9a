"""Pages in a real Chromium, without a display; skipped, with the reason, where there is none."""

import os
import shutil
import sys
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(Path(__file__).parents[1] / "reports"))
UNPACKED = ROOT / ".venv" / "chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def _skip(why):
    warnings.warn(f"pages are NOT tested in a browser here: {why}", stacklevel=2)
    pytest.skip(f"pages are NOT tested in a browser here: {why}")


def _chromium():
    """The program, and what it needs in its environment."""
    installed = shutil.which("chromium")
    if installed:
        return installed, dict(os.environ)
    libraries = [path for path in (UNPACKED / "usr/lib").glob("*-linux-gnu*") if path.is_dir()]
    inside = [str(path) for one in libraries for path in (one, one / "nss", one / "pulseaudio")]
    env = {**os.environ, **({"LD_LIBRARY_PATH": os.pathsep.join(inside)} if inside else {})}
    if (UNPACKED / "etc/fonts").is_dir() and not Path("/etc/fonts").is_dir():
        env["FONTCONFIG_PATH"] = str(UNPACKED / "etc/fonts")
        env["FONTCONFIG_SYSROOT"] = str(UNPACKED)
    return str(UNPACKED / "usr/lib/chromium/chromium"), env


@pytest.fixture(scope="session")
def browser():
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        _skip("Playwright is not installed (make browser)")
    program, env = _chromium()
    if not Path(program).is_file():
        _skip("there is no chromium (make browser)")
    with sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=program, args=ARGUMENTS, env=env)
        except Error as error:
            _skip(f"chromium does not start: {error}")
        yield started
        started.close()


class Opened:
    """A page, and everything that it complained of or asked for."""

    def __init__(self, browser, url, **context):
        context = {"viewport": {"width": 1200, "height": 900}, **context}
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.complaints, self.requests = [], []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.url = url
        self.page.goto(url)
        self.page.wait_for_selector("html[data-ready]", timeout=60_000)


@pytest.fixture
def open_page(browser):
    """Open a file or an address; afterwards nothing may have been complained of."""
    opened = []

    def open_one(target, **context):
        url = target.as_uri() if isinstance(target, Path) else target
        opened.append(Opened(browser, url, **context))
        return opened[-1]

    yield open_one
    for one in opened:
        one.context.close()
        assert one.complaints == []
