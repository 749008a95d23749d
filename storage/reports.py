"""What the record of a report has for SQL: `changes.parquet`, beside the page and its document."""

from __future__ import annotations

import pyarrow as pa

# A row for each candidate that a recipe added or dropped.
CHANGES_SCHEMA = pa.schema(
    [
        ("recipe", pa.string()),
        ("id", pa.uuid()),
        ("change", pa.string()),
        ("cause", pa.string()),
        ("detail", pa.string()),
    ]
)
