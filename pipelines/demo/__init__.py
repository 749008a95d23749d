"""`winnow demo`: a pool harvested from this Python installation (`harvest`), and the run on it (`demo`).

Imports `context` and `run`.
"""
