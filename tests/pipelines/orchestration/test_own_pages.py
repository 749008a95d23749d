"""What Dagster's web server may be asked, and by whom."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pipelines.orchestration.own_pages import OwnPages


def answer(kind: str = "http", method: str = "POST", path: str = "/graphql", query: str = "", **headers: str) -> Any:
    """The status of the answer, or the code that a websocket is closed with; 200 where the request was passed on."""
    sent: list[Any] = []

    async def dagster(scope: Any, receive: Any, send: Any) -> None:
        await send({"status": 200})

    async def receive() -> Any:
        return {}

    async def send(message: Any) -> None:
        sent.append(message)

    listed = [(name.encode(), value.encode()) for name, value in {"host": "127.0.0.1:3000", **headers}.items()]
    scope = {"type": kind, "method": method, "path": path, "query_string": query.encode(), "headers": listed}
    asyncio.run(OwnPages(dagster, ["gpu-box.lan"])(scope, receive, send))
    return sent[0].get("status") or sent[0]["code"]


@pytest.mark.parametrize(
    "host", ["localhost:3000", "LOCALHOST", "127.0.0.1", "[::1]:3000", "10.0.0.7:80", "gpu-box.lan"]
)
def test_own_pages__its_own_names_and_addresses_are_answered(host: str):
    assert answer(host=host) == 200
    assert answer(host=host, origin=f"http://{host}") == 200
    assert answer("websocket", host=host, origin=f"https://{host}") == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example:3000", "127.0.0.1.evil.example", "", "localhost@evil.example", "evil.example\\@localhost", "[::1"],
)
def test_own_pages__a_name_that_was_made_to_point_at_it_is_refused(host: str):
    assert answer(host=host) == 403
    assert answer(method="GET", path="/", host=host) == 403
    assert answer("websocket", host=host) == 1008


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://localhost:3001", "http://127.0.0.1", "http://127.0.0.1:3000.evil.example"],
)
def test_own_pages__a_page_of_another_site_is_refused(origin: str):
    assert answer(origin=origin) == 403
    assert answer("websocket", origin=origin) == 1008
    assert answer(path="/report_asset_materialization/pool", origin=origin) == 403


@pytest.mark.parametrize("query", ["query=mutation{x}", "query=%6dutation", "variables={}&query", "a=1&query=query{x}"])
def test_own_pages__a_link_gives_no_orders(query: str):
    assert answer(method="GET", query=query) == 403
    assert answer(method="HEAD", path="/graphql/", query=query) == 403
    assert answer(method="POST", query=query) == 200
    assert answer(method="GET", path="/runs", query=query) == 200


def test_own_pages__what_is_no_request_is_passed_on():
    assert answer("lifespan", host="evil.example") == 200
    assert answer(method="GET") == 200
