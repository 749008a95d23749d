"""`python -m pipelines` is the `winnow` command."""

from pipelines.cli import main

main()
