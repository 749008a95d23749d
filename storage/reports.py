"""What a report of a run has for SQL.

    records/reports/<invocation>/
      report.html, report.json   the page and its document
      changes.parquet            a row for each candidate that a recipe added or dropped (`CHANGES_SCHEMA`)
"""

from __future__ import annotations

import pyarrow as pa

CHANGES_SCHEMA = pa.schema(
    [("recipe", pa.string()), ("id", pa.uuid()), ("change", pa.string()), ("cause", pa.string())]
)
