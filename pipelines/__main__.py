"""`python -m pipelines` is the `winnow` command."""

from pipelines.cli.main import main

main()
