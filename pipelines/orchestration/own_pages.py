"""Only the UI's own pages may give orders to the UI: a check before Dagster's web server.

Dagster answers whoever can reach it, so a page that a user has open in the same browser could start runs. Such a page
betrays itself by its `Origin`, or, where it has made its own name point here, by `Host`.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

# Names of this server beside IP addresses, `localhost` and the machine's own name, with spaces between.
HOSTS = "WINNOW_UI_HOSTS"
_HOST = re.compile(r"[a-z0-9._-]+(:\d+)?|\[[0-9a-f:.]+\](:\d+)?")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class OwnPages:
    """ASGI middleware that refuses what comes from other sites, and orders that a mere link could give."""

    def __init__(self, app: App, hosts: Iterable[str] | None = None) -> None:
        names = os.environ.get(HOSTS, "").split() if hosts is None else hosts
        self.app = app
        self.hosts = {name.lower() for name in ("localhost", socket.gethostname(), socket.getfqdn(), *names)}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        refusal = self.refusal(scope) if scope["type"] in ("http", "websocket") else None
        if refusal is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": refusal[:120]})
        else:
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": f"winnow ui: {refusal}\n".encode()})

    def refusal(self, scope: Message) -> str | None:
        """Why a request is not answered; None if it is."""
        hosts, origins = _header(scope, b"host"), _header(scope, b"origin")
        if len(hosts) != 1 or not self._is_this_server(hosts[0]):
            return f"this server is not called {', '.join(hosts) or 'nothing'}; `winnow ui --name NAME` gives it a name"
        if any(urlsplit(origin).netloc.lower() != hosts[0] for origin in origins):
            return f"a page of {', '.join(origins)} may not use this server"
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and _asks_graphql(scope):
            return "GraphQL is answered to POST only, since any page can make a browser GET"
        return None

    def _is_this_server(self, host: str) -> bool:
        """Whether a `Host` names this server. An IP address always does: no page can make it point elsewhere."""
        try:
            name = (urlsplit(f"//{host}").hostname or "") if _HOST.fullmatch(host) else ""
            return name in self.hosts or bool(ipaddress.ip_address(name))
        except ValueError:
            return False


def _header(scope: Message, name: bytes) -> list[str]:
    return [value.decode("latin-1").strip().lower() for key, value in scope["headers"] if key.lower() == name]


def _asks_graphql(scope: Message) -> bool:
    asked = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    return scope["path"].rstrip("/").endswith("/graphql") and bool({"query", "variables"} & set(asked))
