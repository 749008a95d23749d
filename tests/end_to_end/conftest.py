"""The `winnow` command in this process."""

from tests.pipelines.conftest import winnow

__all__ = ["winnow"]
