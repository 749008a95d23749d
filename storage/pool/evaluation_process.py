"""The process of `evaluation`: it reads a condition from stdin and writes the ids of the matching rows to stdout."""

from __future__ import annotations

import json
import sys
from typing import Any

REFUSED = 3
"""The exit code where DuckDB refuses the condition; its message is on stderr."""

NUMBERS = frozenset(
    [
        "BOOLEAN",
        "TINYINT",
        "SMALLINT",
        "INTEGER",
        "BIGINT",
        "HUGEINT",
        "UTINYINT",
        "USMALLINT",
        "UINTEGER",
        "UBIGINT",
        "UHUGEINT",
        "FLOAT",
        "DOUBLE",
        "DECIMAL",
    ]
)


def main() -> None:
    """Evaluate the one condition that stands on stdin."""
    import duckdb
    import pyarrow as pa

    source = sys.stdin.buffer
    header = json.loads(source.readline())
    _limit_time(header["cpu_s"])
    with duckdb.connect() as connection:
        try:
            for statement in header["opening"]:
                connection.execute(statement)
            for name, size in header["tables"].items():
                connection.register(name, pa.ipc.open_stream(source.read(size)).read_all())
            connection.execute(header["view"])
            # SQLExpression parses exactly one expression: no second statement, no clause behind it.
            examples = connection.sql("FROM examples")
            if "condition" in header:
                result = examples.filter(duckdb.SQLExpression(header["condition"])).select("id")
            else:
                result = _with_value(examples, duckdb.SQLExpression(header["expression"]))
            answer = result.to_arrow_table()
        except (duckdb.Error, MemoryError) as error:
            sys.stderr.write(str(error) or "out of memory")
            sys.exit(REFUSED)
    with pa.ipc.new_stream(sys.stdout.buffer, answer.schema) as writer:
        writer.write_table(answer)


def _with_value(examples: Any, expression: Any) -> Any:
    """The examples' ids and the expression's value as a double.

    Raises:
        duckdb.Error: the value is no number, or not one for each row.
    """
    import duckdb

    # A filter takes no windows, no aggregates and nothing that makes several rows of one.
    examples.filter(expression.isnotnull())
    values = examples.select(duckdb.ColumnExpression("id"), expression.alias("value"))
    kinds = [str(kind) for kind in values.types[1:]]
    if len(kinds) != 1 or kinds[0].partition("(")[0] not in NUMBERS:
        raise duckdb.BinderException(f"it must give a number, gives {', '.join(kinds)}; CAST(... AS DOUBLE) makes one")
    return values.select(duckdb.ColumnExpression("id"), duckdb.ColumnExpression("value").cast("DOUBLE").alias("value"))


def _limit_time(cpu_s: int) -> None:
    """End this process by itself, should the other one be killed."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))


if __name__ == "__main__":
    main()
