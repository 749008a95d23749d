"""The `winnow` command.

- `main`: the subcommands. `labels`: the work of `winnow labels`. `output`: CSV, JSON lines, Parquet. `ui`: `winnow ui`.

Imports everything but `orchestration`: starting a command must not import Dagster.
"""
