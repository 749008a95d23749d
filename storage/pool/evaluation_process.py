"""The process of `evaluation`: it reads a condition from stdin and writes the ids of the matching rows to stdout."""

from __future__ import annotations

import json
import sys

REFUSED = 3
"""The exit code where DuckDB refuses the condition; its message is on stderr."""


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
            condition = duckdb.SQLExpression(header["condition"])
            matches = connection.sql("FROM examples").filter(condition).select("id").to_arrow_table()
        except (duckdb.Error, MemoryError) as error:
            sys.stderr.write(str(error) or "out of memory")
            sys.exit(REFUSED)
    with pa.ipc.new_stream(sys.stdout.buffer, matches.schema) as writer:
        writer.write_table(matches)


def _limit_time(cpu_s: int) -> None:
    """End this process by itself, should the other one be killed."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))


if __name__ == "__main__":
    main()
