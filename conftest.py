"""What pytest must not import when it looks for doctests."""

collect_ignore = [
    "pipelines/definitions.py"
]  # importing it loads a project; tests/pipelines/test_definitions.py does so
