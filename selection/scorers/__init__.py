"""Scorers: steps that give each row a number, higher = take first.

One scorer a module, or a family that shares its inputs: a frozen dataclass with its options, and the functions over
arrays that do its work. `probability_scorer` is the base of scorers of each row's own class probabilities. Scorers may
import the kernels, `learning` and the plain modules of `selection` (`step`, `pool`, `types`, `errors`, `noise` ...),
never selectors or filters. Modules of compiled loops and heavy libraries are imported inside functions, so that `import
selection` stays fast.

To add one: its module here, its test in `tests/selection/scorers/`, an entry in `selection/registry.py`, a line in
`docs/steps.md` or `docs/steps-active.md`; see CONTRIBUTING.md.
"""
