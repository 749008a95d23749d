"""Tell somebody that a run ended: a JSON message to a URL or to a command. What goes wrong there is a warning, nothing more."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipelines.config.schema import Notify
from pipelines.context import Context

# Of what a server or a command answers, in a warning.
EXCERPT = 200


def notify(context: Context, message: Mapping[str, Any]) -> None:
    """Send a message as `notify` of the configuration has it, if it has; whatever fails is said and goes no further."""
    settings = context.config.notify
    if settings is None or (settings.when == "problems" and not message["problem"]):
        return
    for way, send in (("webhook", _post), ("command", _call)):
        if getattr(settings, way) is None:
            continue
        try:
            send(settings, message)
        except (OSError, ValueError, subprocess.SubprocessError) as error:  # a URL that opens nothing is an OSError
            context.report.say(f"warning: notify.{way}: nobody was told: {error}")


def message_of(context: Context, document: Mapping[str, Any], page: Path) -> dict[str, Any]:
    """What is sent: text (a sentence and where to read more), state, problem, line, setup, run, path, link, recipes.

    Chat services that take a JSON object show its `text`.
    """
    verdict, settings = document["verdict"], context.config.notify
    link = settings.link.replace("{run}", document["run"]) if settings is not None and settings.link else None
    return {
        "text": f"winnow: {verdict['line']} {link or page}",
        "state": verdict["state"],
        "problem": bool(verdict["problems"] or verdict["warnings"]),
        "line": verdict["line"],
        "setup": verdict["setup"],
        "run": document["run"],
        "path": str(page),
        "link": link,
        "recipes": [_recipe(recipe) for recipe in document["recipes"]],
    }


def failure_message(context: Context, error: Exception) -> dict[str, Any]:
    """What is sent where no report could be made."""
    line = f"the report of run {context.invocation} could not be made: {type(error).__name__}: {error}"
    return {"text": f"winnow: {line}", "state": "no_report", "problem": True, "line": line, "run": context.invocation}


def _recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    changes = recipe["changes"] or {}
    counts = {key: changes.get(key) for key in ("kept", "added", "dropped", "jaccard")}
    return {key: recipe[key] for key in ("name", "status", "rows")} | counts


def _post(settings: Notify, message: Mapping[str, Any]) -> None:
    assert settings.webhook is not None
    url = os.path.expandvars(settings.webhook)
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError("the URL must begin with http:// or https://; is its environment variable set?")
    headers = {"Content-Type": "application/json", "User-Agent": "winnow"}
    body = json.dumps(message).encode()
    request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310 - checked above
    with urllib.request.urlopen(request, timeout=settings.timeout_s) as answer:  # noqa: S310
        answer.read(EXCERPT)


def _call(settings: Notify, message: Mapping[str, Any]) -> None:
    assert settings.command is not None
    command = list(settings.command)
    words = shlex.split(command[0]) if len(command) == 1 else command
    result = subprocess.run(  # noqa: S603 - the user's own command, without a shell
        words,
        input=json.dumps(message),
        capture_output=True,
        text=True,
        timeout=settings.timeout_s,
        check=False,
    )
    if result.returncode:
        raise ValueError(
            f"{words[0]} ended with {result.returncode}: {(result.stderr or result.stdout)[:EXCERPT].strip()}"
        )
