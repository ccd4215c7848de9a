"""`oocr view` through real sockets: what it answers, what it refuses, how it renews and ends."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from oocr_influence.cli.arguments import UsageError, parse
from oocr_influence.cli.page_server import LivePage, PageServer
from oocr_influence.cli.view import ViewArguments, _read, fingerprint, main
from oocr_influence.results.run_folder import ExperimentFolder

sys.path.append(str(Path(__file__).parents[1] / "reports"))

from page_runs import make_outputs, make_run


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return make_outputs(tmp_path_factory.mktemp("outputs"))


@pytest.fixture
def outputs(pristine, tmp_path):
    """A copy that a test may change."""
    return Path(shutil.copytree(pristine, tmp_path / "outputs"))


@pytest.fixture
def server(outputs):
    live = LivePage(lambda: _read([outputs]), lambda: fingerprint([outputs]), every=0.05)
    started = PageServer(live, 0)
    threading.Thread(target=started.serve_forever, args=(0.02,), daemon=True).start()
    yield started
    started.shutdown()
    started.server_close()
    live.stop()


def ask(server, path="/", method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def raw(server, text):
    """The answer to bytes as they are, which no client would send."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as connection:
        connection.sendall(text.replace("PORT", str(server.server_port)).encode())
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode(errors="replace")


def test_the_page_and_its_data(server):
    answer, page = ask(server)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert b"data-live=" in page
    answer, body = ask(server, "/data.json")
    assert answer.status == 200
    told = json.loads(body)
    assert [len(told["head"]["groups"]), len(told["head"]["runs"])] == [2, 4]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert int(answer.headers["Content-Length"]) == len(body)


def test_what_has_not_changed_is_not_sent_again(server):
    tag = ask(server, "/data.json")[0].headers["ETag"]
    answer, body = ask(server, "/data.json", If_None_Match=tag)
    assert (answer.status, body, answer.headers["ETag"]) == (304, b"", tag)
    answer, body = ask(server, "/data.json", If_None_Match='"another"')
    assert answer.status == 200
    assert body


def test_head_tells_the_length_and_sends_nothing(server):
    answer, body = ask(server, "/data.json", method="HEAD")
    assert (answer.status, body) == (200, b"")
    assert int(answer.headers["Content-Length"]) > 1000


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_nothing_is_written(server, outputs, method):
    before = {path: path.stat().st_mtime_ns for path in outputs.rglob("*")}
    answer, _ = ask(server, "/data.json", method=method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert {path: path.stat().st_mtime_ns for path in outputs.rglob("*")} == before


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "evil.example:{port}", ""])
def test_another_name_than_this_machines_is_refused(server, host):
    answer, body = ask(server, "/data.json", Host=host.format(port=server.server_port))
    assert answer.status == 403
    assert b"head" not in body


def test_no_name_or_two_names_are_refused(server):
    assert raw(server, "GET /data.json HTTP/1.0\r\n\r\n").startswith("HTTP/1.1 403")
    two = "Host: 127.0.0.1:PORT\r\nHost: evil.example\r\n"
    assert raw(server, f"GET /data.json HTTP/1.1\r\n{two}\r\n").startswith("HTTP/1.1 403")


def test_localhost_is_this_machine(server):
    answer, _ = ask(server, "/data.json", Host=f"localhost:{server.server_port}")
    assert answer.status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/hostname",
        "/..%2f..%2f..%2fetc/hostname",
        "//etc/hostname",
        "/data.json/../../etc/hostname",
        "/%2e%2e/data.json",
        "/experiment_log.json",
        "/data.json%00",
        "http://127.0.0.1/etc/hostname",
        "//[",
    ],
)
def test_no_other_path_is_answered(server, path):
    name = socket.gethostname()
    answer = raw(
        server, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nConnection: close\r\n\r\n"
    )
    assert answer.startswith("HTTP/1.1 404")
    assert name not in answer.partition("\r\n\r\n")[2]


def test_only_loopback_listens(server):
    assert server.server_address[0] == "127.0.0.1"


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come")


def test_it_renews_as_runs_come(server, outputs):
    first = ask(server, "/data.json")[0].headers["ETag"]
    (one,) = outputs.glob("*_one")
    run = make_run(ExperimentFolder(one), 45, learning_rate=1e-4)

    def newer():
        answer, body = ask(server, "/data.json", If_None_Match=first)
        runs = json.loads(body)["head"]["runs"] if answer.status == 200 else []
        return any(told["run"] == run.name and told["status"] == "completed" for told in runs)

    wait_for(newer)


def test_what_cannot_be_read_leaves_the_page(server, outputs, capfd):
    tag = ask(server, "/data.json")[0].headers["ETag"]
    outputs.rename(outputs.with_name("away"))
    wait_for(lambda: "not read: FileNotFoundError" in capfd.readouterr().err)
    assert ask(server, "/data.json")[0].headers["ETag"] == tag


def test_an_untouched_folder_is_read_once(outputs):
    times = []

    def read():
        times.append(time.monotonic())
        return _read([outputs])

    live = LivePage(read, lambda: fingerprint([outputs]), every=0.02)
    time.sleep(3)
    live.stop()
    assert len(times) == 1


def test_the_command_tells_its_address_and_ends_with_ctrl_c(outputs):
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "oocr_influence.cli.view", str(outputs)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )
    try:
        line = process.stdout.readline()
        port = int(re.match(r"http://127\.0\.0\.1:(\d+)/ ", line)[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        connection.close()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, errors) == (0, "")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_port_that_is_taken_is_one_error(outputs):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"--port {port}: 127.0.0.1 cannot be served"):
            main(parse(ViewArguments, [str(outputs), "--port", str(port)]))


def test_nothing_to_view_is_one_error(tmp_path):
    with pytest.raises(UsageError, match="no run in"):
        main(parse(ViewArguments, [str(tmp_path)]))
