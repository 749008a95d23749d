"""Selectors: steps that choose rows within a budget, in pick order, each with a gain and a reason.

One selector a module: a frozen dataclass with its options, and the functions over arrays that do its work. `weighted`
is the base of selectors with a column of weights. Selectors may import scorers, the kernels and the plain modules of
`selection` (`step`, `pool`, `types`, `errors`, `streams`, `noise` ...), never filters. Modules of compiled loops and
heavy libraries are imported inside functions, so that `import selection` stays fast.

To add one: its module here, its test in `tests/selection/selectors/`, an entry in `selection/registry.py`, a line in
`docs/steps.md`, `docs/steps-coverage.md` or `docs/steps-active.md`; see CONTRIBUTING.md.
"""
