"""Labeling projects: the annotations, the project's model, the next round and its costs.

Imports `config`, `context` and `recipes`; nothing of `stages`.
"""
