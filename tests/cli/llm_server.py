"""A server that speaks the protocol of chat completions, with faults on demand; for tests."""

import json
import socket
import struct
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RESET, BROKEN, SLOW, GARBAGE = "reset", "broken", "slow", "garbage"


class Server:
    """`reply(text)` answers, with a text or a whole body; `faults` are served first.

    A fault is (status, body), (status, body, headers), or one of: RESET, the connection is reset;
    BROKEN, it breaks off in the middle; SLOW, a byte comes now and then; GARBAGE, a page of HTML.
    `requests` has all that was asked, `answered` the texts that got a whole reply. While `holding`
    is set, nothing more is answered: requests wait, `held` counts them, and once it is cleared they
    are dropped.
    """

    def __init__(self, reply):
        self.reply, self.faults, self.requests, self.answered = reply, [], [], []
        self.holding, self.held = threading.Event(), 0
        self.lock = threading.Lock()
        self._http = _HTTPServer(("127.0.0.1", 0), _Handler)
        self._http.fake = self
        self.host = f"127.0.0.1:{self._http.server_port}"
        self.url = f"http://{self.host}/v1"

    @contextmanager
    def running(self):
        thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.holding.clear()
            self._http.shutdown()
            self._http.server_close()
            thread.join()


class _HTTPServer(ThreadingHTTPServer):
    request_queue_size = 64

    def handle_error(self, request, client_address):
        pass  # the other side, or this one, is gone: that is what is tested


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        fake = self.server.fake
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with fake.lock:
            at = time.monotonic()
            fake.requests.append({"path": self.path, "headers": self.headers, "at": at, **body})
            fault = fake.faults.pop(0) if fake.faults else None
        if isinstance(fault, str):
            getattr(self, fault)()
            return
        status, answer, *headers = fault or (200, body_of(fake.reply(asked(body))))
        if fake.holding.is_set():
            with fake.lock:
                fake.held += 1
            while fake.holding.is_set():
                time.sleep(0.01)
            self.connection.close()
            return
        self.send(status, json.dumps(answer).encode(), *headers)
        if status == 200:
            with fake.lock:
                fake.answered.append(asked(body))

    def send(self, status, data, headers=None, length=None):
        self.send_response(status)
        self.send_header("Content-Length", str(length or len(data)))
        for name, value in (headers or {"retry-after-ms": "5"}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def reset(self):
        # A linger of no seconds: the other side is told that the connection is gone.
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()

    def broken(self):
        self.send(200, b'{"id":', length=5000)
        self.connection.close()

    def slow(self):
        self.send(200, b" ", length=5000)
        for _ in range(4999):
            time.sleep(0.05)
            self.wfile.write(b" ")

    def garbage(self):
        self.send(200, b"<html>Welcome to the gateway</html>")

    def log_message(self, *_):
        pass


def asked(body):
    return body["messages"][0]["content"]


def body_of(reply):
    return completion(reply) if isinstance(reply, str) else reply


def completion(text, *, finish="stop", refusal=None, usage=None):
    body = {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "fake-2026",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "message": {"role": "assistant", "content": text, "refusal": refusal},
            }
        ],
    }
    if usage is not None:
        tokens_in, tokens_out = usage
        body["usage"] = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out}
    return body


def error(message, **more):
    return {"error": {"message": message, "type": "invalid_request_error", **more}}
