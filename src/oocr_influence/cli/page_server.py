"""A page on this machine's loopback that is drawn anew as records come: read only, two addresses.

    /            the page
    /data.json   what it shows now, with an ETag, so that asking again costs nothing

No request names a file: there is no path to traverse and nothing to write. Whoever asks under
another name than this machine's is refused, so that no web page can read it by pointing a name of
its own here (DNS rebinding).
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from oocr_influence.reports.page.data import PageData
from oocr_influence.reports.page.render import packed, render_page

ADDRESS = "127.0.0.1"
_NAMES = (ADDRESS, "localhost")
_REST = 4.0  # times as long as the last reading took: a page costs a fifth of a core at most
_HEADERS = {
    "Connection": "close",  # one question each few seconds: no thread waits for the next
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True)
class Shown:
    """What is shown at a moment, ready to be sent."""

    tag: str
    page: bytes
    data: bytes

    @classmethod
    def of(cls, data: PageData) -> Shown:
        """The same content has the same tag, whenever it was read."""
        detail = packed(data.detail)
        lasting = {key: value for key, value in data.head.items() if key != "made"}
        digest = hashlib.sha256(json.dumps([lasting, detail], allow_nan=False).encode())
        tag = f'"{digest.hexdigest()[:32]}"'
        body = json.dumps({"head": data.head, "detail": detail}, allow_nan=False)
        return cls(tag, render_page(data, live=tag).encode(), body.encode())


class LivePage:
    """The newest page; reads again where `fingerprint` tells that something has changed."""

    def __init__(
        self, read: Callable[[], PageData], fingerprint: Callable[[], Any], every: float
    ) -> None:
        self._read, self._fingerprint, self._every = read, fingerprint, every
        self._stopped = threading.Event()
        self._seen = fingerprint()
        begun = time.monotonic()
        self.shown = Shown.of(read())
        self._took = time.monotonic() - begun
        self._thread = threading.Thread(target=self._renew, name="renew", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the reading; returns when it has ended, or is too deep in a file to notice soon."""
        self._stopped.set()
        self._thread.join(timeout=2)

    def _renew(self) -> None:
        fault = None
        while not self._stopped.wait(max(self._every, _REST * self._took)):
            begun = time.monotonic()
            try:
                seen = self._fingerprint()
                if seen == self._seen:
                    self._took = 0.0
                    continue
                self.shown = Shown.of(self._read())
                self._seen, fault = seen, None
            except Exception as error:  # a run that is deleted or half written: the page stays
                if str(error) != fault:
                    print(f"not read: {type(error).__name__}: {error}", file=sys.stderr)
                fault = str(error)
            self._took = time.monotonic() - begun


class PageServer(ThreadingHTTPServer):
    """Serves a LivePage on loopback; `port` 0 takes any that is free."""

    daemon_threads = True

    def __init__(self, live: LivePage, port: int) -> None:
        self.live = live
        super().__init__((ADDRESS, port), _Handler)

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that went away is nobody's fault."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    server_version, sys_version = "oocr", ""
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _refuse_method(self) -> None:
        self._send(HTTPStatus.METHOD_NOT_ALLOWED, b"read only\n", allow="GET, HEAD")

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = _refuse_method

    def _answer(self) -> None:
        hosts = self.headers.get_all("Host") or []
        known = {f"{name}:{self.server.server_port}" for name in _NAMES}
        if len(hosts) != 1 or hosts[0].strip().lower() not in known:
            self._send(HTTPStatus.FORBIDDEN, b"this page is for 127.0.0.1 alone\n")
            return
        shown = self.server.live.shown
        try:
            path = urlsplit(self.path).path
        except ValueError:
            path = ""
        found = {
            "/": (shown.page, "text/html; charset=utf-8"),
            "/data.json": (shown.data, "application/json"),
        }.get(path)
        if found is None:
            self._send(HTTPStatus.NOT_FOUND, b"there is / and /data.json\n")
        elif shown.tag in (self.headers.get("If-None-Match") or "") and path != "/":
            self._send(HTTPStatus.NOT_MODIFIED, b"", tag=shown.tag)
        else:
            self._send(HTTPStatus.OK, found[0], kind=found[1], tag=shown.tag)

    def _send(
        self,
        status: HTTPStatus,
        body: bytes,
        *,
        kind: str = "text/plain; charset=utf-8",
        tag: str | None = None,
        allow: str | None = None,
    ) -> None:
        self.close_connection = True  # and a body that nobody reads never becomes a request
        self.send_response(status)
        headers = {**_HEADERS, "Content-Type": kind, "ETag": tag, "Allow": allow}
        if status != HTTPStatus.NOT_MODIFIED:
            headers["Content-Length"] = str(len(body))
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """The terminal is for the address and for faults."""


__all__ = ["ADDRESS", "LivePage", "PageServer", "Shown"]
