"""Filters: steps that make a smaller pool from a pool.

One filter a module: a frozen dataclass with its options, and the functions over arrays that do its work. `duplicates`
is the base of filters that drop duplicates. Filters may import selectors, scorers, the kernels and the plain modules of
`selection` (`step`, `pool`, `types`, `errors`, `streams`, `noise` ...), never the runner or the registry. Modules of
compiled loops and heavy libraries are imported inside functions, so that `import selection` stays fast.

To add one: its module here, its test in `tests/selection/filters/`, an entry in `selection/registry.py`, a line in
`docs/steps.md`; see CONTRIBUTING.md.
"""
