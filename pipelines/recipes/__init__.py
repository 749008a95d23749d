"""From a recipe to a selection: the spec, the eligible rows, the draw, the explanation.

Imports `config`, `runs` and `context`; nothing of `labeling` or `stages`.
"""
