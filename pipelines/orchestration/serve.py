"""`python -m pipelines.orchestration.serve dagster dev ...`: the same, with `OwnPages` before the web server.

`dagster dev` starts its web server as a program of its own, `dagster_webserver`; this module stands in for both.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

WEB_SERVER = "dagster_webserver"


def main() -> None:
    """Run the program that the first argument names, with the arguments behind it."""
    program = sys.argv.pop(1)
    if program == WEB_SERVER:
        run_web_server()
    else:
        run_dagster()


def run_dagster() -> None:
    """`dagster`, which starts the web server by this module."""
    dev: Any = import_module("dagster._cli.dev")
    start = dev.open_ipc_subprocess
    dev.open_ipc_subprocess = lambda command, **options: start(guarded(command), **options)
    import_module("dagster._cli").main()


def guarded(command: Sequence[str]) -> list[str]:
    """The command that starts a program of Dagster, by way of this module where it is the web server.

    >>> guarded(["python", "-m", "dagster_webserver", "--port", "3000"])
    ['python', '-m', 'pipelines.orchestration.serve', 'dagster_webserver', '--port', '3000']
    """
    if WEB_SERVER not in command:
        return list(command)
    at = command.index(WEB_SERVER)
    return [*command[:at], "pipelines.orchestration.serve", *command[at:]]


def run_web_server() -> None:
    """Dagster's web server behind `OwnPages`."""
    from starlette.middleware import Middleware

    from pipelines.orchestration.own_pages import OwnPages

    server: Any = import_module("dagster_webserver.webserver").DagsterWebserver
    theirs = server.build_middleware
    server.build_middleware = lambda self: [Middleware(OwnPages), *theirs(self)]
    import_module("dagster_webserver.cli").main()


if __name__ == "__main__":
    main()
