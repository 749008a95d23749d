"""What a row's text can do to a terminal: nothing."""

from __future__ import annotations

import io
import json
import re
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import main
from pipelines.cli.output import write_csv, write_json_lines
from pipelines.orchestration import asset
from pipelines.progress import Log, Terminal
from pipelines.terminal import printable, standard_output
from tests.pipelines.cli.test_output import table
from tests.pipelines.conftest import Winnow

# OSC 52 writes to the clipboard; the others: a C1 introducer, a title, a cleared line, backspaces, a turned direction.
HOSTILE = [
    "\x1b]52;c;ZXZpbA==\x07",
    "\x9b31mred",
    "\x1b]0;title\x1b\\\\",
    "all fine\r\x1b[2Kgone",
    "abc\b\b\bxyz",
    "a\u202etxt.exe",
    "\u2066x\u2069",
    "\x7f\x00\x85",
    "caf\udce9.jsonl",
]


def steers(text: str) -> list[str]:
    return [
        c for c in text if (unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t") or "\u202a" <= c <= "\u202e"
    ]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_printable__nothing_that_a_terminal_obeys_is_left(text: str):
    shown = printable(text)
    assert not steers(shown)
    assert not set(shown) & set("\u2066\u2067\u2068\u2069")
    shown.encode()
    assert json.loads(f'"{printable(text.replace(chr(92), "/"))}"') == text.replace("\\", "/")


@pytest.mark.parametrize(
    "text", ["plain", "two\nlines\tand a tab", "ümläut 漢字 😀 עברית\u200f \u200d", "\\u001b as written"]
)
def test_printable__what_steers_nothing_stays(text: str):
    assert printable(text) == text


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("terminal", [True, False])
def test_csv_and_json__are_exact_but_on_a_terminal(monkeypatch: pytest.MonkeyPatch, terminal: bool):
    stream = Screen() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    rows = table("SELECT chr(27) || ']52;c' AS \"a\x9bb\", chr(155) AS c, chr(8238) AS d")
    write_csv(rows, standard_output())
    write_json_lines(rows, standard_output())
    if terminal:
        assert not steers(stream.getvalue())
        assert json.loads(stream.getvalue().splitlines()[-1]) == rows.to_pylist()[0]
    else:
        assert stream.getvalue().startswith("a\x9bb,c,d\n\x1b]52;c,\x9b,\u202e\n")


def test_sql__a_table_shows_escapes(winnow: Winnow, light: Path):
    winnow("run", "-c", light)
    said = winnow(
        "sql", "SELECT chr(27) || '[8mhidden' AS \"[b]\x1b]0;x\", [chr(155), chr(8238)] AS l", "-c", light
    ).out
    assert not steers(said)
    assert r"\u001b[8mhidden" in said
    assert r"[b]\u001b]0;x" in said


def test_errors_and_failures__show_escapes(winnow: Winnow, light: Path, capsys: pytest.CaptureFixture[str]):
    folder = light / "\x1b]52;c;ZXZpbA==\x07"
    folder.mkdir()
    refused = winnow("run", "-c", folder / "winnow.yaml")
    assert (refused.code, steers(refused.err)) == (2, [])
    assert r"\u001b]52;c" in refused.err
    (light / "data" / "\x1b[2Kgone.jsonl").write_text("no json\n" * 100)
    text = (light / "winnow.yaml").read_text()
    (light / "winnow.yaml").write_text(re.sub(r"files: .*?jsonl", "files: data/*.jsonl", text, count=1))
    ended = winnow("run", "-c", light)
    failures = winnow("failures", "-c", light)
    status = winnow("status", "-c", light)
    assert not steers(ended.out + ended.err + failures.out + status.out)
    assert r"\u001b[2Kgone" in failures.out + ended.err + status.out


@pytest.mark.parametrize("live", [True, False])
def test_progress__shows_escapes(live: bool):
    stream = Screen() if live else io.StringIO()
    reporter = Terminal(stream)
    reporter.say("\x1b]52;c")
    reporter.progress("read \x9b31m", 1, 2)
    assert not steers(stream.getvalue())
    lines: list[str] = []
    Log(lines.append).say("\x1b]52;c")
    assert lines == [r"\u001b]52;c"]


def test_output__goes_through_it():
    """No command prints a text in another way."""
    for module in (main, asset):
        source = Path(str(module.__file__)).read_text()
        assert "out.print(" not in source.replace("out.print(printable(", "")
        assert "description=str(" not in source


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "=cmd|' /C calc'!A0"]


@pytest.mark.parametrize("text", FORMULAS, ids=ascii)
def test_spreadsheet__a_formula_gets_an_apostrophe(text: str):
    def cells(**options: Any) -> list[str]:
        stream = io.StringIO()
        quoted = text.replace("'", "''")
        write_csv(
            table(f"SELECT '{quoted}' AS \"{text}\", -5 AS n, 'a=1' AS t, ['=1'] AS l, NULL AS e"), stream, **options
        )
        import csv

        return [cell for line in csv.reader(io.StringIO(stream.getvalue(), newline="")) for cell in line]

    others = ["n", "t", "l", "e"], ["-5", "a=1", '["=1"]', ""]
    assert cells() == [text, *others[0], text, *others[1]]
    assert cells(spreadsheet=True) == [f"'{text}", *others[0], f"'{text}", *others[1]]


def test_spreadsheet__goes_with_csv(winnow: Winnow, light: Path):
    winnow("run", "-c", light)
    assert winnow("sql", "SELECT '=1' AS a", "--csv", "--spreadsheet", "-c", light).out == "a\n'=1\n"
    assert "goes with --csv" in winnow("sql", "SELECT 1", "--json", "--spreadsheet", "-c", light).err
