"""The page of a report: one HTML file that needs no network, made from the document alone.

Texts of rows are data: Jinja escapes whatever it writes into the page, the plots' data is JSON in a script of a type
that no browser runs, and the page's content security policy allows no script and no style but the page's own, by their
hashes. Vega reads its expressions with its interpreter instead of `eval`, which that policy forbids.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipelines.progress import duration
from pipelines.report.charts import charts
from pipelines.report.kept import kept_text

FOLDER = Path(__file__).parent
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def render(document: Mapping[str, Any]) -> str:
    """The HTML of a report."""
    specs = charts(document)
    script = vega() + "\n" + (FOLDER / "page.js").read_text("utf-8")
    template = _template(FOLDER / "page.html")
    return _page(template, script, report=document, charts=embedded_json(specs), plotted=set(specs))


def render_plain(template: Path, **values: Any) -> str:
    """The HTML of a page without script, in the style of the report.

    Args:
        template: of Jinja; it has `policy` and `style`, and no `script`.
    """
    return _page(_template(template), "", **values)


def _page(template: Any, script: str, **values: Any) -> str:
    script, style = _closed(script), _closed((FOLDER / "page.css").read_text("utf-8"))
    scripts = _hash(script) if script else "'none'"
    policy = f"default-src 'none'; script-src {scripts}; style-src {_hash(style)}; img-src data:; base-uri 'none'; form-action 'none'"
    return str(template.render(policy=policy, script=script, style=style, **values))


def embedded_json(value: Any) -> str:
    r"""JSON that may stand in a script element: nothing in it ends the element, opens a comment or ends a line.

    >>> print(embedded_json("</script><!--"))
    "\u003c/script\u003e\u003c!--"
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    return text


@cache
def vega() -> str:
    """The JavaScript of Vega, Vega-Lite and vega-embed; to make it takes two seconds, so it is kept."""

    def made() -> str:
        import vl_convert

        script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
        return script

    return kept_text(f"vega-{version('vl-convert-python')}.js", made)


def _closed(text: str) -> str:
    """A script or style in which nothing ends its element."""
    return re.sub("</(script|style)", r"<\\/\1", text, flags=re.IGNORECASE).replace("<!--", "<\\!--")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _template(file: Path) -> Any:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "number": _number,
        "delta": _delta,
        "share": _share,
        "took": _took,
        "width": _width,
        "decimal": _decimal,
        "size": _size,
        "sentence": _sentence,
    }
    return environment.from_string(file.read_text("utf-8"))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def _decimal(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _delta(value: float | None) -> str:
    return "" if value is None else "±0" if value == 0 else f"{value:+,.0f}".replace("-", "−")


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _took(value: float | None) -> str:
    return "–" if value is None else duration(value) if value >= 1 else f"{value:.1f} s"


def _size(value: float | None) -> str:
    return "–" if value is None else f"{value / 2**30:.1f} GiB"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") or not text else ".")


def _width(value: float, whole: float) -> str:
    """A part of a bar that is 100 wide; what is there at all can be seen."""
    return f"{max(100 * value / whole, 0.4 if value else 0):.2f}" if whole else "0"
