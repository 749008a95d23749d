"""The reference of winnow.yaml in the docs."""

from __future__ import annotations

from pipelines.config import reference


def test_reference__the_docs_hold_every_key() -> None:
    document = reference.DOCUMENT.read_text("utf-8")
    assert document == reference.with_reference(document), "out of date: python -m pipelines.config.reference"
