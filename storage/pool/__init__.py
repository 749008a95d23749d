"""The pool: files taken in as ingests, snapshots of them, target sets, the user's columns, token counts.

May import `files` and the base of `storage`.
"""
