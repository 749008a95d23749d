"""Vectors of an encoder: stored segments, vectors of a user's files, search indexes.

`segments` is the lowest; `imported` and `index` import it. May import `pool`, `files` and the base of `storage`.
"""
