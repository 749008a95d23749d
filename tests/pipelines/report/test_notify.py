from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.schema import Notify
from pipelines.context import Context
from pipelines.report.notify import failure_message, message_of, notify
from tests.pipelines.conftest import opened
from tests.pipelines.report.conftest import Nights


@dataclass
class Server:
    """A local server that keeps what it gets.

    Attributes:
        status: what it answers.
    """

    url: str
    status: int = 200
    bodies: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.bodies.append(json.loads(body))
            self.send_response(state.status)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    http = HTTPServer(("127.0.0.1", 0), Handler)
    state = Server(f"http://127.0.0.1:{http.server_port}/hook")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield state
    http.shutdown()
    http.server_close()
    thread.join()


def context_with(nights: Nights, said: list[str], **options: Any) -> Context:
    context = opened(nights.project, said)
    return replace(context, config=context.config.model_copy(update={"notify": Notify(**options)}))


def test_notify__a_webhook_gets_the_verdict_and_the_link(nights: Nights, server: Server, monkeypatch) -> None:
    monkeypatch.setenv("HOOK", server.url)
    said: list[str] = []
    context = context_with(nights, said, webhook="$HOOK", link="https://reports.test/{run}/report.html")
    notify(context, message_of(context, nights.second, Path("/r/report.html")))
    (body,) = server.bodies
    link = f"https://reports.test/{nights.second['run']}/report.html"
    assert body["text"] == f"winnow: Published: 2 recipes, 50 rows. {link}"
    assert (body["state"], body["path"], body["link"]) == ("published", "/r/report.html", link)
    assert body["recipes"][0]["name"] == "near"
    assert body["recipes"][0]["added"] == nights.recipe("near")["changes"]["added"]
    assert said == []


def test_notify__a_command_gets_it_on_its_standard_input(nights: Nights, tmp_path: Path) -> None:
    said: list[str] = []
    script = f"import sys; open({str(tmp_path / 'got')!r}, 'w').write(sys.stdin.read())"
    context = context_with(nights, said, command=(sys.executable, "-c", script))
    notify(context, message_of(context, nights.second, Path("report.html")))
    assert json.loads((tmp_path / "got").read_text())["line"] == "Published: 2 recipes, 50 rows."
    assert said == []


@pytest.mark.parametrize(
    ("options", "warning"),
    [
        ({"webhook": "http://127.0.0.1:9/hook"}, "warning: notify.webhook: nobody was told: "),
        ({"webhook": "$NO_SUCH_VARIABLE"}, "the URL must begin with http:// or https://"),
        ({"command": ("winnow-no-such-command",)}, "warning: notify.command: nobody was told: "),
        ({"command": ("sh -c 'echo wrong; exit 3'",)}, "sh ended with 3: wrong"),
        ({"command": ("sleep 9",), "timeout_s": 0.1}, "timed out after 0.1 seconds"),
    ],
)
def test_notify__what_fails_is_a_warning(nights: Nights, options: dict[str, Any], warning: str) -> None:
    said: list[str] = []
    context = context_with(nights, said, **options)
    notify(context, message_of(context, nights.second, Path("report.html")))
    (line,) = said
    assert warning in line


def test_notify__a_server_that_refuses_is_a_warning(nights: Nights, server: Server) -> None:
    said: list[str] = []
    server.status = 500
    context = context_with(nights, said, webhook=server.url)
    notify(context, message_of(context, nights.second, Path("report.html")))
    assert said == ["warning: notify.webhook: nobody was told: HTTP Error 500: Internal Server Error"]


def test_notify__problems_only(nights: Nights, server: Server) -> None:
    context = context_with(nights, [], webhook=server.url, when="problems")
    notify(context, message_of(context, nights.second, Path("report.html")))
    assert server.bodies == []
    notify(context, failure_message(context, OSError("disk full")))
    assert "could not be made: OSError: disk full" in server.bodies[0]["text"]
